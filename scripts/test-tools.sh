#!/bin/sh
# Names the programs that the tests use and that are missing; as root on Debian
# it installs them. It never fails: a test whose program is missing says so.
missing=
need() { # PROGRAM PACKAGE
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need fusermount3 fuse3
need gcc gcc
need git git
need rsync rsync
need sqlite3 sqlite3
need setfattr attr
need setfacl acl
need mkfs.xfs xfsprogs
need mkfs.ext4 e2fsprogs
need losetup mount
need tar tar
need strace strace
need bwrap bubblewrap
# A loader of OpenCL drivers, and a driver that computes on the processor.
ldconfig -p 2>/dev/null | grep -q 'libOpenCL\.so\.1' || missing="$missing ocl-icd-libopencl1"
ls /etc/OpenCL/vendors/*.icd >/dev/null 2>&1 || missing="$missing pocl-opencl-icd"
# Models of circuits.
need verilator verilator
need g++ g++
need make make
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "installing:$missing"
	# shellcheck disable=SC2086
	{ apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $missing; } >/tmp/quern-test-tools.log 2>&1 ||
		echo "they could not be installed (/tmp/quern-test-tools.log says why); the tests that need them will be skipped"
else
	echo "not installed:$missing; the tests that need them will be skipped"
fi
exit 0

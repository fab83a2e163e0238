package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMount8 mounts as an operator does, by mount(8) and a line of fstab, in a
// mount namespace of its own: there /sbin has the helper, and nothing outside
// changes. What mount(8) starts has no HOME.
func TestMount8(t *testing.T) {
	needTool(t, "mount", "umount", "findmnt", "unshare", "timeout")
	if raw, _ := os.ReadFile("/proc/filesystems"); !strings.Contains(string(raw), "\toverlay\n") {
		if err := exec.Command("modprobe", "overlay").Run(); err != nil {
			t.Skip("needs the filesystem overlay, to show mount(8) a helper in /sbin")
		}
	}
	c := startCluster(t, "--chunk-servers", "3", "--policy", "2+1", "--agent=false")
	dir := filepath.Dir(c.mnt)
	script := filepath.Join(dir, "mount8.sh")
	if err := os.WriteFile(script, []byte(mount8), 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := filepath.Abs(quern)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("timeout", "300", "unshare", "-m", "--propagation", "private", "bash", script)
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "QUERN=" + exe, "DIR=" + dir, "DATA=" + c.data,
		"META=" + metaAddr(t, c), "PKI=" + filepath.Join(c.data, "pki", "client-client"),
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(c.output.String(), "session was ended") {
		t.Error("a second mount of the data directory took the session of the first for dead")
	}
}

const mount8 = `set -eu
# The mounts of others are not to be kept alive by this namespace.
awk '$3 ~ /^fuse/ {print $2}' /proc/self/mounts | while read -r m; do umount -l "$m"; done
trap 'echo "failed at line $LINENO"; cat /proc/self/mountinfo | grep quern' ERR
M=$DIR/by-mount8
mkdir "$M" "$DIR/upper" "$DIR/work"
trap 'umount -l "$M" 2>/dev/null || true' EXIT
sbin=$(readlink -f /sbin)
mount -t overlay overlay -o "lowerdir=$sbin,upperdir=$DIR/upper,workdir=$DIR/work" "$sbin"
ln -s "$QUERN" /sbin/mount.fuse.quern
export LIBMOUNT_FSTAB=$DIR/fstab
options() { findmnt -n -o OPTIONS "$M"; }
has() { case ,$(options), in *,$1,*) ;; *) echo "$1 is not among $(options)"; false;; esac; }
hasnot() { case ,$(options), in *,$1,*) echo "$1 is among $(options)"; false;; *) ;; esac; }

# The line of docs/operating.md, twice.
echo "$META $M fuse.quern pki=$PKI,_netdev 0 0" > "$DIR/fstab"
mount -a -T "$DIR/fstab"
mount -a -T "$DIR/fstab"
[ "$(grep -c " $M " /proc/self/mountinfo)" = 1 ]
[ "$(findmnt -n -o TARGET -S "$META")" = "$M" ]
[ "$(findmnt -n -o SOURCE "$M")" = "$META" ]

# What root mounts has suid and devices, as any filesystem.
hasnot nosuid; hasnot nodev; has relatime
cp /usr/bin/id "$M/id"
chmod 4755 "$M/id"
[ "$(setpriv --reuid 1234 --regid 1234 --clear-groups "$M/id" -u)" = 0 ]
mknod "$M/null" c 1 3
echo gone > "$M/null"

# Access times: a read moves them, but not once the mount is read-only.
echo text > "$M/file"
touch -a -d 2001-01-01 "$M/file"
before=$(stat -c %X "$M/file")
mount -o remount,ro "$M"
has ro; hasnot nosuid
cat "$M/file" > /dev/null
[ "$(stat -c %X "$M/file")" = "$before" ]
if touch "$M/new" 2>/dev/null; then false; fi
mount -o remount,rw "$M"
has rw
touch "$M/new"
touch -a -d 2001-01-01 "$M/file"
cat "$M/file" > /dev/null
[ "$(stat -c %X "$M/file")" != "$before" ]
mount -o remount,noatime "$M"
has noatime; hasnot relatime
if mount -o remount,strictatime "$M" 2> "$DIR/err"; then false; fi
grep -q 'strictatime cannot be had' "$DIR/err"
exec 7>> "$M/new"
if mount -o remount,ro "$M" 2> "$DIR/err"; then false; fi
grep -q 'is in use' "$DIR/err"
exec 7>&-
umount "$META"
[ -z "$(findmnt -n "$M")" ]

# The other way to name a cluster; options of users and of who has no rights.
mount -t fuse.quern "$DATA" "$M" -o nosuid,nodev,noexec,ro
has nosuid; has nodev; has noexec; has ro
touch -c "$M/file" 2>/dev/null && false
at=$(stat -c %X "$M/file")
cat "$M/file" > /dev/null
[ "$(stat -c %X "$M/file")" = "$at" ]
umount "$M"
if mount -t fuse.quern "$DATA" "$M" -o strictatime 2> "$DIR/err"; then false; fi
grep -q 'strictatime cannot be had' "$DIR/err"
`

// TestMountUnit: systemd takes the unit that docs/operating.md names.
func TestMountUnit(t *testing.T) {
	needTool(t, "systemd-analyze")
	cmd := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join("..", "docs", "deploy", "mnt-q.mount"))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

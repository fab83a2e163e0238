#!/bin/bash
# The tests where a machine is slow: none may depend on how fast it is. Each round
# is another kind of slowness. Usage: scripts/test-slow.sh [PACKAGE...]; ROUNDS
# chooses some of: busy, nice, one, disk, fork.
set -u
cd "$(dirname "$0")/.." || exit 1
packages=("$@")
[ ${#packages[@]} -gt 0 ] || mapfile -t packages < <(go list ./... | grep -v /integration)
rounds=${ROUNDS:-busy nice one disk fork}
failed=
busy=()
stop_busy() { [ ${#busy[@]} -eq 0 ] || kill "${busy[@]}" 2>/dev/null; busy=(); }
trap stop_busy EXIT
start_busy() { # four loops a processor
	for _ in $(seq $((4 * $(nproc)))); do
		sh -c 'while :; do :; done' &
		busy+=($!)
	done
}
slow() { # SYSCALLS MICROSECONDS: a command before which a test binary is run with them slow
	echo "strace --seccomp-bpf -f -qq -o /dev/null -e trace=$1 -e signal=none -e inject=$1:delay_enter=$2"
}
round() { # NAME COMMAND...
	echo "=== $1"
	shift
	"$@" -count=1 -timeout 60m "${packages[@]}" || failed="$failed $name"
}
for name in $rounds; do
	case $name in
	busy) start_busy; round "$name: eight loops beside" go test; stop_busy ;;
	nice) start_busy; round "$name: at the lowest priority, with loops beside" nice -n 19 go test; stop_busy ;;
	one) round "$name: one processor" env GOMAXPROCS=1 taskset -c 0 go test ;;
	disk) round "$name: each fsync takes 20 ms more" go test -exec "$(slow fsync,fdatasync 20000)" ;;
	fork) round "$name: each new process takes 25 ms more" go test -exec "$(slow clone,clone3,fork,vfork 25000)" ;;
	*) echo "no such round: $name"; exit 2 ;;
	esac
done
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
echo "all rounds passed"

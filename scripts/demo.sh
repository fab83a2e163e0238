#!/usr/bin/env bash
# The demo: a whole cluster in one process, a real source tree, a job that runs
# where the files lie. Everything is in a temporary directory, removed at the end.
#
#   scripts/demo.sh [QUERN]
set -euo pipefail
quern=$(readlink -f "${1:-bin/quern}")
work=$(mktemp -d)
mnt=$work/mnt data=$work/data
mkdir "$mnt"
up=

finish() {
	status=$?
	trap - EXIT INT TERM
	if [ -n "$up" ]; then
		kill -INT "$up" 2>/dev/null || true
		wait "$up" || status=1
		[ $status = 0 ] || cat "$work/up.log" >&2
	fi
	if mountpoint -q "$mnt"; then
		echo "still mounted: $mnt" >&2
		umount -l "$mnt" 2>/dev/null || fusermount3 -uz "$mnt" || true
		status=1
	fi
	rm -rf "$work"
	[ $status = 0 ] && echo "unmounted, all removed"
	exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
timed() { # WHAT COMMAND…
	local began
	began=$(date +%s.%N)
	"${@:2}"
	awk -v what="$1" -v from="$began" -v to="$(date +%s.%N)" 'BEGIN { printf "%s: %.1f s\n", what, to - from }'
}

say "quern up: metadata, 6 chunk servers, agent and mount in one process, 4+2"
"$quern" up --data "$data" --mount "$mnt" --log-level warn >"$work/up.log" 2>&1 &
up=$!
for _ in $(seq 300); do
	if grep -q 'is mounted' "$work/up.log"; then break; fi
	kill -0 "$up" 2>/dev/null || { cat "$work/up.log" >&2; up=; exit 1; }
	sleep 0.1
done
grep 'is mounted' "$work/up.log"

src=$(readlink -f "$(go env GOROOT)/src")
say "The Go source goes in: $src"
timed "cp -a" cp -a "$src" "$mnt/src"
timed "diff -r, every byte" diff -r "$src" "$mnt/src"
echo "$(find "$mnt/src" -type f | wc -l) files, $(du -sh --apparent-size "$mnt/src" | cut -f1): no difference"

say "A job: the most frequent identifiers of these files, by a WASM kernel"
cat >"$mnt/identifiers.yaml" <<'END'
version: 1
kernel: wordcount
inputs:
  - /src/**/*.go
split: file
params: {words: identifiers}
reduce:
  params: {top: "15"}
output: top.txt
END
cat "$mnt/identifiers.yaml"
mv "$mnt/identifiers.yaml" "$mnt/.compute/queue/"
job=$mnt/.compute/by-name/identifiers
timed "the job" cat "$job/wait"
if [ "$(cat "$job/state")" != succeeded ]; then
	echo "the job is $(cat "$job/state"): $(cat "$job/reason")" >&2
	exit 1
fi

say "Its result, .compute/by-name/identifiers/out/top.txt"
cat "$job/out/top.txt"

say "Where it ran"
"$quern" job show identifiers --data "$data"

say "quern status"
"$quern" status --data "$data"

say "Ctrl-C"

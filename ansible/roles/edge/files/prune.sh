#!/bin/sh
# prune.sh DIRECTORY KEPT [NAME...]: removes the oldest directories in it, until KEPT are left; never those that are
# named, nor one whose files a process has mapped (a worker that drains has its code there). Says what it removed.
set -eu
cd "$1"
kept=$2
shift 2
number=0
ls -1t | while IFS= read -r name; do
    [ -d "$name" ] || continue
    number=$((number + 1))
    [ "$number" -gt "$kept" ] || continue
    for named in "$@"; do
        [ "$name" != "$named" ] || continue 2
    done
    ! grep -qsF "$PWD/$name/" /proc/[0-9]*/maps || continue
    rm -rf -- "./$name"
    printf 'removed %s\n' "$name"
done

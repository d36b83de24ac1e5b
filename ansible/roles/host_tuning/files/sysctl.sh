#!/bin/sh
# sysctl.sh FILE: sets what is otherwise, and says what it set and what it had to leave. Exit code 2: some were left.
left=0
while IFS= read -r line; do
    case $line in '#'* | '') continue ;; esac
    name=${line%% = *}
    value=$(printf '%s' "${line#* = }" | tr -s ' \t' ' ')
    file=/proc/sys/$(printf '%s' "$name" | tr . /)
    if [ ! -e "$file" ]; then
        echo "left $name: this kernel does not know it here"
        left=2
    elif [ "$(tr -s ' \t' ' ' <"$file")" = "$value" ]; then
        continue
    elif { printf '%s\n' "$value" >"$file"; } 2>/dev/null; then
        echo "set $name to $value"
    else
        echo "left $name: it cannot be written here"
        left=2
    fi
done <"$1"
exit $left

#!/bin/sh
# What edge is configured by, kept beside it and put back: configuration.sh keep|restore
set -eu
umask 077
before=/etc/edge.before
units=/etc/systemd/system

# put FROM TO: TO has what FROM has, and nothing else. Each file is replaced as a whole.
put() {
    mkdir -p "$2"
    cp -a --remove-destination "$1/." "$2/"
    (cd "$2" && find . -mindepth 1 -depth) | while IFS= read -r name; do
        [ -e "$1/$name" ] || [ -L "$1/$name" ] || rm -rf -- "${2:?}/$name"
    done
}

case $1 in
    keep)
        rm -rf "$before.tmp"
        mkdir -p "$before.tmp/etc" "$before.tmp/units"
        [ ! -d /etc/edge ] || cp -a /etc/edge/. "$before.tmp/etc/"
        for unit in edge.service edge.service.d; do
            [ ! -e "$units/$unit" ] || cp -a "$units/$unit" "$before.tmp/units/"
        done
        sync -f "$before.tmp"
        mv -T "$before.tmp" "$before"
        ;;
    restore)
        [ -d "$before" ] || exit 0
        put "$before/etc" /etc/edge
        for unit in edge.service edge.service.d; do
            if [ -d "$before/units/$unit" ]; then
                put "$before/units/$unit" "$units/$unit"
            elif [ -e "$before/units/$unit" ]; then
                cp -a --remove-destination "$before/units/$unit" "$units/$unit"
            else
                rm -rf "${units:?}/$unit"
            fi
        done
        echo restored
        ;;
esac

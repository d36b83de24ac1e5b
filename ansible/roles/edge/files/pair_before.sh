#!/bin/sh
# pair_before.sh NAME: the link of a certificate leads to the newest pair but the one that it leads to.
set -eu
cd /etc/edge/certificates
used=$(readlink "$1")
for pair in $(ls -1td .pairs/"$1"/*/); do
    pair=$PWD/${pair%/}
    [ "$pair" != "$used" ] || continue
    ln -s "$pair" ".link-$1"
    mv -T ".link-$1" "$1"
    echo "turned from $used to $pair"
    exit 0
done
echo "there is no pair of $1 beside $used; edge_certificates_kept says how many are kept" >&2
exit 1

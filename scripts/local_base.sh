#!/bin/sh
# Where no image registry can be reached: make a stand-in for the Dockerfiles' BASE from this machine's own Debian mirror,
# with this machine's certificates. Its pip takes wheels from /wheels alone, which scripts/local_images.sh binds there.
set -eu
say() { printf '%s\n' "$*" >&2; }

here=$(dirname "$0")/..
export CONTAINERS_CONF="${CONTAINERS_CONF:-$here/scripts/containers.conf}"
base=$(sed -n 's/^ARG BASE=//p' "$here/components/images/train.Dockerfile")
if podman image exists "$base"; then
    say "goalrank: $base is here"
    exit 0
fi
suite=bookworm # as the Dockerfiles say
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -n -e 's/^URIs: *\([^ ]*\/debian\/\{0,1\}\)$/\1/p' -e 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\/debian\/\{0,1\}\) .*/\2/p' |
    head -n 1)
[ -n "$mirror" ] || {
    say "goalrank: no Debian mirror found in /etc/apt; expected a line with an address that ends in /debian."
    exit 2
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '[global]\nno-index = true\nfind-links = /wheels\ndisable-pip-version-check = true\n' > "$work/pip.conf"
say "goalrank: making $base (about a minute, once)"
# dpkg need not wait for the disk, in the builds either; documentation stays out, as in the real base.
mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3-venv \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Languages "none"' \
    --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs' \
    --customize-hook="copy-in $work/pip.conf /etc" \
    --customize-hook='chroot "$1" python3 -m venv /usr/local' \
    "$suite" "$work/base.tar" "$mirror"
podman import --quiet "$work/base.tar" "$base" >&2

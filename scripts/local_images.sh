#!/bin/sh
# Build the three images on this machine without a daemon and without a registry: root, podman, buildah and mmdebstrap.
# Everything that pip needs is fetched once, into build/wheels, and bound into the three builds.
set -eu
say() { printf '%s\n' "$*" >&2; }

cd "$(dirname "$0")/.."
export CONTAINERS_CONF="${CONTAINERS_CONF:-$PWD/scripts/containers.conf}"
python=${PYTHON:-.venv/bin/python}
version=$("$python" -c 'import goalrank; print(goalrank.__version__)')
wheels=$PWD/build/wheels

sh scripts/local_base.sh
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    say "goalrank: $python is not Python 3.11, which the images have: wheels fetched by it would not fit."
    exit 2
}
asked=$(cat constraints.txt components/images/*.txt | sha256sum)
if [ "$asked" != "$(cat "$wheels/.asked" 2>/dev/null)" ]; then
    say "goalrank: wheels, as pinned in constraints.txt"
    mkdir -p "$wheels"
    # async-timeout: redis asks for it on Pythons before 3.11.3, such as the stand-in's.
    # shellcheck disable=SC2086 - TORCH_PIP holds options
    "$python" -m pip wheel -qq --disable-pip-version-check --no-deps --wheel-dir "$wheels" ${TORCH_PIP:-} \
        "$(grep '^torch==' constraints.txt)" "$(grep '^async-timeout==' constraints.txt)"
    "$python" -m pip wheel -qq --disable-pip-version-check --wheel-dir "$wheels" --find-links "$wheels" \
        --constraint constraints.txt \
        --requirement components/images/data.txt --requirement components/images/train.txt \
        --requirement components/images/serve.txt
    printf '%s' "$asked" > "$wheels/.asked"
fi
for image in data train serve; do
    say "goalrank: goalrank/$image:$version"
    before=$(podman image inspect --format '{{.Id}}' "goalrank/$image:$version" 2>/dev/null || true)
    buildah bud --isolation chroot --pull-never --layers --volume "$wheels:/wheels:ro" \
        --file "components/images/$image.Dockerfile" --tag "goalrank/$image:$version" . > "build/$image.log" 2>&1 || {
        say "goalrank: goalrank/$image could not be built; build/$image.log ends:"
        tail -n 20 "build/$image.log" >&2
        exit 1
    }
    # What this build replaces has no name any more; without this a machine's disk fills, build by build.
    if [ -n "$before" ] && [ "$before" != "$(podman image inspect --format '{{.Id}}' "goalrank/$image:$version")" ]; then
        podman image rm "$before" > /dev/null || say "goalrank: the image before stays, a container may still use it"
    fi
done

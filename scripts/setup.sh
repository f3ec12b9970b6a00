#!/bin/sh
# Make the environment: python, java, then torch first (asked for later, pip may choose another build), then the rest.
set -eu
say() { printf '%s\n' "$*" >&2; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    say "goalrank: Python 3.11 or newer is needed, '$PYTHON' is not it."
    say "  Debian/Ubuntu: apt-get install python3 python3-venv    macOS: brew install python@3.12"
    say "  or name one:   make PYTHON=/path/to/python3.12 ..."
    exit 2
}
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || {
    say "goalrank: this Python has no venv module. Debian/Ubuntu: apt-get install python3-venv"
    exit 2
}
java_version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1 || true)
if [ "${java_version:-0}" -lt 17 ]; then
    say "goalrank: Java 17 or newer is needed for Spark, found: ${java_version:-none}."
    say "  Debian/Ubuntu: apt-get install openjdk-17-jre-headless    macOS: brew install openjdk@17"
    exit 2
fi

say "goalrank: setting up $VENV (about five minutes and 3 GB, once)"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
torch=$(grep '^torch==' constraints.txt)
say "goalrank: 1/2 $torch"
# shellcheck disable=SC2086 - TORCH_PIP holds options
"$VENV/bin/pip" install --quiet --disable-pip-version-check ${TORCH_PIP:-} "$torch"
say "goalrank: 2/2 everything else, as pinned in constraints.txt"
"$VENV/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
say "goalrank: ready"

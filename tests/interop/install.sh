#!/bin/sh
# usage: tests/interop/install.sh PYTHON
# Afterwards build/interop is an environment with what requirements.txt lists; made once, and again when the list changes.
set -eu
cd "$(dirname "$0")/../.."
listed=tests/interop/requirements.txt
environment=build/interop
if ! cmp -s "$listed" "$environment/installed"; then
    rm -rf "$environment"
    "$1" -m venv "$environment"
    "$environment/bin/pip" --disable-pip-version-check install -qq --retries 1 --timeout 10 --no-deps -r "$listed"
    cp "$listed" "$environment/installed"
fi

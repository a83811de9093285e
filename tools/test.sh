#!/bin/sh
# usage: tools/test.sh BIN
# Exits 0 when every test passes, the other reader of the vectors agrees, and a look by each fuzz target finds nothing.
# BIN: where python is.
#
# In two streams side by side: tests that wait for processes of their own leave half of two cores idle, and the others
# compile on one core. What the second stream prints is shown when both have ended.
set -u
cd "$(dirname "$0")/.."
python=$1/python
printed=build/tests.txt
computing="tests/engine tests/models tests/protocol tests/spec"
mkdir -p build

compute() {
    tools/verify-js.sh && "$python" fuzz/run.py --all --seconds 2 && "$python" -m pytest $computing
}

# Whatever is in no directory of the other stream, new directories too.
mesh() {
    left_out=
    for directory in $computing; do left_out="$left_out --ignore=$directory"; done
    "$python" -m pytest -p no:cacheprovider $left_out
}

# The one in the background hears Ctrl-C because tests/conftest.py sees to it.
mesh >"$printed" 2>&1 &
mesh=$!
compute
computed=$?
wait "$mesh"
meshed=$?
cat "$printed"
[ "$computed" = 0 ] && [ "$meshed" = 0 ]

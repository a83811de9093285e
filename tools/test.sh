#!/usr/bin/env bash
# usage: tools/test.sh BIN
# Exits 0 when every test passes, the other reader of the vectors agrees, and a look by each fuzz target finds nothing.
# BIN: where python is.
#
# In three streams side by side: tests that wait for processes of their own leave half of two cores idle, others compile on
# one core, and what reads and writes records waits for nothing: it is nice, and takes what the other two leave. Some
# directories belong to no stream: each is taken by the one of the first two that is done first, so that both end together,
# whatever the machine. What two of the streams print is shown when all have ended, and stays in build/.
#
# Ctrl-C and SIGTERM end all three, and what they have started: each is a process group.
set -um
cd "$(dirname "$0")/.."
python=$1/python
engine="tests/engine tests/models"
records="tests/protocol tests/spec"
either="tests/client tests/cli tests/payment tests/simnet tests/grid" # the longest first
mkdir -p build
taken=$(mktemp -d build/taken.XXXXXX) || exit 1 # of this run alone: another may go on beside it
trap 'mv -f "$taken"/*.txt build/ 2>/dev/null; rm -rf "$taken"' EXIT
export FALLOW_TESTS_SHARE="$PWD/$taken"

tests() { "$python" -m pytest -p no:cacheprovider "$@"; }

compute() {
    trap "exit 130" INT TERM # after an interrupted test no further one
    tests $engine
    computed=$?
    rest && return "$computed"
}

# Where it gets a third of what others get, a test takes as much longer.
read_and_write() {
    trap "exit 130" INT TERM
    nice -n 5 tools/verify-js.sh &&
        nice -n 5 "$python" fuzz/run.py --all --seconds 2 &&
        nice -n 5 "$python" -m pytest -p no:cacheprovider --timeout 600 $records
}

# Whatever is in no directory of the other streams, new directories too.
mesh() {
    trap "exit 130" INT TERM
    left_out=
    for directory in $engine $records $either; do left_out="$left_out --ignore=$directory"; done
    tests $left_out
    meshed=$?
    rest && return "$meshed"
}

# 0 when those of the directories pass that nobody had taken. Only one of two can make the same folder.
rest() {
    failed=0
    for directory in $either; do
        if mkdir "$taken/${directory#tests/}" 2>/dev/null; then
            tests "$directory" || failed=1
        elif [ ! -d "$taken/${directory#tests/}" ]; then
            echo "tools/test.sh: $directory could not be taken, so it was not run" >&2
            failed=1
        fi
    done
    return "$failed"
}

# Tests tidy up after themselves when they are interrupted; for whoever does not end by that there is a harder way.
end() {
    trap "" INT TERM
    kill -s TERM "$computing" "$reading" "$mesh" 2>/dev/null # no further step
    kill -s INT -- "-$computing" "-$reading" "-$mesh" 2>/dev/null
    (sleep 20 && kill -s KILL -- "-$computing" "-$reading" "-$mesh") 2>/dev/null &
    killer=$!
    wait "$computing" "$reading" "$mesh"
    kill -s KILL -- "-$killer" 2>/dev/null
    exit 130
}

compute </dev/null &
computing=$!
read_and_write </dev/null >"$taken/records.txt" 2>&1 &
reading=$!
mesh </dev/null >"$taken/tests.txt" 2>&1 &
mesh=$!
trap end INT TERM
wait "$computing"
computed=$?
wait "$reading"
was_read=$?
wait "$mesh"
meshed=$?
cat "$taken/records.txt" "$taken/tests.txt"
[ "$computed" = 0 ] && [ "$was_read" = 0 ] && [ "$meshed" = 0 ]

#!/bin/sh
# The second, independent reader of spec/vectors passes every case. It needs Node.js 20 and npm; without them it says so,
# and fails only where FALLOW_NEED_ALL is set.
set -eu
cd "$(dirname "$0")/../spec/verify-js"
if ! command -v npm >/dev/null; then
    echo "spec/verify-js: not run: it needs Node.js 20 and npm" >&2
    [ -z "${FALLOW_NEED_ALL:-}" ]
    exit
fi
# Installed once, and again when the list of packages changes.
if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/.installed
fi
npm test --silent

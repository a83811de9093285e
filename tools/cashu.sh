#!/bin/sh
# usage: tools/cashu.sh VENV
# Afterwards VENV holds nutshell, a real Cashu mint, in an environment of its own: its pins and ours do not go together.
set -eu
[ -x "$1/bin/mint" ] && exit
"${PYTHON:-python3.11}" -m venv --clear "$1"
"$1/bin/pip" --disable-pip-version-check install -qq 'cashu==0.20.2' 'marshmallow<4' 'limits<5'

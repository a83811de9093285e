#!/bin/sh
# usage: tools/check.sh BIN
# Exits 0 when the tree is well formed, well typed, its imports point downward, and pyproject.toml lists its packages.
# BIN: where python, pytest, ruff, mypy and lint-imports are.
set -eu
cd "$(dirname "$0")/.."
bin=$1
links=build/types/fallow

say() { echo "check: $*"; }

# The package without the rest of the root: one link per entry (one link to the root would contain itself).
link_packages() {
    rm -rf build/types
    mkdir -p "$links"
    for entry in cli client models node protocol testnet verifier __init__.py py.typed; do
        ln -s "../../../$entry" "$links/$entry"
    done
    # trio has its own types; without this link, mypy takes the stubs of an old trio that libp2p pulls in.
    ln -s "$("$bin/python" -c "import os, trio; print(os.path.dirname(trio.__file__))")" build/types/trio
}

# Addresses that only exist where somebody wrote them. (The brackets keep the pattern from finding itself.)
foreign='(^|[^[:alnum:]_.])/([w]ork|tmp/[w]|opt/[p]ypi)/|[p]ypi\.org|[p]ythonhosted|[n]pmjs\.(org|com)'

say "style"
"$bin/ruff" check --quiet .
"$bin/ruff" format --check --quiet .
say "types"
link_packages
"$bin/mypy" -p fallow
MYPYPATH=benchmarks "$bin/mypy" benchmarks
MYPYPATH=fuzz "$bin/mypy" fuzz
say "arrows"
PYTHONPATH=build/types "$bin/lint-imports" --no-cache --no-logo
say "packages"
PYTHONPATH=$PWD/build/types "$bin/python" -m pytest -q --no-header -p no:cacheprovider tests/test_packages.py
say "paths"
if git grep --untracked -nIE "$foreign"; then
    echo "check: the lines above name a path of one machine or a package index: say it without." >&2
    exit 1
fi

#!/bin/sh
# usage: tools/install.sh VENV
# Afterwards VENV holds fallow (editable) with every extra, at the versions of constraints.txt.
# Needs Python 3.11 to 3.13. Compilers too, for C because libp2p's fastecdsa has no wheel for them, for C++ because a node's
# kernels are compiled where it runs: as root on Debian what is missing is installed, elsewhere one sentence says what to
# install. So with bubblewrap, which fallow runs without, but then refuses strangers' bundles.
set -eu
venv=$1

fail() {
    echo "fallow: $*" >&2
    exit 1
}

# A name on the PATH is not enough: version managers leave shims there for versions that cannot run.
find_python() {
    for name in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    fail "no Python 3.11, 3.12 or 3.13 found: install one, or say where it is (make PYTHON=/path/to/python3.12)."
}

has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
has_headers() {
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    printf '#include <Python.h>\n#include <gmp.h>\n' | ${CC:-cc} -E -I"$include" - >/dev/null 2>&1 &&
        printf '#include <atomic>\n' | ${CXX:-c++} -x c++ -E - >/dev/null 2>&1
}

# Packages of Debian, where this is Debian and we are root. Its lists are fetched once.
can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
apt_install() {
    echo "fallow: installing $*"
    export DEBIAN_FRONTEND=noninteractive
    [ -n "${lists:-}" ] || apt-get -qq update || return
    lists=fetched
    apt-get -qq install --no-install-recommends "$@" >/dev/null
}

install_system_packages() {
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    packages="g++ libc6-dev libgmp-dev"
    # Only a Python that the distribution packaged gets its headers and ensurepip from there.
    if [ "$("$python" -c 'import sys; print(sys.base_prefix)')" = /usr ]; then
        packages="$packages python$version-dev python$version-venv"
    fi
    can_apt || fail "a C and C++ compiler, gmp.h, Python.h and Python's venv module are needed: install them" \
        "(on Debian or Ubuntu: sudo apt-get install $packages) and run make again."
    apt_install $packages || fail "apt-get could not install $packages: see its message above."
}

python=$(find_python)
if ! has_venv || ! has_headers; then
    install_system_packages
    has_venv || fail "$python has no ensurepip: install its venv package and run make again."
    has_headers || fail "$python still has no C and C++ compiler, gmp.h or Python.h: install them and run make again."
fi
if ! command -v bwrap >/dev/null; then
    if can_apt; then
        apt_install bubblewrap ||
            echo "fallow: apt-get could not install bubblewrap: without it, nodes here refuse strangers' bundles." >&2
    else
        echo "fallow: without bubblewrap, nodes here refuse strangers' bundles: install it" \
            "(on Debian or Ubuntu: sudo apt-get install bubblewrap) when you like." >&2
    fi
fi
# For the tests' network lab alone; they say so where it is missing.
if ! command -v nft >/dev/null && can_apt; then
    apt_install iproute2 nftables ||
        echo "fallow: apt-get could not install nftables: the tests of homes behind NAT are skipped." >&2
fi
# For one test alone, which says so where it is missing: another program reads the statements that this one writes.
if ! command -v hledger >/dev/null && can_apt; then
    apt_install hledger || echo "fallow: apt-get could not install hledger: one test of statements is skipped." >&2
fi

echo "fallow: installing into $venv with $python (a few minutes the first time)"
[ -x "$venv/bin/python" ] && [ -x "$venv/bin/pip" ] || "$python" -m venv --clear "$venv"
"$venv/bin/pip" --disable-pip-version-check install -qq --constraint constraints.txt --editable '.[dev]'

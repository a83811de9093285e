"""The repository's root is the package: what pyproject.toml lists is what the tree holds, and imports stay light."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]

# Top-level directories that hold no part of the package. Hidden ones (.git, .venv) do not count either.
NOT_PACKAGE = {"benchmarks", "build", "dist", "fuzz", "newsfragments", "spec", "tests", "tools"}


def packages_in_tree() -> set[str]:
    found = {"fallow"}
    for top in ROOT.iterdir():
        if top.is_dir() and top.name not in NOT_PACKAGE and not top.name.startswith((".", "__")):
            found |= {".".join(["fallow", *init.parent.relative_to(ROOT).parts]) for init in top.rglob("__init__.py")}
    return found


def test_the_packages_listed_are_those_in_the_tree() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages_in_tree())


def test_every_module_is_in_a_listed_package() -> None:
    tops = {name.split(".")[1] for name in SETUPTOOLS["packages"] if "." in name}
    homes = {
        ".".join(["fallow", *module.parent.relative_to(ROOT).parts])
        for top in tops
        for module in (ROOT / top).rglob("*.py")
    }
    assert homes <= set(SETUPTOOLS["packages"])


def test_the_type_checker_sees_every_top_level_package() -> None:
    links = next(line for line in (ROOT / "tools/check.sh").read_text().splitlines() if "for entry in" in line)
    tops = {name.split(".")[1] for name in SETUPTOOLS["packages"] if "." in name}
    assert tops <= set(links.replace(";", " ").split())


def test_every_file_that_package_data_names_exactly_exists() -> None:
    for package, patterns in SETUPTOOLS["package-data"].items():
        home = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            assert "*" in pattern or (home / pattern).is_file(), f"{package}: {pattern}"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("fallow.protocol", {"jax", "libp2p", "trio"}),
        ("fallow.node", {"jax", "libp2p", "trio", "fallow.node.engine", "fallow.node.network", "fallow.protocol"}),
        ("fallow.client", {"jax", "libp2p", "numpy"}),
        ("fallow.cli", {"jax", "libp2p", "numpy"}),
        ("fallow.cli.testnet", {"jax", "libp2p", "numpy", "fallow.client", "fallow.node.daemon"}),
    ],
)
def test_importing_loads_nothing_heavy(module: str, unwanted: set[str]) -> None:
    program = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=os.environ)
    assert ran.returncode == 0, ran.stderr
    assert unwanted.isdisjoint(ran.stdout.split())

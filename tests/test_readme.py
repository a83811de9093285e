"""What README.md and the pages of docs/ tell people to type works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fallow.cli import app
from fallow.cli.commands import COMMANDS
from fallow.node.config import parse
from fallow.node.engine.bundles import BundleStore
from fallow.node.metrics import TABLE
from fallow.node.rules.preferences import WORDS
from fallow.node.trust import TrustList
from fallow.testnet.local import Testnet

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TEXTS = {page: page.read_text("utf-8") for page in PAGES}
TINY = {"smollm2-135m-instruct": "tiny-chat", "minilm-l6": "tiny-embed"}
"""What the example is run with instead: models of random weights, which are there in a moment."""


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language; those without one have ``."""
    fenced = [
        found
        for text in TEXTS.values()
        for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    return [text for found, text in fenced if found == language]


def typed() -> list[str]:
    """Every `fallow ...` on a line of its own, to be typed as it is."""
    return [line for block in blocks("") for line in block.splitlines() if line.startswith("fallow ")]


def named() -> list[str]:
    """Every `fallow ...` within a sentence; its options may be left out."""
    prose = [re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL) for text in TEXTS.values()]
    return [command for text in prose for command in re.findall(r"`(fallow [^`\n]+)`", text)]


def in_words(command: str) -> list[str]:
    """What a shell would hand to `fallow`."""
    return [word for word in shlex.split(command, comments=True)[1:] if word != "&"]


@pytest.mark.parametrize("command", [*typed(), *named()])
def test_every_command_exists(command: str) -> None:
    assert any(in_words(command)[: len(known)] == known for known in (each.words.split() for each in COMMANDS))


@pytest.mark.parametrize("command", typed())
def test_every_line_to_type_is_a_right_call(command: str) -> None:
    app().parse_args(in_words(command))


def test_the_node_of_the_example_has_settings_that_hold(tmp_path: Path) -> None:
    (text,) = (block for block in blocks("toml") if "listen" in block)
    config = parse(tomllib.loads(text), tmp_path)
    assert config.listen
    assert not any("127.0.0.1" in address for address in config.listen)
    assert config.bootstrap
    assert set(config.bundles) <= set(TINY)


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    """A machine whose store holds both tiny bundles, trusted there."""
    return new_home()


def test_the_metrics_are_those_that_there_are() -> None:
    rows = re.findall(
        r"^\| `(fallow_\w+)` \| (?:`(\w+)`)? ?\| (.+) \|$", TEXTS[ROOT / "docs" / "owner.md"], re.MULTILINE
    )
    assert rows == [(kind.name, kind.label, kind.meaning) for kind in TABLE]


async def test_the_python_example_runs_as_it_is_written(home: Path, tmp_path: Path) -> None:
    (program,) = (block for block in blocks("python") if "fallow.client" in block)
    for name, tiny in TINY.items():
        assert f'"{name}"' in program
        program = program.replace(f'"{name}"', f'"{tiny}"')
    (tmp_path / "example.py").write_text(program, "utf-8")
    with trio.fail_after(150):
        async with Testnet.start(tmp_path / "net", nodes=3, bundles=tuple(TINY.values()), home=home) as testnet:
            surroundings = {"FALLOW_HOME": str(home), "FALLOW_BOOTSTRAP": ",".join(testnet.bootstrap)}
            ran = await trio.run_process(
                [sys.executable, "-P", str(tmp_path / "example.py")],
                env={**os.environ, **surroundings},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    assert (ran.returncode, ran.stderr.decode()) == (0, "")
    shown = ran.stdout.decode()
    assert " accepted ['12D3KooW" in shown
    assert shown.endswith("2 64\n")


def test_the_function_of_the_example_becomes_a_bundle_in_ten_lines(tmp_path: Path) -> None:
    (program,) = (block for block in blocks("python") if "fallow.models" in block)
    assert len([line for line in program.splitlines() if line.strip()]) <= 10
    (tmp_path / "example.py").write_text(program, "utf-8")
    ran = subprocess.run(
        [sys.executable, "-P", str(tmp_path / "example.py")],
        env={**os.environ, "FALLOW_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    (bundle,) = BundleStore(tmp_path / "home" / "store").list()
    assert ran.stdout == f"{bundle.cid}\n"
    assert TrustList.load(tmp_path / "home").trusts(bundle.signed, bundle.cid)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for where in re.findall(r"\]\((?!https:)([^)]+)\)", TEXTS[page]):
        path, _, heading = where.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), where
        if heading:
            assert heading in map(_anchor, re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.MULTILINE)), where


def _anchor(heading: str) -> str:
    """What a heading is called in addresses."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_preference_is_explained() -> None:
    rows = re.findall(r"^\| (.+?) \|", TEXTS[ROOT / "docs" / "owner.md"], re.MULTILINE)
    words = {word for row in rows for word in re.findall(r"`(?:\[\[preferences\.)?(\w+)(?:\]\])?`", row)}
    assert words.issuperset(WORDS)

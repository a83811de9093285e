"""Runs under random faults, from the command line to the report, and made again from their folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fallow.testnet.chaos import Options, recorded
from fallow.testnet.natlab import missing
from fallow.testnet.processes import ProcessId
from fallow.testnet.record import read_network
from fallow.testnet.report import LINE

from ..moments import pause

Find = Callable[[Path], list[ProcessId]]
NAMESPACES = [] if missing() else ["--namespaces"]
"""Faults of links, homes and relays among the rest, where there can be any."""
TINY = ("--bundles", "tiny-chat,tiny-embed", "--token-ms", "10", "--clients", "1")


def chaos(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fallow.cli", "testnet", "chaos", *words],
        env={**os.environ, "FALLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=170,
    )


@pytest.fixture(scope="module")
def run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A short run's folder, and what the command said."""
    folder = tmp_path_factory.mktemp("chaos") / "run"
    words = (
        "--minutes",
        "0.2",
        "--rate",
        "45",
        "--seed",
        "5",
        "--nodes",
        "6",
        "--liars",
        "1",
        *TINY,
        *NAMESPACES,
        "--json",
    )
    return folder, chaos(home, "--dir", str(folder), *words)


def bad(whole: dict[str, Any]) -> str:
    """What a report says went wrong, in full: pytest cuts what is no text."""
    return json.dumps({name: whole[name] for name in ("losses", "broken", "crashed", "faults", "took_ms")}, indent=1)


def test_nothing_is_lost_wrong_or_unpaid(
    run: tuple[Path, subprocess.CompletedProcess[str]], home: Path, processes_of: Find
) -> None:
    folder, done = run
    assert done.stdout, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert tuple(said) == LINE
    whole = json.loads((folder / "report.json").read_text())
    assert (said["lost"], said["wrongly_accepted"], said["credits_conserved"]) == (0, 0, True), bad(whole)
    assert said["asked"] == said["completed"] == said["verified"] > 0, said
    assert (whole["sound"], done.returncode) == (True, 0), bad(whole)
    assert sum(whole["faults"].values()) == len(recorded(folder)) > 0
    assert processes_of(folder / "nodes") == []
    again = chaos(home, "--dir", str(folder))
    assert (again.returncode, "has a run already" in again.stderr) == (1, True)


def test_a_run_is_made_again_from_its_folder_and_ctrl_c_leaves_no_process(
    run: tuple[Path, subprocess.CompletedProcess[str]], home: Path, tmp_path: Path, processes_of: Find
) -> None:
    folder = tmp_path / "again"
    words = ["testnet", "chaos", "--replay", str(run[0]), "--dir", str(folder)]
    environment = {**os.environ, "FALLOW_HOME": str(home)}
    with subprocess.Popen(
        [sys.executable, "-m", "fallow.cli", *words], env=environment, stderr=subprocess.PIPE
    ) as again:
        while not (folder / "jobs.jsonl").exists():  # a client has begun
            assert again.poll() is None
            pause()
        namespaces = read_network(folder / "nodes").ground.namespaces
        again.send_signal(signal.SIGINT)
        assert again.wait(60) == 130
    assert Options.load(folder) == Options.load(run[0])
    assert recorded(folder) == recorded(run[0])
    assert processes_of(folder / "nodes") == []
    assert processes_of(folder / "jobs.jsonl") == []
    assert bool(namespaces) == bool(NAMESPACES)
    assert not {path.name for path in Path("/run/netns").glob("*")} & set(namespaces)


def test_a_run_that_cannot_be_is_refused_before_anything_starts(home: Path, tmp_path: Path) -> None:
    for words in (("--minutes", "0"), ("--nodes", "3"), ("--bundles", "tiny-chat"), ("--replay", str(tmp_path))):
        refused = chaos(home, "--dir", str(tmp_path / "run"), *words)
        assert (refused.returncode, "[bad_config]" in refused.stderr) == (1, True), refused.stderr
    assert not (tmp_path / "run" / "nodes").exists()

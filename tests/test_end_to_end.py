"""The main job, end to end: the demonstration's five points, with real processes and without a terminal."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from fallow.node.config import default_home
from fallow.node.engine.bundles import BundleStore
from fallow.node.trust import TrustList
from fallow.protocol.errors import FallowError
from fallow.testnet import demo
from fallow.testnet.demo_points import least_margin
from fallow.testnet.demo_script import REAL, TINY, Script

CHILD = """
import sys, trio
from functools import partial
from pathlib import Path
from fallow.testnet import demo
from fallow.testnet.demo_script import TINY

trio.run(partial(demo.run, as_json=True, script=TINY, home=Path(sys.argv[1])))
"""


def processes_naming(directory: Path) -> list[int]:
    """Nodes carry their configuration's path on their command line, workers their store's."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.fsencode(directory) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile
    return found


def check_outcome(outcome: dict[str, Any], script: Script) -> None:
    """What `fallow demo --json` promises."""
    assert set(outcome) == {
        "answer", "verdict", "liar", "liar_caught", "handover", "bootstrap_loss_ok", "payouts", "receipts_dir", "seconds",
    }  # fmt: skip
    assert outcome["answer"]
    assert outcome["verdict"] == "accepted"
    assert outcome["liar"].startswith("12D3KooW")
    assert outcome["liar_caught"] is True
    assert outcome["handover"]["text_equal"] is True
    assert outcome["handover"]["gap_ms"] > 0
    assert outcome["bootstrap_loss_ok"] is True
    assert len(outcome["payouts"]) >= 3
    assert all(amount > 0 for amount in outcome["payouts"].values())
    receipts = Path(outcome["receipts_dir"])
    assert list(receipts.glob("*-receipt-*.cose"))
    assert list(receipts.glob("*-verdict-*.cose"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine that has built nothing yet."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def real_home() -> Path:
    """This machine, if it has built the real models."""
    home = default_home()
    for name in (REAL.chat, REAL.embed):
        try:
            BundleStore(home / "store").open(TrustList.load(home).resolve(name).cid)
        except FallowError as error:
            pytest.skip(f"{name} is not built on this machine: {error}")
    return home


async def test_the_demonstration_with_tiny_models(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with trio.fail_after(170):
        code = await demo.run(as_json=True, script=TINY, home=home)
    shown = capsys.readouterr()
    assert code == 0, shown.err
    check_outcome(json.loads(shown.out), TINY)
    assert processes_naming(home) == []


@pytest.mark.timeout(420)
async def test_the_demonstration_with_the_real_models(real_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with trio.fail_after(400):
        code = await demo.run(as_json=True, home=real_home)
    shown = capsys.readouterr()
    assert code == 0, shown.err
    check_outcome(json.loads(shown.out), REAL)


def test_ctrl_c_leaves_no_process_behind(home: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        said = ""
        for said in child.stderr:
            if said.startswith("1  "):
                break  # the network is up, and the first answer is on its way
        assert said.startswith("1  ")
        assert processes_naming(home / "demo")
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=60)
    assert child.returncode != 0
    assert output == ""
    assert [pid for pid in processes_naming(home) if pid != child.pid] == []


def test_a_token_s_margin_follows_from_its_likelihood() -> None:
    likely = round(math.log(0.6) * 1e6)
    assert least_margin([likely, 0]) == pytest.approx(math.log(0.6 / 0.4), abs=1e-5)
    assert least_margin([round(math.log(0.4) * 1e6)]) < 0
    assert least_margin([]) == -math.inf

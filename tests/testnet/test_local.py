"""Networks of real processes: started, commanded, ended, and none left, however their starter ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fallow.client import connect
from fallow.protocol.errors import Code, ConfigError, EngineError, StoreError
from fallow.protocol.identity import peer_id
from fallow.testnet import record
from fallow.testnet.local import Testnet
from fallow.testnet.processes import ProcessId

TINY = ("tiny-chat", "tiny-embed")
Find = Callable[[Path], list[ProcessId]]

STARTER = """
import sys, trio
from pathlib import Path
from fallow.testnet.local import Testnet

async def main():
    async with Testnet.start(Path(sys.argv[1]), nodes=2, bundles=("tiny-embed",), home=Path(sys.argv[2])) as testnet:
        await testnet.freeze(testnet.nodes[1])
        print("up", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def fallow(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fallow.cli", *words],
        env={**os.environ, "FALLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=150,
    )


async def state_of(testnet: Testnet, peer: str) -> record.NodeStatus:
    return next(each for each in await record.status(testnet.directory) if each.node.peer_id == peer)


def test_a_detached_network_stays_until_it_is_told(home: Path, tmp_path: Path, processes_of: Find) -> None:
    up = fallow(
        home,
        "testnet",
        "up",
        "--dir",
        str(tmp_path),
        "--nodes",
        "2",
        "--liars",
        "1",
        "--bundles",
        "tiny-embed",
        "--detach",
    )
    assert up.returncode == 0, up.stderr
    written = json.loads((tmp_path / "testnet.json").read_text())
    first, second = written["nodes"]
    assert written["bootstrap"] == first["addresses"]
    assert (first["kind"], first["liar"], second["kind"], second["liar"]) == ("host", False, "site", True)
    assert first["owner"] != second["owner"]
    again = fallow(home, "testnet", "up", "--dir", str(tmp_path), "--nodes", "1")
    assert again.returncode == 1
    assert "[already_running]" in again.stderr
    status = fallow(home, "testnet", "status", "--dir", str(tmp_path), "--json")
    assert [node["state"] for node in json.loads(status.stdout)["nodes"]] == ["ready", "ready"]
    down = fallow(home, "testnet", "down", "--dir", str(tmp_path))
    assert down.returncode == 0, down.stderr
    assert processes_of(tmp_path) == []
    after = fallow(home, "testnet", "status", "--dir", str(tmp_path))
    assert "[not_running]" in after.stderr


async def test_no_process_outlives_a_killed_starter_not_even_a_frozen_one(
    home: Path, tmp_path: Path, processes_of: Find
) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path), str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:  # noqa: ASYNC220  # nothing else runs
        assert starter.stdout is not None
        assert starter.stdout.readline() == "up\n"
        nodes = [node.process for node in record.read(tmp_path)]
        everyone = [*nodes, *(worker for node in nodes for worker in node.descendants())]
        assert len(everyone) in (4, 6)  # each node, its worker, and a sandbox around that where one can be made
        starter.kill()
    with trio.fail_after(30):
        for process in everyone:
            await process.ended()


async def test_nodes_drive_off_return_freeze_and_die(home: Path, tmp_path: Path, processes_of: Find) -> None:
    with trio.fail_after(150):
        async with Testnet.start(tmp_path, nodes=4, liars=1, bundles=TINY, home=home) as testnet:
            host, site, vehicle, liar = testnet.nodes
            await testnet.drive(vehicle)
            driving = await state_of(testnet, vehicle.peer_id)
            assert driving.state == "not-eligible"
            assert driving.reasons
            await testnet.park(vehicle)
            while (await state_of(testnet, vehicle.peer_id)).state != "ready":
                pass  # each turn asks every node

            await the_liar_is_found_out(testnet, liar.peer_id, home)

            await testnet.freeze(site)
            testnet.thaw(site)
            assert (await state_of(testnet, site.peer_id)).state == "ready"
            await testnet.kill(site)
            assert (await state_of(testnet, site.peer_id)).state == "gone"
            assert host.process.running
    assert processes_of(tmp_path) == []
    with pytest.raises(ConfigError, match="No test network"):
        record.read(tmp_path)


async def the_liar_is_found_out(testnet: Testnet, liar: str, home: Path) -> None:
    """As the executor of a text: what it wrote is withdrawn, it is named and not paid, and somebody else answers."""
    async with connect(testnet.bootstrap, home=home) as mesh:
        lied = await mesh.generate("tiny-chat", "Go on.", max_tokens=40, executors=[liar])
        honest = await mesh.generate("tiny-chat", "Go on.", max_tokens=40)
    assert lied.text == honest.text
    assert lied.verdict is not None
    assert lied.verdict.outcome == "accepted"
    (finding,) = [finding for finding in lied.verdict.findings if peer_id(finding.node) == liar]
    assert (finding.role, finding.agrees, finding.due_ucr) == ("executor", False, 0)
    assert sum(receipt.paid_ucr for receipt in lied.receipts if receipt.executor == liar) == 0
    assert liar not in [receipt.executor for receipt in honest.receipts]


async def test_a_network_that_cannot_start_says_why_and_leaves_nothing(
    home: Path, tmp_path: Path, processes_of: Find
) -> None:
    with trio.fail_after(60), pytest.raises(EngineError, match="no-such-bundle") as caught:
        async with Testnet.start(tmp_path, nodes=2, bundles=("no-such-bundle",), home=home):
            raise AssertionError("it started")
    assert caught.value.code == Code.UNKNOWN_NAME
    assert processes_of(tmp_path) == []


def test_a_damaged_record_is_said_and_left(tmp_path: Path) -> None:
    (tmp_path / "testnet.json").write_text("{")
    with pytest.raises(StoreError, match=r"testnet\.json"):
        record.read(tmp_path)
    assert (tmp_path / "testnet.json").read_text() == "{"


def test_signals_of_the_record_reach_no_stranger(tmp_path: Path) -> None:
    """A record from before a reboot: its numbers belong to other processes now."""
    stranger = record.LocalNode("p", "o", "host", os.getpid(), 1, str(tmp_path), (), False)
    record.write(tmp_path, [stranger])
    assert trio.run(record.down, tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # it would have ended this very process

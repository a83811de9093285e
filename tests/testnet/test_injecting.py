"""Faults in a network that runs: made, felt by a client, undone, and written down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from fallow.client import Mesh, connect
from fallow.node.log import wall_ms
from fallow.protocol.errors import Code, ConfigError, FallowError
from fallow.testnet import clock, injecting, logs, record
from fallow.testnet.faults import Fault
from fallow.testnet.local import Testnet
from fallow.testnet.plan import Plan, plan_nodes
from fallow.testnet.record import LocalNode

PLAN = Plan(tuple(plan_nodes(3)), ("tiny-chat",))


async def write(mesh: Mesh, node: LocalNode, *, tokens: int = 8) -> list[str]:
    """Who wrote a text that this node was to write."""
    answer = await mesh.generate("tiny-chat", "Go on.", max_tokens=tokens, assurance="none", executors=[node.peer_id])
    return [receipt.executor for receipt in answer.receipts]


async def written_by(mesh: Mesh, node: LocalNode) -> None:
    """The node writes again: it may take a client a few questions to believe that."""
    while await write(mesh, node) != [node.peer_id]:
        pass


async def state_of(testnet: Testnet, node: LocalNode) -> str:
    return next(each for each in await record.status(testnet.directory) if each.node.name == node.name).state


async def test_each_fault_is_felt_and_mended(home: Path, tmp_path: Path) -> None:
    with trio.fail_after(150):
        async with (
            Testnet.start(tmp_path, plan=PLAN, home=home) as testnet,
            connect(testnet.bootstrap, home=home) as mesh,
        ):
            _, site, vehicle = testnet.nodes
            await written_by(mesh, site)
            await a_killed_node_is_started_again_where_it_was(testnet, mesh, site)
            await a_full_disk_costs_work_and_not_the_node(testnet, mesh, vehicle)
            await a_wrong_clock_is_felt_and_set_right(testnet, mesh, vehicle)
            await who_is_frozen_is_thawed_and_who_drove_parks(testnet, site, vehicle)
            await by_hand(testnet, vehicle)
            with pytest.raises(ConfigError, match="namespaces of their own"):
                await testnet.begin(Fault("slow", (site.name,), 64))
            with pytest.raises(ConfigError, match="goes by 'nobody'"):
                await testnet.begin(Fault("freeze", ("nobody",)))
    noted = [json.loads(line) for line in (tmp_path / injecting.LOG).read_text().splitlines()]
    assert [each["act"] for each in noted].count("begin") == [each["act"] for each in noted].count("end")


async def a_killed_node_is_started_again_where_it_was(testnet: Testnet, mesh: Mesh, node: LocalNode) -> None:
    for fault in (Fault("kill", (node.name,)), Fault("restart", (node.name,))):
        before = testnet.node(node.peer_id)
        await testnet.begin(fault)
        if fault.name == "kill":
            assert await state_of(testnet, node) == "gone"
            assert await write(mesh, node) != [node.peer_id]
        await testnet.end(fault)
        again = testnet.node(node.peer_id)
        assert again.pid != before.pid and not before.process.running
        assert again.addresses == before.addresses
        await written_by(mesh, again)


async def a_full_disk_costs_work_and_not_the_node(testnet: Testnet, mesh: Mesh, node: LocalNode) -> None:
    await written_by(mesh, node)
    full = Fault("full-disk", (node.name,))
    await testnet.begin(full)
    assert await write(mesh, node, tokens=40) != [node.peer_id]  # nobody agrees to what cannot be written down
    assert await state_of(testnet, node) == "ready"
    await testnet.end(full)
    await written_by(mesh, node)


async def a_wrong_clock_is_felt_and_set_right(testnet: Testnet, mesh: Mesh, node: LocalNode) -> None:
    hour = Fault("clock-skew", (node.name,), 3_600_000)
    await testnet.begin(hour)
    assert await write(mesh, node) != [node.peer_id]  # an order from an hour ago has expired
    await injecting.drive(node)
    said = json.loads((node.folder / "node.log").read_text().splitlines()[-1])
    assert said["time_ms"] > wall_ms() + 3_500_000
    await injecting.park(node)
    await testnet.end(hour)
    await written_by(mesh, node)
    drove = [each for each in logs.merged(testnet.directory, [node.name]) if each.event == "yielded"]
    assert all(each.time_ms <= wall_ms() for each in drove)


async def who_is_frozen_is_thawed_and_who_drove_parks(testnet: Testnet, frozen: LocalNode, driven: LocalNode) -> None:
    freeze, drive = Fault("freeze", (frozen.name,)), Fault("drive-away", (driven.name,))
    await testnet.begin(freeze)
    await testnet.begin(drive)
    assert {each.name for each in injecting.active(testnet.directory)} == {"freeze", "drive-away"}
    assert await state_of(testnet, driven) == "not-eligible"
    await testnet.end(freeze)
    await testnet.end(drive)
    assert await state_of(testnet, frozen) == "ready"
    while await state_of(testnet, driven) != "ready":
        pass  # each turn asks every node


async def by_hand(testnet: Testnet, node: LocalNode) -> None:
    """The same from the command line, in a network that somebody else has started."""
    words = ("--dir", str(testnet.directory))
    assert (await fallow("testnet", "fault", node.name, "kill", *words)).returncode == 0
    assert await state_of(testnet, node) == "gone"
    healed = await fallow("testnet", "heal", node.name, *words, "--json")
    assert json.loads(healed.stdout) == {"mended": [{"fault": "kill", "nodes": [node.name], "amount": 0}]}
    assert await state_of(testnet, node) == "ready"
    events = await fallow("testnet", "logs", *words, "--event", "ready", "--kind", "vehicle", "--json")
    assert len(events.stdout.splitlines()) == 2  # it started twice
    refused = await fallow("testnet", "fault", node.name, "doze", *words)
    assert "[bad_config]" in refused.stderr.decode()


async def fallow(*words: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [sys.executable, "-m", "fallow.cli", *words], capture_stdout=True, capture_stderr=True, check=False
    )


def test_a_clock_is_off_by_what_its_file_says(tmp_path: Path) -> None:
    path = clock.prepare(tmp_path)
    code = f"""
import time; from pathlib import Path; from fallow.testnet import clock
true = time.time
clock.install(Path({str(path)!r}))
print(round(time.time() - true()), round(time.time_ns() / 1e9 - true()), flush=True)
input()
print(round(time.time() - true()))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == "0 0\n"
        clock.set_skew(tmp_path, -7_000)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "-7\n"
    assert clock.prepare(tmp_path).read_bytes() == path.read_bytes() != bytes(8)


async def test_a_network_that_nobody_forks_for_says_so(tmp_path: Path) -> None:
    gone = LocalNode("p", "o", "host", os.getpid(), 1, str(tmp_path / "0-host"), (), False, "0-host")
    gone.folder.mkdir()
    (gone.folder / "node.toml").write_text('state = "."\n')
    record.write(tmp_path, [gone])
    with pytest.raises(FallowError, match="No test network runs") as caught:
        await injecting.end(tmp_path, Fault("kill", ("0-host",)))
    assert caught.value.code == Code.NOT_RUNNING

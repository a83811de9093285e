"""The owner comes first: the machine is given back at once, with a receipt for every job, and lent again later."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from fallow.node import control
from fallow.node.earnings import earnings
from fallow.node.journal_file import JOURNAL
from fallow.node.log import wall_ms
from fallow.protocol.errors import ConfigError
from fallow.protocol.identity import peer_id
from fallow.protocol.job import JobState
from fallow.protocol.messages.jobs import ReceiptMessage
from fallow.protocol.receipts import OPEN, YIELDED
from fallow.protocol.witness import heard_untrusted
from fallow.protocol.work import Work

from ..moments import look_again, pause
from .conftest import READY_S, Daemon, Home, Start, client_network, failure, launch
from .raw_client import Ask, Conversation, Payer, profile_of

PROMPT = Work(((1, 40, 41, 42, 43),))


@pytest.mark.spec("G-1", "G-2", "J-34", "J-11")
async def test_driving_off_yields_with_a_receipt_and_parking_serves_again_with_a_new_key(
    start: Start, home: Home
) -> None:
    node = start(kind="vehicle", reach="direct", settle_s=0)
    with trio.fail_after(60):
        async with client_network([node.address]) as network:
            payer = Payer(await profile_of(network, network.peers()[0]))
            talk = await _begun(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk.run)
                status = await trio.to_thread.run_sync(node.command, control.DRIVE)
            assert (status["state"], status["jobs_running"]) == ("not-eligible", 0)
            assert talk.yielded is not None
            last = talk.delivery.receipts[-1].record
            assert (last.end, talk.job.state) == (YIELDED, JobState.SETTLED)
            assert last.amount_ucr == 5 * len(talk.tokens) // 200 + 4 * len(talk.tokens)

            (gone,) = [each for each in node.events("worker_gone") if each["event"] == "worker_gone"]
            assert (gone["code"], gone["why"]) == ("", "The worker was stopped: the owner needs the machine.")
            assert gone["next"] == "Another one is started when the machine is lent."
            assert "worker_ended" not in node.command(control.WHY)

            away = await profile_of(network, payer.profile.node)
            assert (away.worker_key, away.reply.state) == (None, "not-eligible")
            refused = await Conversation.begin(network, Ask(payer, home.chat, PROMPT))
            await refused.run()
            assert refused.refused is not None
            assert refused.refused.code == "owner_needs_machine"

            node.command(control.PARK)
            await _until_ready(node)
            payer.profile = await profile_of(network, payer.profile.node)
            assert payer.profile.worker_key is not None
            again = await _begun(network, Ask(payer, home.chat, PROMPT))
            await again.run()
            assert again.job.state is JobState.SETTLED
    assert sum(row.owed_ucr for row in earnings(node.state)) == payer.state.promised_ucr


@pytest.mark.spec("J-34")
async def test_the_notice_does_not_wait_for_a_receipt_that_is_being_written(start: Start, home: Home) -> None:
    node = start(bundles=["tiny-chat"], settle_s=0)
    with trio.fail_after(60):
        async with client_network([node.address]) as network:
            payer = Payer(await profile_of(network, network.peers()[0]))
            talk = await _begun(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk.beat)
                with closing(sqlite3.connect(node.state / JOURNAL, isolation_level=None)) as disk:
                    disk.execute("BEGIN IMMEDIATE")  # whatever the node writes has to wait for us
                    while not talk.delivery.window_full:
                        if isinstance(await talk.next(), ReceiptMessage):
                            await talk.pay(talk.delivery.receipts[-1])
                    written = len(talk.delivery.receipts)
                    nursery.start_soon(trio.to_thread.run_sync, node.command, control.DRIVE)
                    while talk.yielded is None:
                        await talk.next()
                    assert len(talk.delivery.receipts) == written
                    disk.execute("ROLLBACK")
                while not talk.job.ended:
                    if isinstance(await talk.next(), ReceiptMessage):
                        await talk.pay(talk.delivery.receipts[-1])
            ends = [receipt.record.end for receipt in talk.delivery.receipts[written:]]
            assert (ends, talk.job.state) == ([OPEN, YIELDED], JobState.SETTLED)


async def test_the_way_back_in_waits_until_the_machine_has_settled(start: Start) -> None:
    node = start(kind="vehicle", reach="direct", settle_s=3600)
    assert node.command(control.DRIVE)["reasons"] == ["the owner needs the machine"]
    assert node.command(control.PARK)["reasons"] == ["parked only a short while ago"]
    assert node.command(control.STATUS)["state"] == "not-eligible"


async def test_a_dead_worker_fails_its_jobs_and_is_replaced(start: Start, home: Home) -> None:
    node = start(bundles=["tiny-chat"])
    with trio.fail_after(60):
        async with client_network([node.address]) as network:
            payer = Payer(await profile_of(network, network.peers()[0]))
            talk = await _begun(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
            os.kill(_worker_of(node), signal.SIGKILL)
            await talk.run()
            assert talk.failed is not None
            assert (talk.failed.code, talk.job.state) == ("worker_died", JobState.BROKEN)
            assert "SIGKILL" not in talk.failed.detail  # what befalls this machine is its owner's to know
            await _until_ready(node)
            (gone,) = [each for each in node.events("worker_gone") if each["event"] == "worker_gone"]
            assert (gone["code"], gone["next"]) == ("worker_died", "Another one is started at once.")
            assert "was ended by SIGKILL (signal 9" in gone["why"]
            assert "1 job ended with it" in gone["kept"]
            for question in (control.WHY, control.STATUS):
                told = str(node.command(question)["worker_ended"])
                assert told.endswith(f" ago: {gone['why']} {gone['kept']} {gone['next']}")
            payer.profile = await profile_of(network, payer.profile.node)
            again = await _begun(network, Ask(payer, home.chat, PROMPT))
            await again.run()
            assert again.job.state is JobState.SETTLED


AGAIN = """
import sys
from fallow.node.engine.entries import run_entry
from fallow.node.engine.worker import main

def again(manifest, entry, parameters, work):
    asked = next(run_entry(manifest, entry, parameters, work))
    while True:
        yield asked

main(sys.argv[1:], run=again)
"""


async def test_a_worker_that_computes_the_same_again_and_again_is_ended_and_both_sides_are_told_why(
    start: Start, home: Home, tmp_path: Path
) -> None:
    (tmp_path / "again.py").write_text(AGAIN)
    command = [sys.executable, "-P", str(tmp_path / "again.py")]
    node = start(bundles=["tiny-embed"], worker_command=command, sandbox="off")
    with trio.fail_after(60):
        async with client_network([node.address]) as network:
            payer = Payer(await profile_of(network, network.peers()[0]))
            talk = await Conversation.begin(network, Ask(payer, home.embed, PROMPT, entry="call"))
            await talk.run()
            assert talk.failed is not None
            assert (talk.failed.code, talk.job.state) == ("too_many_steps", JobState.BROKEN)
            assert "more steps" in talk.failed.detail
    gone = next(each for each in node.events("worker_gone") if each["event"] == "worker_gone")
    assert (gone["code"], gone["why"].startswith(talk.failed.detail)) == ("too_many_steps", True)


async def test_sigterm_yields_and_exits_in_order_and_nothing_is_lost_over_a_restart(
    start: Start, home: Home, tmp_path: Path
) -> None:
    node = start(tmp_path)
    with trio.fail_after(60):
        async with client_network([node.address]) as network:
            payer = Payer(await profile_of(network, network.peers()[0]))
            talk = await _begun(network, Ask(payer, home.chat, PROMPT, max_tokens=200))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk.run)
                assert await trio.to_thread.run_sync(node.stop) == 0
            assert talk.job.state is JobState.SETTLED
        before = earnings(node.state)
        with pytest.raises(ConfigError) as not_running:
            node.command(control.STATUS)
        assert not_running.value.code == "not_running"

        node = start(tmp_path)
        assert earnings(node.state) == before
        async with client_network([node.address]) as network:
            payer.profile = await profile_of(network, payer.profile.node)
            again = await _begun(network, Ask(payer, home.chat, PROMPT))
            await again.run()
            replayed = await Conversation.begin(network, talk.ask, order=talk.order)
            await replayed.run()
    # The channel's counters went on where they were: the payer's cumulative voucher covers both runs.
    assert again.job.state is JobState.SETTLED
    assert sum(row.owed_ucr for row in earnings(node.state)) == payer.state.promised_ucr
    # Its worker key is of the worker before: stale, and also replayed; either is a no.
    assert replayed.refused is not None


async def test_nodes_know_each_other_and_measure_their_links(start: Start) -> None:
    first = start(bundles=["tiny-embed"])
    second = start(bundles=["tiny-embed"], bootstrap=[first.address], region="u33", kind="site")
    with trio.fail_after(60):
        async with client_network([second.address]) as network:
            node = await network.connect(second.address)
            profile = await profile_of(network, node)
            # Measured right after the start, but not before it; what the other one found is signed and comes with a probe.
            while not (profile.connectivity.vantage_peers and profile.reply.witnesses):
                await look_again()
                profile = await profile_of(network, node)
    assert profile.connectivity.vantage_peers == 1  # the client is no vantage point
    assert profile.connectivity.rtt_p95_us is not None
    (found,) = heard_untrusted(profile.reply.witnesses, node, profile.mandate.record.owner, wall_ms())
    assert peer_id(found.witness) == first.ready["peer_id"] and found.rtt_p95_us > 0
    assert (profile.capability.region, profile.capability.kind) == ("u33", "site")


def test_a_second_node_on_the_same_state_is_refused(start: Start, home: Home, tmp_path: Path) -> None:
    start(tmp_path, bundles=["tiny-embed"])
    assert "[already_running]" in failure(tmp_path, home)


def test_a_busy_port_is_said(start: Start, home: Home, tmp_path: Path) -> None:
    port = start(bundles=["tiny-embed"]).address.split("/")[4]
    complaint = failure(tmp_path, home, listen=[f"/ip4/127.0.0.1/tcp/{port}"])
    assert "[port_busy]" in complaint
    assert complaint.count("\n") == 1


def test_an_unreachable_bootstrap_peer_is_said(home: Home, tmp_path: Path) -> None:
    address = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWT1GcpAnJ6Br82gjDr6m5pbuR5bf1HKdqxeHMgLJ4pSRV"
    complaint = failure(tmp_path, home, bootstrap=[address])
    assert "[bootstrap_unreachable]" in complaint
    assert address in complaint
    assert complaint.count("\n") == 1


@pytest.mark.spec("B-4")
def test_a_corrupt_bundle_is_said_with_file_and_chunk(home: Home, tmp_path: Path) -> None:
    bundle = home.store.open(home.embed)
    store = tmp_path / "store"
    target = store / "bundles" / home.embed
    (target / "programs").mkdir(parents=True)
    for name in ("manifest", *bundle.manifest.files()):
        (target / name).write_bytes((bundle.path / name).read_bytes())
    with (target / "weights.safetensors").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\xff\x00\xff")
    complaint = failure(tmp_path, home, store=str(store), bundles=["tiny-embed"])
    assert complaint.startswith("error: weights.safetensors of bundle tiny-embed")
    assert "[corrupt_chunk]" in complaint


@pytest.mark.spec("B-5")
def test_an_unknown_name_and_an_untrusted_bundle_are_said(home: Home, tmp_path: Path) -> None:
    assert "[unknown_name]" in failure(tmp_path, home, bundles=["no-such-model"])
    (tmp_path / "stranger").mkdir()
    stranger = replace(home, path=tmp_path / "stranger")
    complaint = failure(tmp_path, stranger, store=str(home.path / "store"), bundles=[home.chat])
    assert "[bundle_untrusted]" in complaint


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_state_that_cannot_be_a_directory_is_said(home: Home, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    complaint = failure(tmp_path, home, state=f"file{below}")
    assert "Setting `state`" in complaint
    assert "[bad_config]" in complaint
    assert complaint.count("\n") == 1


def test_a_damaged_journal_is_said_and_left_alone(home: Home, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    journal = tmp_path / "state" / "journal.sqlite"
    journal.write_bytes(b"not a database at all" * 100)
    complaint = failure(tmp_path, home)
    assert "[corrupt_store]" in complaint
    assert "Traceback" not in complaint
    assert journal.read_bytes() == b"not a database at all" * 100


def test_a_node_that_is_told_to_end_while_it_starts_ends(home: Home, tmp_path: Path) -> None:
    process = launch(tmp_path, home)
    while not (tmp_path / "state" / "worker.log").exists() and process.poll() is None:
        pause()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


async def _begun(network: object, ask: Ask) -> Conversation:
    """A job of which the first piece has come."""
    talk = await Conversation.begin(network, ask)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.beat)  # the first piece may take longer than silence may last
        while not talk.pieces:
            await talk.next()
        async with talk._writing:
            nursery.cancel_scope.cancel()
    return talk


async def _until_ready(node: Daemon) -> None:
    while (await trio.to_thread.run_sync(node.command, control.STATUS))["state"] != "ready":
        await look_again()


def _worker_of(node: Daemon) -> int:
    """The one child of the daemon: its worker."""
    pid = node.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_before_its_first_bundle_is_loaded_a_node_says_so_and_gives_the_machine_back_too(
    home: Home, tmp_path: Path
) -> None:
    scripted = Path(__file__).parent.parent / "engine" / "scripted.py"
    command = [sys.executable, str(scripted), "hang in loading"]
    process = launch(tmp_path, home, worker_command=command, settle_s=0)

    def until(reasons: list[str], word: str = control.STATUS) -> None:
        """The command is carried out, and in the end the node says that of itself."""
        deadline, said = time.monotonic() + READY_S, None
        while said != reasons:
            assert time.monotonic() < deadline, said
            pause()
            with suppress(ConfigError):  # it has not come so far yet
                said, word = control.request(tmp_path / "state", word)["reasons"], control.STATUS

    try:
        until(["loading tiny-chat"])
        until(["the owner needs the machine"], control.DRIVE)
        while offspring(process.pid):
            pause()  # gone before the test's own time limit
        until(["loading tiny-chat"], control.PARK)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[0] == ""  # it never took an order
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def offspring(pid: int) -> list[str]:
    """Process ids of its children."""
    with suppress(OSError):  # a thread has just ended
        return [child for each in Path(f"/proc/{pid}/task").glob("*/children") for child in each.read_text().split()]
    return ["unknown"]

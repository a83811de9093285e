"""What a node gives, how fast, and to whom in turn: in virtual time, where no socket is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from fallow.node.blobs import ANSWER_S, AT_ONCE, BESIDE_JOBS_BYTES_SEC, Blobs
from fallow.node.config import Config
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.upkeep import pin, unpin
from fallow.node.fetching import fetch
from fallow.node.library import Library
from fallow.node.log import EventLog
from fallow.node.network.identity import id_of
from fallow.node.network.mesh import Mesh
from fallow.node.network.seam import Provider
from fallow.node.network.yamux import WINDOW_BYTES
from fallow.node.pace import BURST_S, Gate, Pace, Traffic
from fallow.protocol import framing
from fallow.protocol.errors import Code, NetworkError
from fallow.protocol.limits import CHUNK_BYTES
from fallow.protocol.messages import BLOB_PROTOCOL, BlobReply, BlobRequest, decode_message_untrusted, encode_message

from .conftest import install

Join = Callable[..., Awaitable[Mesh]]
MIB = 1024**2


class Asker:
    """One end of a stream in this process: requests as fast as they are taken, answers with the time when they came."""

    def __init__(self, peer: bytes, wanted: list[bytes]) -> None:
        self.peer = peer
        self.sent_bytes = 0
        self.came: list[tuple[float, BlobReply]] = []
        self._wanted = [encode_message(BlobRequest(each)) for each in wanted]

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._wanted:
            raise NetworkError(Code.STREAM_CLOSED, "that was all")
        return self._wanted.pop(0)

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent_bytes += len(frame)
        reply = decode_message_untrusted(frame)
        assert isinstance(reply, BlobReply)
        self.came.append((trio.current_time(), reply))

    async def close(self) -> None:
        raise AssertionError("the node's side ends streams by returning")

    reset = close


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path)


async def ask_all(blobs: Blobs, *askers: Asker) -> None:
    async with trio.open_nursery() as nursery:
        for asker in askers:
            nursery.start_soon(blobs.answer, asker)


def within(asked: list[Asker], bytes_per_s: float) -> bool:
    """Whether no stretch of time had more than the rate, a burst, and what was under way at its ends."""
    came = sorted((at, len(reply.content or b"")) for asker in asked for at, reply in asker.came)
    return all(
        sum(size for at, size in came[first : last + 1])
        <= bytes_per_s * (came[last][0] - came[first][0] + BURST_S) + (AT_ONCE + 1) * CHUNK_BYTES
        for first in range(len(came))
        for last in range(first, len(came))
    )


async def test_all_askers_together_get_no_more_than_the_rate(
    origin: Bundle, log: EventLog, autojump_clock: MockClock
) -> None:
    chunks = list(origin.manifest.weights.chunks)
    asked = [Asker(bytes([number]) * 32, chunks) for number in range(3)]
    began = trio.current_time()
    await ask_all(Blobs(lambda: [origin], log, bytes_per_s=MIB // 2), *asked)
    assert all(len(asker.came) == len(chunks) for asker in asked)
    assert within(asked, MIB / 2)
    assert trio.current_time() - began > 3 * 11 * 2


async def test_beside_a_job_sharing_is_slower_and_after_it_no_longer(
    origin: Bundle, log: EventLog, autojump_clock: MockClock
) -> None:
    works = True
    chunks = list(origin.manifest.weights.chunks) * 4
    blobs = Blobs(lambda: [origin], log, works=lambda: works)
    asked = [Asker(bytes(32), chunks)]
    began = trio.current_time()
    await ask_all(blobs, *asked)
    assert within(asked, BESIDE_JOBS_BYTES_SEC)
    assert trio.current_time() - began > 4
    works = False
    began = trio.current_time()
    await ask_all(blobs, Asker(bytes(32), chunks))
    assert trio.current_time() == began


@pytest.mark.spec("D-17")
async def test_each_asker_has_its_turn_however_many_streams_another_has(
    origin: Bundle, log: EventLog, autojump_clock: MockClock
) -> None:
    chunks = list(origin.manifest.weights.chunks)[:6]
    greedy = [Asker(b"g" * 32, chunks) for _ in range(20)]
    modest = Asker(b"m" * 32, chunks)
    await ask_all(Blobs(lambda: [origin], log, bytes_per_s=MIB), *greedy, modest)
    done_at = modest.came[-1][0]
    before = sum(at <= done_at for asker in greedy for at, _ in asker.came)
    assert before <= 2 * len(chunks) + 2  # of the greedy one's 120


@pytest.mark.spec("D-14")
async def test_the_days_allowance_ends_what_is_given_and_the_next_day_goes_on(
    origin: Bundle, log: EventLog, tmp_path: Path
) -> None:
    day = 0
    traffic = Traffic(tmp_path / "traffic.json", 2 * MIB, 1, lambda: day * 86_400)
    blobs = Blobs(lambda: [origin], log, traffic=traffic)
    wanted = list(origin.manifest.weights.chunks[:4])
    await ask_all(blobs, first := Asker(bytes(32), wanted))
    assert [reply.content is not None for _, reply in first.came] == [True, True, False, False]
    day = 1
    await ask_all(blobs, second := Asker(bytes(32), wanted[:1]))
    assert second.came[0][1].content is not None


async def test_asking_and_going_away_uses_up_nothing(join: Join, origin: Bundle, log: EventLog, tmp_path: Path) -> None:
    """What a stranger does not let come is not taken from the owner's days: neither before it is sent, nor half-way."""
    chunks = list(origin.manifest.weights.chunks)
    traffic = Traffic(tmp_path / "traffic.json", 100 * MIB, 1, lambda: 0.0)
    node, stranger = await join(1), await join(2)
    slow = Blobs(lambda: [origin], log, traffic=traffic, bytes_per_s=MIB // 8)
    with trio.fail_after(30):
        node.serve(BLOB_PROTOCOL, slow.answer)
        question = encode_message(BlobRequest(chunks[0]))
        await stranger.request(node.key, BLOB_PROTOCOL, question, node.addresses())  # what may be had at once
        full = traffic.left_bytes
        assert full == 99 * MIB
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stranger.request, node.key, BLOB_PROTOCOL, question)
                while traffic.left_bytes == full:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                scope.cancel()
        while traffic.left_bytes != full:
            await trio.testing.wait_all_tasks_blocked(0.01)

        node.serve(BLOB_PROTOCOL, Blobs(lambda: [origin], log, traffic=traffic).answer)
        stream = await stranger._host.new_stream(id_of(node.key), [BLOB_PROTOCOL])  # of which nothing is read
        await stream.write(b"".join(framing.frame(encode_message(BlobRequest(each))) for each in chunks))
        while traffic.left_bytes == full:
            await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.reset()
        while not full - WINDOW_BYTES <= traffic.left_bytes < full:
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_whoever_would_wait_too_long_is_told_at_once_and_nobody_gets_anything_while_the_owner_drives(
    origin: Bundle, log: EventLog, autojump_clock: MockClock
) -> None:
    chunks = list(origin.manifest.weights.chunks[:2])
    parked = True
    blobs = Blobs(lambda: [origin], log, bytes_per_s=MIB // 16, lent=lambda: parked)  # 16 s for each
    asked = [Asker(bytes([number]) * 32, chunks) for number in range(8)]
    began = trio.current_time()
    await ask_all(blobs, *asked)
    assert all(len(asker.came) == 2 for asker in asked)
    for asker in asked:
        (first_at, _), (second_at, _) = asker.came
        assert max(first_at - began, second_at - first_at) <= ANSWER_S
    assert 2 <= sum(reply.content is not None for asker in asked for _, reply in asker.came) < 8
    parked = False
    await trio.sleep(1000)
    await ask_all(blobs, late := Asker(bytes(32), chunks))
    assert [reply.content for _, reply in late.came] == [None, None]


async def test_a_gate_holds_back_what_the_owner_does_not_want_now(autojump_clock: MockClock) -> None:
    gate = Gate(lambda: trio.current_time() >= 100)
    await gate.take(1)
    assert 100 <= trio.current_time() <= 101
    await gate.take(1)
    assert trio.current_time() <= 101


async def test_a_fetch_keeps_to_its_rate(join: Join, origin: Bundle, log: EventLog, tmp_path: Path) -> None:
    """The budget is asked for every byte before it is asked of a peer: the fetch is as fast as it says."""

    class Counting(Pace):
        taken = 0

        async def take(self, length_bytes: int) -> None:
            self.taken += length_bytes
            await super().take(length_bytes)

    source, budget = await join(1), Counting(200 * MIB)
    source.serve(BLOB_PROTOCOL, Blobs(lambda: [origin], log).answer)

    async def find() -> list[Provider]:
        await trio.lowlevel.checkpoint()
        return [Provider(source.key, source.addresses())]

    with trio.fail_after(60):
        done = await fetch(await join(0), BundleStore(tmp_path / "store"), origin.cid, find, budgets=(budget,))
    assert budget.taken >= sum(file.length_bytes for file in done.bundle.manifest.files().values())


def test_every_bundle_that_is_trusted_or_pinned_is_shared_and_no_other(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "store")
    mine, strange = (install(store, tmp_path / name, chunks=1, name=name) for name in ("mine", "strange"))
    publisher = mine.signed.signer.hex()
    (tmp_path / "trust.toml").write_text(f'[[bundle]]\nname = "mine"\ncid = "{mine.cid}"\npublisher = "{publisher}"\n')
    config = Config(tmp_path, ("mine",), tmp_path, store.root, tmp_path / "owner.key")
    library = Library(config, EventLog(tmp_path))
    assert [bundle.cid for bundle in library.shared()] == [mine.cid]
    pin(store, strange.cid)
    assert {bundle.cid for bundle in library.shared()} == {mine.cid, strange.cid}
    unpin(store, strange.cid)
    assert [bundle.cid for bundle in library.shared()] == [mine.cid]
    library.close()

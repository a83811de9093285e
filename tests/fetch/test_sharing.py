"""What a node gives, how fast, and to whom in turn: in virtual time, where no socket is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from fallow.node import blobs as blobs_module
from fallow.node import swarm
from fallow.node.blobs import ANSWER_S, ANSWERS_EACH_MAX, AT_ONCE, BESIDE_JOBS_BYTES_SEC, BUSY_MS, PEERS_MAX, Blobs
from fallow.node.config import Config
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.partial import Partial, claim
from fallow.node.engine.upkeep import pin, unpin
from fallow.node.fetching import fetch
from fallow.node.library import Library
from fallow.node.log import EventLog
from fallow.node.network.identity import id_of
from fallow.node.network.mesh import Mesh
from fallow.node.network.seam import Provider, Stream
from fallow.node.network.yamux import WINDOW_BYTES
from fallow.node.pace import BURST_S, Gate, Pace, Traffic
from fallow.node.swarm import LACKS_MAX, RETRY_S, Swarm
from fallow.protocol import framing
from fallow.protocol.errors import Code, NetworkError
from fallow.protocol.limits import CHUNK_BYTES
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.messages.discovery import BlobReply, BlobRequest
from fallow.protocol.messages.refusals import RefuseMessage
from fallow.protocol.streams import BLOB_PROTOCOL

from .conftest import Sharing, install

Join = Callable[..., Awaitable[Mesh]]
Share = Callable[..., Awaitable[Sharing]]
MIB = 1024**2


class Asker:
    """One end of a stream in this process: requests as fast as they are taken, answers with the time when they came."""

    def __init__(self, peer: bytes, wanted: list[bytes]) -> None:
        self.peer = peer
        self.sent_bytes = 0
        self.came: list[tuple[float, BlobReply]] = []
        self.refused: list[RefuseMessage] = []
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
        if isinstance(reply, RefuseMessage):
            self.refused.append(reply)
            return
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


class Slow(Asker):
    """Takes no answer before it is let."""

    def __init__(self, peer: bytes, wanted: list[bytes]) -> None:
        super().__init__(peer, wanted)
        self.let = trio.Event()
        self.is_given = False

    async def send(self, frame: bytes) -> None:
        self.is_given = True
        await self.let.wait()
        await super().send(frame)


@pytest.mark.spec("D-38")
async def test_so_many_are_given_to_at_once_and_the_next_is_told_that_this_node_is_busy(
    origin: Bundle, log: EventLog
) -> None:
    blobs, chunks = Blobs(lambda: [origin], log), list(origin.manifest.weights.chunks[:1])
    served = [Slow(bytes([number]) * 32, chunks) for number in range(PEERS_MAX)]
    async with trio.open_nursery() as nursery:
        for asker in served:
            nursery.start_soon(blobs.answer, asker)
        while not all(asker.is_given for asker in served):
            await trio.testing.wait_all_tasks_blocked(0.01)
        await blobs.answer(late := Asker(b"l" * 32, chunks))
        assert not late.came
        assert [(refused.code, refused.retry_after_ms) for refused in late.refused] == [(Code.BUSY, BUSY_MS)]
        await blobs.answer(again := Asker(served[0].peer, chunks))  # who is given to has a place for more
        assert len(again.came) == 1
        served[0].let.set()
        while not served[0].came:
            await trio.testing.wait_all_tasks_blocked(0.01)
        await blobs.answer(late := Asker(b"l" * 32, chunks))
        assert len(late.came) == 1
        for asker in served:
            asker.let.set()
    assert not any(asker.refused for asker in served)


async def test_a_peer_that_takes_nothing_is_given_no_more_than_its_share(origin: Bundle, log: EventLog) -> None:
    """However many streams it has: each answer that waits to be taken is in memory."""
    blobs, chunks = Blobs(lambda: [origin], log), list(origin.manifest.weights.chunks[:1])
    streams = [Slow(b"g" * 32, chunks) for _ in range(3 * ANSWERS_EACH_MAX)]
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(blobs.answer, stream)
        while sum(stream.is_given for stream in streams) < ANSWERS_EACH_MAX:
            await trio.testing.wait_all_tasks_blocked(0.01)
        await blobs.answer(other := Asker(b"o" * 32, chunks))
        assert len(other.came) == 1
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert sum(stream.is_given for stream in streams) == ANSWERS_EACH_MAX
        for stream in streams:
            stream.let.set()
    assert all(len(stream.came) == 1 for stream in streams)


@pytest.mark.spec("D-39")
async def test_a_busy_source_is_passed_over_and_asked_again_later(
    join: Join, share: Share, origin: Bundle, log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, bound, value in (
        (blobs_module, "PEERS_MAX", 1),
        (blobs_module, "BUSY_MS", 50),
        (swarm, "ALONE_S", 0.05),
    ):
        monkeypatch.setattr(module, bound, value)
    busy, blobs, streams = await join(1), Blobs(lambda: [origin], log), 0
    chunks = list(origin.manifest.weights.chunks[:1])

    async def counted(stream: Stream) -> None:
        nonlocal streams
        streams += 1
        await blobs.answer(stream)

    async def find() -> list[Provider]:
        await trio.lowlevel.checkpoint()
        return sources

    busy.serve(BLOB_PROTOCOL, counted)
    good, network, first = await share(2), await join(0), Slow(bytes(32), chunks)
    sources = [Provider(busy.key, busy.addresses()), good.provider]
    with trio.fail_after(RETRY_S - 5):  # before it would be asked again if it had failed
        async with trio.open_nursery() as nursery:
            nursery.start_soon(blobs.answer, first)
            done = await fetch(network, BundleStore(tmp_path / "one"), origin.cid, find)
            assert set(done.sources) == {good.network.key}
            assert not done.wrong

            del sources[1]
            before = streams

            async def alone() -> None:
                nonlocal done
                done = await fetch(network, BundleStore(tmp_path / "other"), origin.cid, find)

            nursery.start_soon(alone)
            while streams < before + 3:
                await trio.testing.wait_all_tasks_blocked(0.01)
            first.let.set()
    assert set(done.sources) == {busy.key}
    assert not done.wrong


async def test_what_a_source_names_is_asked_of_it_next(
    join: Join, share: Share, origin: Bundle, log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bundle of which two have a chunk each, and different ones, each is asked for its own after a few questions."""
    monkeypatch.setattr(swarm, "LACKS_MAX", 2 * swarm.PIPELINE)
    chunks, parts = origin.manifest.weights.chunks, list[Partial]()
    with ExitStack() as stack:
        for number, has in enumerate((chunks[2], chunks[9])):
            store = BundleStore(tmp_path / str(number))
            partial = claim(store, origin.cid)
            assert partial is not None
            parts.append(stack.enter_context(partial))
            partial.begin(origin.signed.envelope)
            assert partial.write(has, origin.chunk(has) or b"")
        sources = [await join(1), await join(2)]
        for source, part in zip(sources, parts, strict=True):
            source.serve(BLOB_PROTOCOL, Blobs(partial_of(part), log).answer)

        async def find() -> list[Provider]:
            await trio.lowlevel.checkpoint()
            return [Provider(source.key, source.addresses()) for source in sources]

        partial = claim(BundleStore(tmp_path / "store"), origin.cid)
        assert partial is not None
        gets, came = stack.enter_context(partial), 0
        gets.begin(origin.signed.envelope)
        last = {each: gets.missing[each] for each in (chunks[2], chunks[9])}
        network, wanted = await join(0), {each: length for each, length in gets.missing.items() if each not in last}
        with trio.fail_after(25), trio.CancelScope() as both_came:  # before a source that was left is asked again

            def kept(length: int) -> None:
                nonlocal came
                came += length > 0
                if came == len(last):
                    both_came.cancel()

            await Swarm(network, find).gather(wanted | last, gets.write, kept)
        assert not last.keys() & gets.missing.keys()


def partial_of(part: Partial) -> Callable[[], list[Partial]]:
    return lambda: [part]


@pytest.mark.spec("D-41")
async def test_who_lacks_a_chunk_names_others_and_who_has_all_or_nothing_names_none(
    origin: Bundle, log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks, partial = origin.manifest.weights.chunks, claim(BundleStore(tmp_path / "store"), origin.cid)
    assert partial is not None

    async def named(wanted: bytes) -> tuple[bytes, ...] | None:
        await Blobs(lambda: [partial], log).answer(asker := Asker(bytes(32), [wanted]))
        ((_, reply),) = asker.came
        assert reply.content is None
        return reply.opt_has

    with partial:
        assert await named(chunks[0]) is None
        partial.begin(origin.signed.envelope)
        assert await named(chunks[0]) is None
        for there in chunks[:5]:
            assert partial.write(there, origin.chunk(there) or b"")
        assert set(await named(chunks[9]) or ()) == set(chunks[:5])
        assert await named(bytes(32)) is None, "it is none of this bundle"
        monkeypatch.setattr(blobs_module, "NAMED_MAX", 2)
        seen = [await named(chunks[9]) or () for _ in range(40)]
        assert {len(set(each)) for each in seen} == {2}
        assert {chunk for each in seen for chunk in each} == set(chunks[:5])
    await Blobs(lambda: [origin], log).answer(asker := Asker(bytes(32), [bytes(32)]))
    assert asker.came[0][1] == BlobReply(None)


@pytest.mark.spec("D-42")
async def test_what_is_named_and_not_there_or_not_wanted_keeps_nobody(
    join: Join, share: Share, origin: Bundle, tmp_path: Path
) -> None:
    chunks, asked = origin.manifest.weights.chunks, list[bytes]()

    async def boast(stream: Stream) -> None:
        while True:
            request = decode_message_untrusted(await stream.receive())
            assert isinstance(request, BlobRequest)
            asked.append(request.hash)
            await stream.send(encode_message(BlobReply(None, (bytes(32), request.hash, *chunks[:8]))))

    liar, good = await join(1), await share(2)
    liar.serve(BLOB_PROTOCOL, boast)

    async def find() -> list[Provider]:
        await trio.lowlevel.checkpoint()
        return [Provider(liar.key, liar.addresses()), good.provider]

    with trio.fail_after(60):
        done = await fetch(await join(0), BundleStore(tmp_path / "store"), origin.cid, find)
    assert set(done.sources) == {good.network.key}
    assert bytes(32) not in asked
    assert len(asked) <= 2 * (LACKS_MAX + swarm.PIPELINE)  # the manifest's stream, and the chunks'


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

"""What one connection carries: in which order, how much at once, and until when."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.stream.exceptions import StreamError
from libp2p.stream_muxer.exceptions import MuxedStreamReset

from fallow.node.network.flight import FLIGHT_BYTES_FINE, FLIGHT_BYTES_MAX, FLIGHT_BYTES_MIN, Flight
from fallow.node.network.identity import id_of
from fallow.node.network.limits import STREAMS_IN_MAX
from fallow.node.network.muxed import MuxedStream
from fallow.node.network.muxer import Muxer
from fallow.node.network.pacing import FINE_BYTES, FINE_S, HUSH_S, SMALL_BYTES_MAX
from fallow.node.network.silence import ASK_S
from fallow.node.network.yamux import BODY_BYTES_MAX, HEAD_BYTES, WINDOW_BYTES, Flag, Frame, Frames, Kind, encode
from fallow.protocol.errors import Code, NetworkError, RemoteProtocolError


class Wire:
    """The connection below a muxer, with the test at the other end."""

    is_initiator = True

    def __init__(self) -> None:
        self._in, self._read = trio.open_memory_channel[bytes](100)
        self.gate = trio.Event()
        self.gate.set()
        self.frames = Frames(lambda stream: 2**32)
        self.written: list[Frame] = []
        self.news = trio.Event()

    async def write(self, content: bytes) -> None:
        await self.gate.wait()
        self.written += self.frames.feed_untrusted(content)
        self.news.set()

    async def read(self, count: int | None = None) -> bytes:
        return await self._read.receive()

    async def close(self) -> None:
        await self._in.aclose()

    def say(self, *frames: bytes) -> None:
        self._in.send_nowait(b"".join(frames))

    async def until(self, kind: Kind, flag: int = 0, stream: int | None = None) -> Frame:
        """The first frame of its kind that was written."""
        while True:
            for frame in self.written:
                if frame.kind == kind and frame.flags & flag == flag and stream in (None, frame.stream):
                    return frame
            self.news = trio.Event()
            await self.news.wait()


@pytest.fixture
async def wired(nursery: trio.Nursery) -> tuple[Muxer, Wire]:
    wire = Wire()
    muxer = Muxer(wire, id_of(create_new_key_pair(bytes(32)).public_key.to_bytes()))  # type: ignore[arg-type]
    nursery.start_soon(muxer.start)
    await muxer.event_started.wait()
    return muxer, wire


async def _pour(stream) -> None:
    while True:
        await stream.write(bytes(1024 * 1024))


FRAMES = st.builds(
    lambda kind, flags, stream, body: Frame(kind, flags, stream, len(body), body if kind == Kind.DATA else b""),
    st.sampled_from(Kind),
    st.integers(0, 15),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=300),
)


@given(st.lists(FRAMES, max_size=8), st.integers(1, 700))
def test_frames_are_read_however_they_were_cut_up(frames, size) -> None:
    wire = b"".join(encode(Kind(each.kind), each.flags, each.stream, each.length, each.body) for each in frames)
    reader = Frames(lambda stream: 300)
    read = [frame for at in range(0, len(wire), size) for frame in reader.feed_untrusted(wire[at : at + size])]
    assert read == frames


@given(st.binary(max_size=2000))
def test_any_bytes_are_frames_or_refused(garbage) -> None:
    with suppress(RemoteProtocolError):
        list(Frames(lambda stream: 100).feed_untrusted(garbage))


@pytest.mark.spec("W-1")
def test_more_than_the_credit_is_refused_at_its_head() -> None:
    reader = Frames(lambda stream: 1000)
    assert len(list(reader.feed_untrusted(encode(Kind.DATA, 0, 2, 1000, bytes(1000))))) == 1
    with pytest.raises(RemoteProtocolError) as caught:
        list(reader.feed_untrusted(encode(Kind.DATA, 0, 2, 1001)))
    assert caught.value.code is Code.TOO_LARGE


def test_what_is_on_its_way_follows_what_the_path_holds() -> None:
    flight, now, mark = Flight(), 0.0, 0
    assert flight.bytes_max == FLIGHT_BYTES_MIN
    for _ in range(30):  # 20 MB/s at 100 ms: 2 MB are on the path
        burst = flight.bytes_max
        flight.marked(mark := mark + 1, burst, now)
        assert not flight.has_room()
        now += max(0.1, burst / 20e6)
        flight.returned(mark, now)
    assert 3_000_000 < flight.bytes_max < 6_000_000
    for _ in range(30):  # the path is gone over to 1 ms
        flight.marked(mark := mark + 1, 20_000, now)
        now += 0.001
        flight.returned(mark, now)
    assert flight.bytes_max == FLIGHT_BYTES_MIN


def test_late_marks_do_not_make_the_path_look_slower_for_good_while_something_small_goes() -> None:
    flight, random = Flight(), Random(1)
    on_the_way: deque[tuple[float, int]] = deque()
    now = link_free_at = arrived_at = 0.0
    sent = moved = 0
    while now < 60:  # 20 MB/s at 50 ms and up to a fifth more: 1 MB is on the path
        while flight.has_room(fine=now > 5):
            flight.marked(sent := sent + 1, FINE_BYTES, now)
            link_free_at = max(link_free_at, now) + FINE_BYTES / 20e6
            arrived_at = max(arrived_at, link_free_at + 0.05 * random.uniform(1, 1.2))
            on_the_way.append((arrived_at, sent))
        now, mark = on_the_way.popleft()
        flight.returned(mark, now)
        moved += FINE_BYTES * (now > 30)
    assert moved / 30 > 10e6


def test_marks_that_were_never_sent_change_nothing() -> None:
    flight = Flight()
    flight.marked(1, FLIGHT_BYTES_MIN, 0.0)
    for mark in (0, 2, 2**32 - 1):
        flight.returned(mark, 1.0)
    assert not flight.has_room()
    flight.returned(1, 1e-9)  # a peer that answers before it can have read is believed no more than the bound
    assert flight.bytes_max <= FLIGHT_BYTES_MAX


@pytest.mark.spec("W-2")
async def test_what_is_small_goes_before_what_is_large(wired, nursery) -> None:
    muxer, wire = wired
    with trio.fail_after(10):
        large, small = await muxer.open_stream(), await muxer.open_stream()
        await wire.until(Kind.WINDOW, Flag.SYN, small.stream_id)
        wire.gate = trio.Event()
        nursery.start_soon(large.write, bytes(3 * BODY_BYTES_MAX))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(small.write, b"a question")
        await trio.testing.wait_all_tasks_blocked()
        wire.gate.set()
        await wire.until(Kind.DATA, 0, small.stream_id)
        before = sum(frame.length for frame in wire.written if frame.stream == large.stream_id)
        assert before <= BODY_BYTES_MAX  # what was being written already


@pytest.mark.parametrize(("since_s", "piece", "on_its_way"), [
    (FINE_S / 2, FINE_BYTES, FLIGHT_BYTES_FINE),
    (FINE_S, BODY_BYTES_MAX, FLIGHT_BYTES_MIN),
])  # fmt: skip
async def test_beside_what_is_small_the_large_goes_in_small_pieces(
    mock_clock: trio.testing.MockClock, wired, nursery, since_s: float, piece: int, on_its_way: int
) -> None:
    muxer, wire = wired
    large, small = await muxer.open_stream(), await muxer.open_stream()
    await small.write(b"a question")
    mock_clock.jump(since_s)
    nursery.start_soon(_pour, large)
    await trio.testing.wait_all_tasks_blocked()
    lengths = [frame.length for frame in wire.written if frame.stream == large.stream_id and frame.kind == Kind.DATA]
    assert set(lengths) == {piece}
    assert on_its_way - piece <= sum(lengths) < on_its_way + piece


class Path:
    """A large transfer; the other side takes what has come when it is told to, and has credit for all there will be."""

    def __init__(self, wire: Wire, stream_id: int) -> None:
        self._wire, self._stream_id, self._taken = wire, stream_id, set[int]()
        wire.say(encode(Kind.WINDOW, 0, stream_id, 2**31))

    async def take(self) -> int:
        """So many frames came because of it."""
        before = self.frames
        for frame in self._wire.written:
            if frame.kind == Kind.PING and frame.flags & Flag.SYN and frame.length not in self._taken:
                self._taken.add(frame.length)
                self._wire.say(encode(Kind.PING, Flag.ACK, 0, frame.length))
        await trio.testing.wait_all_tasks_blocked()
        return self.frames - before

    @property
    def frames(self) -> int:
        return sum(frame[:3] == (Kind.DATA, 0, self._stream_id) for frame in self._wire.written)


@pytest.fixture
async def poured(mock_clock: trio.testing.MockClock, wired, nursery) -> tuple[Path, MuxedStream]:
    """A transfer at full speed, and a stream beside it for what is small."""
    muxer, wire = wired
    large, small = await muxer.open_stream(), await muxer.open_stream()
    nursery.start_soon(_pour, large)
    path = Path(wire, large.stream_id)
    mock_clock.jump(1)
    await trio.testing.wait_all_tasks_blocked()
    assert await path.take()
    return path, small


async def test_one_large_frame_goes_behind_what_is_small_and_no_more_for_a_moment(
    mock_clock: trio.testing.MockClock, poured
) -> None:
    path, small = poured
    for _ in range(3):
        before = path.frames
        await small.write(b"a question")
        for _ in range(3):
            await path.take()
        assert path.frames == before + 1
    mock_clock.jump(HUSH_S)
    assert await path.take() > 1


async def test_our_own_answer_goes_before_what_is_large(mock_clock: trio.testing.MockClock, wired, poured) -> None:
    path, small = poured
    wired[1].say(encode(Kind.DATA, 0, small.stream_id, 10, b"a question"))
    await trio.testing.wait_all_tasks_blocked()
    assert await path.take() == 0
    await small.write(b"an answer")
    await trio.testing.wait_all_tasks_blocked()
    assert wired[1].written[-3].body == b"an answer"  # and behind it one frame, with its mark
    assert await path.take() == 0


async def test_however_much_comes_that_is_small_something_large_goes_between(
    mock_clock: trio.testing.MockClock, wired, poured
) -> None:
    path, small = poured
    frames = 0
    for _ in range(20):
        wired[1].say(encode(Kind.DATA, 0, small.stream_id, 11, b"a heartbeat"))
        mock_clock.jump(HUSH_S / 2)
        frames += await path.take()
    assert frames >= 9


async def test_the_rest_of_something_large_that_came_is_no_question(
    mock_clock: trio.testing.MockClock, wired, poured
) -> None:
    path, small = poured
    for length in (SMALL_BYTES_MAX + 1, 1):
        wired[1].say(encode(Kind.DATA, 0, small.stream_id, length, bytes(length)))
        assert await path.take() > 0


async def test_the_rest_of_something_large_is_nothing_small(mock_clock: trio.testing.MockClock, wired) -> None:
    muxer, wire = wired
    stream = await muxer.open_stream()
    await stream.write(bytes(BODY_BYTES_MAX + 1))
    await stream.write(bytes(BODY_BYTES_MAX))
    assert [frame.length for frame in wire.written if frame.kind == Kind.DATA] == [BODY_BYTES_MAX, 1, BODY_BYTES_MAX]


async def test_what_is_large_waits_for_the_other_side_to_take_it(wired, nursery) -> None:
    muxer, wire = wired
    with trio.fail_after(10):
        stream = await muxer.open_stream()
        nursery.start_soon(stream.write, bytes(WINDOW_BYTES))
        mark = await wire.until(Kind.PING, Flag.SYN)
        await trio.testing.wait_all_tasks_blocked()
        on_its_way = sum(frame.length for frame in wire.written if frame.kind == Kind.DATA)
        assert FLIGHT_BYTES_MIN - BODY_BYTES_MAX <= on_its_way < FLIGHT_BYTES_MIN + BODY_BYTES_MAX
        answered: set[int] = set()
        while sum(frame.length for frame in wire.written if frame.kind == Kind.DATA) < WINDOW_BYTES:
            for mark in [each for each in wire.written if each.kind == Kind.PING and each.length not in answered]:
                answered.add(mark.length)
                wire.say(encode(Kind.PING, Flag.ACK, 0, mark.length))
            await trio.testing.wait_all_tasks_blocked()


async def test_frames_of_one_stream_stay_in_order(wired, nursery) -> None:
    muxer, wire = wired
    with trio.fail_after(10):
        stream = await muxer.open_stream()
        wire.gate = trio.Event()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as writing:
                writing.start_soon(stream.write, b"1" * BODY_BYTES_MAX)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()  # what was handed over is written all the same
        nursery.start_soon(stream.write, b"2")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(stream.close)
        await trio.testing.wait_all_tasks_blocked()
        wire.gate.set()
        await wire.until(Kind.DATA, Flag.FIN, stream.stream_id)
        bodies = b"".join(frame.body for frame in wire.written)
        assert bodies == b"1" * BODY_BYTES_MAX + b"2"


async def test_streams_beyond_the_bound_are_reset_for_a_frame_each(wired) -> None:
    muxer, wire = wired
    faults: list[object] = []
    muxer.blame = faults.append
    with trio.fail_after(10):
        numbers = range(2, 2 * STREAMS_IN_MAX + 22, 2)
        wire.say(*(encode(Kind.WINDOW, Flag.SYN, number, 0) for number in numbers))
        await wire.until(Kind.WINDOW, Flag.RST, numbers[-1])
        assert len(muxer.streams) == STREAMS_IN_MAX
        assert len(faults) == len(numbers) - STREAMS_IN_MAX


async def test_streams_that_ended_before_anybody_accepted_them_count_until_somebody_does(wired) -> None:
    muxer, wire = wired
    faults: list[object] = []
    muxer.blame = faults.append
    with trio.fail_after(10):
        numbers = range(2, 2 * STREAMS_IN_MAX + 4, 2)
        wire.say(*(encode(Kind.WINDOW, flag, number, 0) for number in numbers for flag in (Flag.SYN, Flag.RST)))
        await wire.until(Kind.WINDOW, Flag.RST, numbers[-1])
        assert len(faults) == 1
        await muxer.accept_stream()
        wire.say(encode(Kind.WINDOW, Flag.SYN, numbers[-1], 0))
        await wire.until(Kind.WINDOW, Flag.ACK, numbers[-1])
        assert muxer.is_established


async def test_a_stream_that_has_ended_takes_none_with_it_that_has_its_number_now(wired) -> None:
    muxer, wire = wired
    with trio.fail_after(10):
        wire.say(*(encode(Kind.WINDOW, flag, 2, 0) for flag in (Flag.SYN, Flag.RST, Flag.SYN)))
        first, second = await muxer.accept_stream(), await muxer.accept_stream()
        await first.reset()
        assert len(muxer.streams) == 1
        await muxer.close()
        with pytest.raises(MuxedStreamReset):
            await second.read()


@pytest.mark.parametrize(
    "frames",
    [
        [encode(Kind.WINDOW, Flag.SYN, 3, 0)],  # odd numbers are ours
        [encode(Kind.WINDOW, Flag.SYN, 0, 0)],
        [encode(Kind.WINDOW, Flag.SYN, 2, 0), encode(Kind.WINDOW, Flag.SYN, 2, 0)],
        [b"\x01" + bytes(HEAD_BYTES - 1)],
        [b"GET / HTTP/1.1\r\n\r\n"],
        [encode(Kind.WINDOW, Flag.SYN, 2, 0), encode(Kind.DATA, 0, 2, WINDOW_BYTES + 1)],
        [encode(Kind.DATA, 0, 8, 2**32 - 1)],
    ],
)
async def test_a_peer_that_breaks_the_muxers_rules_is_cut_off(wired, frames) -> None:
    muxer, wire = wired
    with trio.fail_after(10):
        wire.say(*frames)
        await muxer.event_closed.wait()
        assert muxer.buffered_bytes == 0


async def test_credit_without_end_is_no_harm(wired) -> None:
    muxer, wire = wired
    with trio.fail_after(10):
        stream = await muxer.open_stream()
        wire.say(*(encode(Kind.WINDOW, 0, stream.stream_id, 2**32 - 1) for _ in range(4)))
        await stream.write(b"fine")
        assert (await wire.until(Kind.DATA)).body == b"fine"


async def test_a_peer_that_overruns_its_window_is_cut_off_and_others_are_not(start_node) -> None:
    honest, hostile, other = await start_node(1), await start_node(2), await start_node(3)

    async def unread(stream) -> None:
        await trio.sleep_forever()

    honest._host.set_stream_handler("/test/unread", unread)
    with trio.fail_after(20):
        await hostile.connect(honest.addresses()[0])
        await other.connect(honest.addresses()[0])
        stream = await hostile._host.new_stream(id_of(honest.key), ["/test/unread"])
        stream.muxed_stream._send_window = 2**30
        with pytest.raises(StreamError):
            await _pour(stream)
        assert hostile.key not in honest.peers()
        assert other.key in honest.peers()


async def test_a_stream_that_begins_on_a_quiet_connection_is_not_taken_for_dead(autojump_clock, wired, nursery) -> None:
    """The silence before is nobody's fault: nobody had asked."""
    muxer, wire = wired
    await trio.sleep(3.0)
    assert not wire.written
    stream = await muxer.open_stream()
    await trio.sleep(1.25)
    wire.say(encode(Kind.WINDOW, Flag.ACK, stream.stream_id, 0))
    await trio.sleep(0.7)
    assert len(muxer.streams) == 1
    with trio.fail_after(1.3), pytest.raises(MuxedStreamReset):  # two seconds after that word
        await stream.read()
    assert muxer.is_established
    with trio.fail_after(8.25):
        await muxer.event_closed.wait()


async def test_an_idle_connection_is_asked_for_now_and_then_and_no_more(autojump_clock, wired) -> None:
    muxer, wire = wired
    for _ in range(10):
        began, wire.written = trio.current_time(), []
        mark = await wire.until(Kind.PING, Flag.SYN)
        assert trio.current_time() - began == pytest.approx(ASK_S, abs=0.01)
        await trio.sleep(1.0)
        assert wire.written == [mark]
        wire.say(encode(Kind.PING, Flag.ACK, 0, mark.length))
        await trio.testing.wait_all_tasks_blocked()
    assert muxer.is_established


@pytest.mark.spec("W-3")
async def test_a_frozen_peer_loses_watched_streams_then_its_connection_and_delays_nobody(
    start_peer, start_node
) -> None:
    frozen, live, node = await start_peer(1), await start_peer(2), await start_node(3)
    with trio.fail_after(40):
        watched = await node.open(frozen.key, "/test/echo", frozen.addresses, watched=True)
        patient = await node.open(frozen.key, "/test/echo")
        bystander = await node.open(live.key, "/test/echo", live.addresses, watched=True)
        frozen.freeze()
        with pytest.raises(NetworkError) as caught:
            await watched.receive()
        assert caught.value.code is Code.STREAM_CLOSED
        assert frozen.key in node.peers()
        await bystander.send(b"on time")
        assert await bystander.receive() == b"on time"
        with pytest.raises(NetworkError):
            await patient.receive()
        assert node.peers() == [live.key]
        await bystander.send(b"still")
        assert await bystander.receive() == b"still"

"""Questions and answers on a peer's one control stream, and what hostile peers can do with it."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from libp2p.abc import INetStream
from libp2p.network.stream.exceptions import StreamError

from fallow.node.network.answering import ANSWERS_BYTES_MAX, STREAMS_MAX
from fallow.node.network.control import (
    ANSWER_BYTES_MAX,
    OPEN_MAX,
    PART_BYTES,
    QUESTION_BYTES_MAX,
    Ask,
    Cancel,
    Part,
    Reason,
    Refused,
    Word,
    decode_untrusted,
    encode,
    parts,
)
from fallow.node.network.identity import id_of
from fallow.node.network.mesh import Mesh
from fallow.protocol import framing
from fallow.protocol.errors import Code, NetworkError, RemoteProtocolError
from fallow.protocol.streams import CONTROL_PROTOCOL

NUMBERS = st.integers(0, 2**32 - 1)
WORDS = st.one_of(
    st.builds(Ask, NUMBERS, st.text(st.characters(max_codepoint=127), min_size=1, max_size=255), st.binary()),
    st.builds(Cancel, NUMBERS),
    st.builds(Part, NUMBERS, st.binary(), st.just(True)),
    st.builds(Refused, NUMBERS, st.sampled_from(Reason)),
)


@given(WORDS)
def test_what_is_said_is_read_as_it_was_meant(word) -> None:
    assert decode_untrusted(encode(word)) == word


@given(st.binary(max_size=600))
def test_any_bytes_are_a_word_or_refused(garbage) -> None:
    with suppress(RemoteProtocolError):
        assert encode(decode_untrusted(garbage)) == garbage


@pytest.mark.spec("W-7")
@pytest.mark.parametrize("length", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_an_answer_is_cut_in_whole_parts(length) -> None:
    words = [decode_untrusted(frame) for frame in parts(7, bytes(range(256)) * (length // 256) + bytes(length % 256))]
    assert [len(word.content) == PART_BYTES for word in words[:-1]] == [True] * (len(words) - 1)
    assert [word.last for word in words] == [False] * (len(words) - 1) + [True]
    assert sum(len(word.content) for word in words) == length


async def echo(stream) -> None:
    await stream.send(await stream.receive())


async def long(stream) -> None:
    await stream.receive()
    await stream.send(bytes(ANSWER_BYTES_MAX))


class Waiting:
    """A service that answers nobody, and counts who has asked and who was let go."""

    def __init__(self) -> None:
        self.asked = self.let_go = 0
        self.news = trio.Event()

    async def __call__(self, stream) -> None:
        self.asked += 1
        self._tell()
        try:
            await trio.sleep_forever()
        finally:
            self.let_go += 1
            self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = trio.Event()

    async def until(self, asked: int, let_go: int) -> None:
        while (self.asked, self.let_go) != (asked, let_go):
            await self.news.wait()


class Raw:
    """One end of a control stream on which the test says what it likes."""

    def __init__(self, stream: INetStream) -> None:
        self.stream = stream
        self._frames = framing.Frames()
        self._heard: list[Word] = []

    async def say(self, *words: Word | bytes) -> None:
        frames = (word if isinstance(word, bytes) else encode(word) for word in words)
        await self.stream.write(b"".join(map(framing.frame, frames)))

    async def hear(self) -> Word:
        while not self._heard:
            received = await self.stream.read(65_536)
            self._heard += map(decode_untrusted, self._frames.feed_untrusted(received))
        return self._heard.pop(0)

    async def ended(self) -> None:
        with suppress(StreamError):
            while True:
                await self.hear()


async def raw(node: Mesh, peer: Mesh) -> Raw:
    await node.connect(peer.addresses()[0])
    return Raw(await node._host.new_stream(id_of(peer.key), [CONTROL_PROTOCOL]))


def hostile_answers(node: Mesh, answer) -> None:
    """The node answers control streams as the test says."""

    async def serve(stream) -> None:
        with suppress(StreamError):
            await answer(Raw(stream))
            await trio.sleep_forever()

    node._host.set_stream_handler(CONTROL_PROTOCOL, serve)


def muxer_of(node: Mesh, peer: Mesh):
    [muxer] = node._dialler.standing(id_of(peer.key))
    return muxer


async def test_many_questions_share_one_stream_which_is_no_use_of_the_connection_afterwards(start_node) -> None:
    asker, answerer = await start_node(1), await start_node(2)
    answerer.serve("/test/echo", echo)
    answers: dict[int, bytes] = {}

    async def ask(index: int) -> None:
        answers[index] = await asker.request(answerer.key, "/test/echo", b"%d" % index * index, answerer.addresses())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for index in range(3 * OPEN_MAX):
                nursery.start_soon(ask, index)
        assert answers == {index: b"%d" % index * index for index in range(3 * OPEN_MAX)}
        [standing] = [each for each in muxer_of(asker, answerer).streams.by_id.values() if each.resting]
        assert standing not in muxer_of(asker, answerer).keepalive.watched
        await trio.testing.wait_all_tasks_blocked(0.01)
        for node, other in ((asker, answerer), (answerer, asker)):
            assert not muxer_of(node, other).streams.busy
            assert muxer_of(node, other).held_bytes == 0


async def test_questions_and_answers_of_every_length_come_whole(start_node) -> None:
    asker, answerer = await start_node(1), await start_node(2)
    answerer.serve("/test/echo", echo)
    answerer.serve("/test/long", long)
    with trio.fail_after(30):
        for length in (0, 1, PART_BYTES - 1, PART_BYTES, QUESTION_BYTES_MAX + 1, 1_000_000):
            question = bytes(range(250)) * (length // 250) + bytes(length % 250)
            assert await asker.request(answerer.key, "/test/echo", question, answerer.addresses()) == question
        assert len(await asker.request(answerer.key, "/test/long", b"")) == ANSWER_BYTES_MAX


@pytest.mark.spec("W-8")
async def test_a_short_answer_does_not_wait_for_a_long_one(start_node) -> None:
    asker, answerer = await start_node(1), await start_node(2)
    answerer.serve("/test/echo", echo)
    answerer.serve("/test/long", long)
    with trio.fail_after(20):
        control = await raw(asker, answerer)
        await control.say(Ask(1, "/test/long", b""), Ask(2, "/test/long", b""), Ask(3, "/test/echo", b"short"))
        ends = []
        while len(ends) < 3:
            word = await control.hear()
            ends += [word.number] if word.last else []
        assert ends[0] == 3


@pytest.mark.spec("W-9")
async def test_whoever_gives_up_a_question_lets_the_other_side_go_on_with_others(start_node) -> None:
    asker, answerer, waiting = await start_node(1), await start_node(2), Waiting()
    answerer.serve("/test/echo", echo)
    answerer.serve("/test/wait", waiting)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(asker.request, answerer.key, "/test/wait", b"", answerer.addresses())
            await waiting.until(5, 0)
            assert len(muxer_of(asker, answerer).keepalive.watched) == 1
            nursery.cancel_scope.cancel()
        assert not muxer_of(asker, answerer).keepalive.watched
        assert await asker.request(answerer.key, "/test/echo", b"goes on") == b"goes on"
        await waiting.until(5, 5)


async def test_askers_that_are_cancelled_at_any_step_leave_nothing_open(start_node) -> None:
    asker, answerer = await start_node(1), await start_node(2)
    answerer.serve("/test/echo", echo)
    answerer.serve("/test/long", long)
    with trio.fail_after(60):
        for steps in range(40):
            async with trio.open_nursery() as nursery:
                for protocol in ("/test/echo", "/test/long"):
                    nursery.start_soon(asker.request, answerer.key, protocol, bytes(20_000), answerer.addresses())
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            answer = await asker.request(answerer.key, "/test/echo", b"%d" % steps, answerer.addresses())
            assert answer == b"%d" % steps
        while any(muxer_of(node, other).streams.busy for node, other in ((asker, answerer), (answerer, asker))):
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert muxer_of(asker, answerer).held_bytes == asker._door.memory.held_bytes == 0


async def test_a_question_ends_with_its_stream_and_the_next_one_finds_another(start_node) -> None:
    asker, answerer, waiting = await start_node(1), await start_node(2), Waiting()
    answerer.serve("/test/echo", echo)
    answerer.serve("/test/wait", waiting)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(NetworkError) as caught:
                    await asker.request(answerer.key, "/test/wait", b"", answerer.addresses())
                assert caught.value.code is Code.STREAM_CLOSED

            nursery.start_soon(ask)
            await waiting.until(1, 0)
            await muxer_of(asker, answerer).close()
            await waiting.until(2, 1)  # asked again, once
            await muxer_of(asker, answerer).close()
        await waiting.until(2, 2)
        assert await asker.request(answerer.key, "/test/echo", b"again", answerer.addresses()) == b"again"


async def test_a_question_on_a_connection_that_is_dead_is_asked_again_on_another(start_node) -> None:
    asker, answerer = await start_node(1), await start_node(2)
    answerer.serve("/test/echo", echo)
    with trio.fail_after(20):
        assert await asker.request(answerer.key, "/test/echo", b"one", answerer.addresses()) == b"one"
        dead = muxer_of(asker, answerer)
        await dead.secured_conn.close()  # what is below is gone, and nobody has noticed
        assert await asker.request(answerer.key, "/test/echo", b"two", answerer.addresses()) == b"two"
        assert muxer_of(asker, answerer) is not dead


async def test_a_peer_without_control_streams_is_asked_over_fresh_ones(start_node) -> None:
    asker, old = await start_node(1), await start_node(2)
    old.serve("/test/echo", echo)
    old._host.remove_stream_handler(CONTROL_PROTOCOL)
    with trio.fail_after(20):
        assert await asker.request(old.key, "/test/echo", b"one", old.addresses()) == b"one"
        old._serve(CONTROL_PROTOCOL, None)  # type: ignore[arg-type]  # one that came to it would break
        assert await asker.request(old.key, "/test/echo", b"two") == b"two"


@pytest.mark.spec("W-6")
async def test_only_what_has_one_answer_is_answered(start_node) -> None:
    asker, answerer = await start_node(1), await start_node(2)

    async def silent(stream) -> None:
        await stream.receive()

    async def chatty(stream) -> None:
        await stream.send(b"one")
        await stream.send(b"two")

    answerer.serve("/test/job", echo, watched=True)
    answerer.serve("/test/silent", silent)
    answerer.serve("/test/chatty", chatty)
    with trio.fail_after(20):
        for protocol, code in (
            ("/test/job", Code.PROTOCOL_UNSUPPORTED),
            ("/test/nothing", Code.PROTOCOL_UNSUPPORTED),
            (CONTROL_PROTOCOL, Code.PROTOCOL_UNSUPPORTED),
            ("/test/silent", Code.STREAM_CLOSED),
        ):
            with pytest.raises(NetworkError) as caught:
                await asker.request(answerer.key, protocol, b"", answerer.addresses())
            assert caught.value.code is code
        assert await asker.request(answerer.key, "/test/chatty", b"") == b"one"


@pytest.mark.spec("W-3")
async def test_a_frozen_peer_ends_the_questions_before_its_connection(start_peer, start_node) -> None:
    frozen, node = await start_peer(1), await start_node(2)
    with trio.fail_after(20):
        await node.request(frozen.key, "/test/echo", b"", frozen.addresses)
        frozen.freeze()
        with pytest.raises(NetworkError) as caught:
            await node.request(frozen.key, "/test/echo", b"")
        assert caught.value.code is Code.STREAM_CLOSED
        assert node.peers() == [frozen.key]


@pytest.mark.spec("W-6", "W-10")
@pytest.mark.parametrize(
    "words",
    [
        [Ask(1, "/test/wait", b""), Ask(1, "/test/wait", b"")],
        [Ask(2, "/test/wait", b""), Ask(1, "/test/wait", b"")],
        [Ask(0, "/test/wait", b"")],
        [Cancel(1)],
        [Ask(1, "/test/wait", b""), Part(1, b"an answer", last=True)],
        [Ask(1, "/test/wait", b""), Refused(1, Reason.BUSY)],
        [Ask(1, "/test/wait", bytes(QUESTION_BYTES_MAX + 1))],
        [b""],
        [b"\x09\0\0\0\1"],
        [b"\0\0\0\0\1\xff/test"],
    ],
)
async def test_an_asker_that_breaks_the_rules_loses_its_stream_and_its_questions(start_node, words) -> None:
    honest, hostile, waiting = await start_node(1), await start_node(2), Waiting()
    honest.serve("/test/wait", waiting)
    with trio.fail_after(20):
        control = await raw(hostile, honest)
        await control.say(*words)
        await control.ended()
        while not honest._door.peers.points(str(id_of(hostile.key)), trio.current_time()):
            await trio.lowlevel.checkpoint()
        await waiting.until(waiting.asked, waiting.asked)


@pytest.mark.spec("W-10")
async def test_questions_beyond_the_bound_are_refused_and_cost_points(start_node) -> None:
    honest, hostile, waiting = await start_node(1), await start_node(2), Waiting()
    honest.serve("/test/wait", waiting)
    with trio.fail_after(20):
        control = await raw(hostile, honest)
        await control.say(*(Ask(number, "/test/wait", b"") for number in range(1, OPEN_MAX + 4)))
        assert [await control.hear() for _ in range(3)] == [
            Refused(number, Reason.BUSY) for number in range(OPEN_MAX + 1, OPEN_MAX + 4)
        ]
        await waiting.until(OPEN_MAX, 0)
        assert 2 < honest._door.peers.points(str(id_of(hostile.key)), trio.current_time()) <= 3
        other = await start_node(3)
        honest.serve("/test/echo", echo)
        assert await other.request(honest.key, "/test/echo", b"served", honest.addresses()) == b"served"
        for _ in range(STREAMS_MAX):  # on another stream of the same peer it is no different
            with suppress(StreamError):
                second = await raw(hostile, honest)
                await second.say(Ask(1, "/test/wait", b""))
                assert await second.hear() == Refused(1, Reason.BUSY)


async def test_a_storm_of_cancelled_questions_ends_each_of_them_once(start_node) -> None:
    honest, hostile, waiting = await start_node(1), await start_node(2), Waiting()
    honest.serve("/test/wait", waiting)
    storm = range(1, 1001)
    with trio.fail_after(30):
        control = await raw(hostile, honest)
        ends: list[Word] = []

        async def hear() -> None:
            while len(ends) < len(storm):
                ends.append(await control.hear())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            for number in storm:
                await control.say(Ask(number, "/test/wait", b""), Cancel(number), Cancel(number))
        assert sorted(ends) == [Refused(number, Reason.CANCELLED) for number in storm]
        await waiting.until(waiting.asked, waiting.asked)


@pytest.mark.spec("W-10")
async def test_answers_that_nobody_takes_are_bounded(start_node) -> None:
    honest, hostile = await start_node(1), await start_node(2)
    honest.serve("/test/long", long)
    with trio.fail_after(30):
        control = await raw(hostile, honest)
        fitting = ANSWERS_BYTES_MAX // ANSWER_BYTES_MAX
        await control.say(*(Ask(number, "/test/long", b"") for number in range(1, 3 * fitting + 1)))
        ends: dict[int, Word] = {}
        while len(ends) < 3 * fitting:
            word = await control.hear()
            if not isinstance(word, Part) or word.last:
                ends[word.number] = word
        assert sum(isinstance(end, Part) for end in ends.values()) == fitting
        assert {end.reason for end in ends.values() if isinstance(end, Refused)} == {Reason.BUSY}


async def _never_ends(control: Raw) -> None:
    asked = await control.hear()
    while True:
        await control.say(Part(asked.number, bytes(PART_BYTES), last=False))


async def _answers_twice(control: Raw) -> None:
    asked = await control.hear()
    await control.say(Part(asked.number, b"", last=True), Part(asked.number, b"", last=True))


async def _answers_what_nobody_asked(control: Raw) -> None:
    await control.say(Part((await control.hear()).number + 1, b"", last=True))


async def _asks_back(control: Raw) -> None:
    await control.say(Ask((await control.hear()).number, "/test/echo", b""))


async def _trickles(control: Raw) -> None:
    asked = await control.hear()
    await control.say(encode(Part(asked.number, b"a byte at a time", last=False)))


async def _says_anything(control: Raw) -> None:
    await control.say(b"HTTP/1.1 400 Bad Request")


@pytest.mark.spec("W-11")
@pytest.mark.parametrize(
    "answer", [_never_ends, _answers_twice, _answers_what_nobody_asked, _asks_back, _trickles, _says_anything]
)
async def test_an_answerer_that_breaks_the_rules_loses_the_stream_and_standing(start_node, answer) -> None:
    honest, hostile, other = await start_node(1), await start_node(2), await start_node(3)
    hostile_answers(hostile, answer)
    other.serve("/test/echo", echo)
    with trio.fail_after(30):
        with suppress(NetworkError):  # the first answer of two is one
            await honest.request(hostile.key, "/test/echo", b"", hostile.addresses())
        while not honest._door.peers.points(str(id_of(hostile.key)), trio.current_time()):
            await trio.lowlevel.checkpoint()
        assert all(muxer.held_bytes == 0 for muxer in honest._dialler.standing(id_of(hostile.key)))
        assert await honest.request(other.key, "/test/echo", b"fine", other.addresses()) == b"fine"


@pytest.mark.spec("W-9")
async def test_an_answerer_that_ends_no_question_is_asked_on_a_new_stream(start_node) -> None:
    honest, hostile = await start_node(1), await start_node(2)
    heard: list[list[Word]] = []
    news = trio.Event()

    async def deaf(control: Raw) -> None:
        nonlocal news
        heard.append([])
        mine = heard[-1]
        while True:
            mine.append(await control.hear())
            news.set()
            news = trio.Event()

    hostile_answers(hostile, deaf)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(OPEN_MAX):
                nursery.start_soon(honest.request, hostile.key, "/test/echo", b"", hostile.addresses())
            while not heard or len(heard[0]) < OPEN_MAX:
                await news.wait()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(honest.request, hostile.key, "/test/echo", b"")
            while len(heard) < 2 or not heard[1]:
                await news.wait()
            nursery.cancel_scope.cancel()

"""Frames come out as they went in, however the stream was cut; a length beyond the bound is refused unread."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from fallow.protocol.framing import HEAD_BYTES, Frames, frame
from fallow.protocol.limits import MESSAGE_BYTES_MAX


@given(bodies=st.lists(st.binary(max_size=200), max_size=8), cuts=st.lists(st.integers(0, 1000), max_size=20))
def test_frames_come_back_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, bodies))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    frames = Frames()
    reads = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert [body for read in reads for body in frames.feed_untrusted(read)] == bodies


@pytest.mark.spec("J-2", "L-3")
def test_the_largest_frame_passes_and_one_byte_more_does_not() -> None:
    largest = bytes(MESSAGE_BYTES_MAX)
    assert list(Frames().feed_untrusted(frame(largest))) == [largest]
    with pytest.raises(LocalProtocolError) as caught:
        frame(largest + b"\0")
    assert caught.value.code is Code.TOO_LARGE


@pytest.mark.spec("J-3", "L-1")
def test_a_length_beyond_the_bound_is_refused_with_its_fourth_byte_and_from_then_on() -> None:
    frames, announced = Frames(), (MESSAGE_BYTES_MAX + 1).to_bytes(HEAD_BYTES, "big")
    assert list(frames.feed_untrusted(announced[:3])) == []
    for read in (announced[3:], b"", bytes(100_000), frame(b"fine by itself")):
        with pytest.raises(RemoteProtocolError) as caught:
            list(frames.feed_untrusted(read))
        assert caught.value.code is Code.TOO_LARGE
        assert len(frames._held) == HEAD_BYTES, "what follows is not kept"


@pytest.mark.spec("J-3")
def test_frames_before_a_bad_one_are_still_delivered() -> None:
    fed = Frames().feed_untrusted(frame(b"good") + frame(b"") + b"\xff" * 8)
    assert [next(fed), next(fed)] == [b"good", b""]
    with pytest.raises(RemoteProtocolError):
        next(fed)


def test_nothing_but_the_unfinished_frame_is_kept() -> None:
    frames = Frames()
    assert list(frames.feed_untrusted(frame(bytes(1000)) * 50 + frame(b"unfinished")[:-1])) == [bytes(1000)] * 50
    assert len(frames._held) == len(frame(b"unfinished")) - 1

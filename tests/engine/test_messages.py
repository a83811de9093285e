"""The control socket's frames: what one side says the other reads, and nothing else is read."""

from __future__ import annotations

from itertools import pairwise

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.node.engine.messages import (
    FRAME_BYTES_MAX,
    Beat,
    Cancel,
    Credit,
    EngineJob,
    EnginePiece,
    Failed,
    FrameBuffer,
    Here,
    Loading,
    Message,
    Overrun,
    Rates,
    Ready,
    Served,
    Unserved,
    encode,
)
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.work import Parameters

ID = bytes(32)
MESSAGES: list[Message] = [
    EngineJob(ID, ID, ID, "generate", Parameters(8, 700, 900_000, 2**62), ID, 5, b"sealed"),
    Credit(ID, 8),
    Cancel(ID),
    Ready(ID, (Served(ID, "tiny", "float32/b1", Rates(decode_milli=5)),)),
    EnginePiece(ID, 0, b"sealed", 1, (-5,), ID, "eos"),
    Loading(ID),
    Here(),
    Unserved(ID, Code.BUNDLE_REFUSED.value, "why"),
    Overrun(ID, "why"),
    Failed(ID, Code.INPUT_MISMATCH.value, "why"),
    Beat(),
]


@given(st.lists(st.integers(0, 400), max_size=8))
def test_messages_survive_any_cut_of_the_stream(cuts: list[int]) -> None:
    stream = b"".join(map(encode, MESSAGES))
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    frames, read = FrameBuffer(), []
    for begin, end in pairwise(edges):
        read += frames.feed_untrusted(stream[begin:end])
    assert read == MESSAGES


def frame(value: object) -> bytes:
    body: bytes = msgpack.packb(value)
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "received",
    [
        (FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        b"\xff" * 8,
        b"\0\0\0\0",
        b"\0\0\0\1\xc1",
        frame(["Nothing", {}]),
        frame(["Beat"]),
        frame(["Beat", {"more": 1}]),
        frame(["Cancel", {"id": b"short"}]),
        frame(["Cancel", {"id": "x" * 32}]),
        frame(["Cancel", {"id": ID}, 1]),
        frame(["Cancel", None]),
        frame([["Cancel"], {"id": ID}]),
        frame(["Credit", {"id": ID, "pieces": 10**6}]),
        frame({"Cancel": {"id": ID}}),
        frame(["EnginePiece", {}]),
    ],
)
def test_what_is_no_message_is_refused(received: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        list(FrameBuffer().feed_untrusted(received))


@given(st.binary(max_size=200))
def test_bytes_are_messages_or_refused(body: bytes) -> None:
    try:
        list(FrameBuffer().feed_untrusted(len(body).to_bytes(4, "big") + body))
    except RemoteProtocolError:
        return

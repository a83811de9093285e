"""Questions and answers of one control stream as frames: `spec/11-network.md`, "Questions". Sans-I/O.

asker                                   answerer
  |-- ask 1 /fallow/profile/1 ----------> |
  |-- ask 2 /fallow/blob/1 -------------> |
  |<------------------------------ part 2 |
  |<------------------------------ last 1 |  a short answer does not wait for a long one
  |-- cancel 2 -------------------------> |
  |<----------------- refused 2 cancelled |
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from ...protocol.errors import Code, RemoteProtocolError
from ...protocol.limits import MESSAGE_BYTES_MAX

PART_BYTES: Final = 32 * 1024
"""Of an answer in one frame: a short answer beside a long one waits for so much, 0.4 ms at 75 MB/s."""

QUESTION_BYTES_MAX: Final = 32 * 1024
"""A larger question goes over a stream of its own: as many as may be open take 2 MiB so."""

ANSWER_BYTES_MAX: Final = MESSAGE_BYTES_MAX
"""As one frame of a stream."""

OPEN_MAX: Final = 64
"""Questions of one stream that have no end yet; as many as streams of one protocol."""

PROTOCOL_BYTES_MAX: Final = 255
"""Its length is one byte."""

NUMBER_MAX: Final = 2**32 - 1

_HEAD: Final = struct.Struct("!BI")


class _Kind(IntEnum):
    ASK = 0
    CANCEL = 1
    PART = 2
    LAST = 3
    REFUSED = 4


class Reason(IntEnum):
    """Why a question has no answer."""

    UNSUPPORTED = 0
    """Nothing is answered here under that protocol."""
    CANCELLED = 1
    """The asker wanted it so."""
    BUSY = 2
    """More is open, or waits to be taken, than this side bears."""
    FAILED = 3
    """Whoever was to answer did not."""


class Ask(NamedTuple):
    number: int
    protocol: str
    question: bytes


class Cancel(NamedTuple):
    number: int


class Part(NamedTuple):
    number: int
    content: bytes
    last: bool


class Refused(NamedTuple):
    number: int
    reason: Reason


Word = Ask | Cancel | Part | Refused


def encode(word: Word) -> bytes:
    """The frame that says it."""
    match word:
        case Ask(number, protocol, question):
            name = protocol.encode()
            return _HEAD.pack(_Kind.ASK, number) + bytes([len(name)]) + name + question
        case Cancel(number):
            return _HEAD.pack(_Kind.CANCEL, number)
        case Part(number, content, last):
            return _HEAD.pack(_Kind.LAST if last else _Kind.PART, number) + content
        case Refused(number, reason):
            return _HEAD.pack(_Kind.REFUSED, number) + bytes([reason])


def decode_untrusted(frame: bytes) -> Word:
    """What the frame says. Raises `RemoteProtocolError`: `bad_encoding`, or `too_large`."""
    if len(frame) < _HEAD.size:
        raise RemoteProtocolError(Code.BAD_ENCODING, "A frame of a control stream has a kind and a number.")
    kind, number = _HEAD.unpack_from(frame)
    body = frame[_HEAD.size :]
    if kind == _Kind.ASK:
        return _ask_untrusted(number, body)
    if kind == _Kind.CANCEL and not body:
        return Cancel(number)
    if kind in (_Kind.PART, _Kind.LAST):
        return _part_untrusted(number, body, last=kind == _Kind.LAST)
    if kind == _Kind.REFUSED and len(body) == 1 and body[0] in set(Reason):
        return Refused(number, Reason(body[0]))
    raise RemoteProtocolError(Code.BAD_ENCODING, f"That is no frame of a control stream: kind {kind}.")


def _ask_untrusted(number: int, body: bytes) -> Ask:
    name = body[1 : 1 + body[0]] if body else b""
    if not name or len(name) != body[0] or not name.isascii():
        raise RemoteProtocolError(Code.BAD_ENCODING, "A question names its protocol.")
    question = body[1 + len(name) :]
    if len(question) > QUESTION_BYTES_MAX:
        raise RemoteProtocolError(Code.TOO_LARGE, f"A question of {len(question)} bytes.")
    return Ask(number, name.decode("ascii"), question)


def _part_untrusted(number: int, body: bytes, *, last: bool) -> Part:
    if len(body) > PART_BYTES:
        raise RemoteProtocolError(Code.TOO_LARGE, f"A part of {len(body)} bytes.")
    if not last and len(body) < PART_BYTES:
        raise RemoteProtocolError(Code.BAD_ENCODING, f"Every part but the last has {PART_BYTES} bytes.")
    return Part(number, body, last)


def parts(number: int, answer: bytes) -> Iterator[bytes]:
    """The frames of an answer."""
    start = 0
    while len(answer) - start > PART_BYTES:
        yield encode(Part(number, answer[start : start + PART_BYTES], last=False))
        start += PART_BYTES
    yield encode(Part(number, answer[start:], last=True))

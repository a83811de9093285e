"""Yamux's frames as bytes (https://github.com/hashicorp/yamux/blob/master/spec.md). Sans-I/O."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

from ...protocol.errors import Code, RemoteProtocolError

_HEAD: Final = struct.Struct("!BBHII")
HEAD_BYTES: Final = _HEAD.size

WINDOW_BYTES: Final = 256 * 1024
"""Credit of either side on a fresh stream; part of the protocol."""

BODY_BYTES_MAX: Final = 65_519 - 2 * HEAD_BYTES
"""Data in one frame of ours: with a mark behind it, the plaintext of one noise message. Larger ones are slower, and keep
small requests waiting."""


class Kind(IntEnum):
    DATA = 0
    WINDOW = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


GOING, BROKE_RULES = 0, 1
"""What a go-away frame says."""


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    length: int
    body: bytes
    """So many bytes as `length` says, in a frame of data."""


def encode(kind: Kind, flags: int, stream: int, length: int, body: bytes = b"") -> bytes:
    """A frame as it goes over the connection."""
    return _HEAD.pack(0, kind, flags, stream, length) + body


class Frames:
    """Reads in, frames out, however the connection was cut up."""

    def __init__(self, credit: Callable[[int], int]) -> None:
        """`credit` is how many bytes the other side may send on a stream now."""
        self._credit = credit
        self._held = bytearray()
        self._ends = HEAD_BYTES

    def feed_untrusted(self, received: bytes) -> Iterator[Frame]:
        """The frames that `received` completes. A frame is taken before the next one is looked at.

        Raises `RemoteProtocolError`: `bad_encoding` for what is no frame, `too_large` for more data than there is credit
        for. Nothing of such a frame's body is held.
        """
        self._held += received
        while len(self._held) >= self._ends:
            version, kind, flags, stream, length = _HEAD.unpack_from(self._held)
            if version or kind > Kind.GO_AWAY or flags > 15:
                raise RemoteProtocolError(Code.BAD_ENCODING, "What came is no frame of yamux.")
            end = HEAD_BYTES
            if kind == Kind.DATA:
                if length > self._credit(stream):
                    raise RemoteProtocolError(Code.TOO_LARGE, "The peer sent more than its window on a stream.")
                end += length
            if len(self._held) < end:
                self._ends = end
                return
            body = bytes(memoryview(self._held)[HEAD_BYTES:end]) if end > HEAD_BYTES else b""
            del self._held[:end]
            self._ends = HEAD_BYTES
            yield Frame(kind, flags, stream, length, body)

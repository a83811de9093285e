"""Frames on a stream: four bytes of length, big-endian, and so many bytes of body. Sans-I/O.

A frame may be empty: whether that means something is for those who read frames, and to `messages.codec` it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .errors import Code, LocalProtocolError, RemoteProtocolError
from .limits import MESSAGE_BYTES_MAX

HEAD_BYTES: Final = 4


def frame(body: bytes) -> bytes:
    """The body as it goes over the stream. Raises `LocalProtocolError` for one over `MESSAGE_BYTES_MAX`."""
    if len(body) > MESSAGE_BYTES_MAX:
        raise LocalProtocolError(Code.TOO_LARGE, f"A frame has at most {MESSAGE_BYTES_MAX} bytes, not {len(body)}.")
    return len(body).to_bytes(HEAD_BYTES, "big") + body


class Frames:
    """Reads in, bodies out, however the stream was cut up. Holds less than one frame, and the read it is fed with."""

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def held_bytes(self) -> int:
        """Of a frame that is not complete."""
        return len(self._held)

    def feed_untrusted(self, received: bytes) -> Iterator[bytes]:
        """The bodies that `received` completes.

        Raises `RemoteProtocolError(too_large)` as soon as a frame over `MESSAGE_BYTES_MAX` is announced, after the bodies
        before it, and from then on every time: what follows on the stream cannot be told apart.
        """
        self._held += received
        while len(self._held) >= HEAD_BYTES:
            length = int.from_bytes(self._held[:HEAD_BYTES], "big")
            if length > MESSAGE_BYTES_MAX:
                del self._held[HEAD_BYTES:]
                raise RemoteProtocolError(Code.TOO_LARGE, f"A frame of {length} bytes was announced.")
            end = HEAD_BYTES + length
            if len(self._held) < end:
                return
            with memoryview(self._held) as view:  # bytes(held[...]) would copy the body twice
                body = bytes(view[HEAD_BYTES:end])
            del self._held[:end]
            yield body

"""A worker that does what its first argument says, right up to what no sound worker does. It computes nothing."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

from fallow.node.engine.messages import (
    AHEAD_PIECES_MAX,
    Cancelled,
    EngineJob,
    EnginePiece,
    Failed,
    FrameBuffer,
    Message,
    Rates,
    Ready,
    Served,
    encode,
)

BUNDLE = bytes(32)


def main() -> None:
    behaviour, control = sys.argv[1], socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
    if behaviour == "crash at start":
        sys.exit("something is missing")
    if behaviour == "babble at start":
        control.sendall(b"GET / HTTP/1.1\r\n\r\n")
    if behaviour != "never ready":
        control.sendall(encode(Ready(os.urandom(32), (Served(BUNDLE, "scripted", "none", Rates()),))))
    if behaviour == "crash when ready":
        return
    for message in messages(control):
        if isinstance(message, EngineJob):
            for answer in ANSWERS.get(behaviour, lambda _: [])(message.id):
                control.sendall(answer)
        if behaviour == "crash at a job":
            os._exit(1)


def messages(control: socket.socket) -> Iterator[Message]:
    frames = FrameBuffer()
    while received := control.recv(65536):
        yield from frames.feed_untrusted(received)


def piece(job: bytes, index: int, end: str = "") -> bytes:
    return encode(EnginePiece(job, index, b"sealed", 1, (0,), bytes(32), end))


BREACHES = {
    "garbage": lambda _: [b"\0\0\0\1\xc1"],
    "a frame of 4 GiB": lambda _: [b"\xff\xff\xff\xff"],
    "out of order": lambda job: [piece(job, 1)],
    "an unknown end": lambda job: [piece(job, 0, "eos").replace(b"eos", b"eso")],
    "another's piece": lambda _: [piece(b"x" * 32, 0)],
    "cancelled by itself": lambda job: [encode(Cancelled(job))],
    "an unknown code": lambda job: [encode(Failed(job, "whatever", ""))],
    "ready twice": lambda _: [encode(Ready(bytes(32), (Served(BUNDLE, "again", "none", Rates()),)))],
}
ANSWERS = BREACHES | {
    "answer": lambda job: [piece(job, 0), piece(job, 1, "eos")],
    "a piece after the end": lambda job: [piece(job, 0, "eos"), piece(job, 1)],
    "silence when it has to wait": lambda job: [piece(job, index) for index in range(AHEAD_PIECES_MAX)],
    "flood": lambda job: [piece(job, index) for index in range(AHEAD_PIECES_MAX + 1)],
}

if __name__ == "__main__":
    main()

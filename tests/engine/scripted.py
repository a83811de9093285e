"""A worker that does what its first argument says, right up to what no sound worker does. It computes nothing."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from fallow.node.engine.messages import (
    AHEAD_PIECES_MAX,
    Beat,
    Cancelled,
    EngineJob,
    EnginePiece,
    Failed,
    Fatal,
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
from fallow.protocol.errors import Code
from fallow.protocol.identity import cid_hash_untrusted

BUNDLE = bytes(32)
OTHER = b"\x01" * 32


def main() -> None:
    behaviour, control = _now(sys.argv[1]), socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
    if behaviour == "crash at start":
        sys.exit("something is missing")
    if behaviour == "babble at start":
        control.sendall(b"GET / HTTP/1.1\r\n\r\n")
    if behaviour != "never here":
        control.sendall(encode(Here()))
    given = [cid_hash_untrusted(sys.argv[place + 1]) for place, word in enumerate(sys.argv) if word == "--bundle"]
    for bundle in given if behaviour != "never ready" else []:
        control.sendall(encode(Loading(bundle)))
        if behaviour == "hang in loading":
            signal.pause()
        if behaviour == "die of loading":
            os.kill(os.getpid(), signal.SIGKILL)
        if bundle == OTHER and behaviour == "die of loading the other":
            sys.exit("something broke")
        if bundle == OTHER and behaviour == "overrun in loading the other":
            control.sendall(encode(Overrun(OTHER, "compiling took longer than it may")))
            return
        if bundle == OTHER and behaviour == "hang in loading the other":
            print("hanging", flush=True)
            signal.pause()
        if bundle == OTHER and behaviour == "refuse the other":
            control.sendall(encode(Unserved(OTHER, Code.BUNDLE_REFUSED.value, "it breaks a rule")))
        if behaviour == "refuse a stranger":
            control.sendall(encode(Unserved(b"\x02" * 32, Code.BUNDLE_REFUSED.value, "nobody had asked")))
    if behaviour == "refuse all":
        control.sendall(encode(Fatal(Code.BUNDLE_REFUSED.value, "all break the rules")))
        return
    if behaviour != "never ready":
        left = [bundle for bundle in given if bundle != OTHER or behaviour != "refuse the other"]
        served = [Served(bundle, "scripted", "none", Rates()) for bundle in left]
        if behaviour == "serve a stranger":
            served.append(Served(b"\x02" * 32, "stranger", "none", Rates()))
        control.sendall(encode(Ready(os.urandom(32), tuple(served))))
    if behaviour == "crash when ready":
        return
    for message in messages(control):
        if isinstance(message, EngineJob):
            if behaviour == "overrun of the other" and message.bundle == OTHER:
                control.sendall(encode(Overrun(OTHER, "a run took longer than it may")))
                return
            if message.bundle == OTHER and behaviour in (
                "die of the other's late program",
                "hang over the other's late program",
            ):
                control.sendall(encode(Loading(OTHER)))
                if behaviour.startswith("die"):
                    os._exit(1)
            if behaviour in ENDS:
                ENDS[behaviour](control)
            if behaviour == "crash at a job of the other" and message.bundle == OTHER:
                os._exit(1)
            for answer in ANSWERS.get(behaviour, lambda _: [])(message.id):
                control.sendall(answer)
        if behaviour == "crash at a job":
            os._exit(1)


def _now(behaviour: str) -> str:
    """What a behaviour "... once" means for this worker: that, or an answer if another has done it already."""
    behaviour, once, _ = behaviour.partition(" once")
    mark = Path(sys.argv[sys.argv.index("--store") + 1], "done")
    if not once:
        return behaviour
    if mark.exists():
        return "answer"
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    return behaviour


def messages(control: socket.socket) -> Iterator[Message]:
    frames = FrameBuffer()
    while received := control.recv(65536):
        yield from frames.feed_untrusted(received)


def piece(job: bytes, index: int, end: str = "", *, sealed: bytes = b"sealed", values: tuple[int, ...] = (0,)) -> bytes:
    return encode(EnginePiece(job, index, sealed, 1, values, bytes(32), end))


def fault(_: socket.socket) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def close_and_run_on(control: socket.socket) -> None:
    control.close()
    signal.pause()


ENDS: dict[str, Callable[[socket.socket], object]] = {
    "a fault": fault,
    "an error": lambda _: sys.exit("it broke \x1b[31mbadly"),
    "the end": lambda _: os._exit(0),
    "its alarm clock": lambda _: os._exit(signal.SIGALRM),
    "close and run on": close_and_run_on,
    "wait": lambda _: None,
}
BREACHES = {
    "garbage": lambda _: [b"\0\0\0\1\xc1"],
    "a frame of 4 GiB": lambda _: [b"\xff\xff\xff\xff"],
    "out of order": lambda job: [piece(job, 1)],
    "an unknown end": lambda job: [piece(job, 0, "eos").replace(b"eos", b"eso")],
    "another's piece": lambda _: [piece(b"x" * 32, 0)],
    "cancelled by itself": lambda job: [encode(Cancelled(job))],
    "an unknown code": lambda job: [encode(Failed(job, "whatever", ""))],
    "an overrun of a stranger's bundle": lambda _: [encode(Overrun(b"\x02" * 32, "why"))],
    "loading a stranger's bundle": lambda _: [encode(Loading(b"\x02" * 32))],
    "more steps than the job can need": lambda _: [encode(Beat())] * 3,
    "values of other tokens": lambda job: [piece(job, 0, values=())],
    "ready twice": lambda _: [encode(Ready(bytes(32), (Served(BUNDLE, "again", "none", Rates()),)))],
}
ANSWERS = BREACHES | {
    "overrun of the other": lambda job: [piece(job, 0)],
    "die of the other's late program": lambda job: [piece(job, 0)],
    "answer": lambda job: [piece(job, 0), piece(job, 1, "eos")],
    "crash at a job of the other": lambda job: [piece(job, 0), piece(job, 1, "eos")],
    "a beat after the end": lambda job: [piece(job, 0, "eos"), encode(Beat())],
    "more than may wait": lambda job: [piece(job, index, sealed=bytes(2 * 1024**2)) for index in range(3)],
    "a piece after the end": lambda job: [piece(job, 0, "eos"), piece(job, 1)],
    "silence when it has to wait": lambda job: [piece(job, index) for index in range(AHEAD_PIECES_MAX)],
    "flood": lambda job: [piece(job, index) for index in range(AHEAD_PIECES_MAX + 1)],
}

if __name__ == "__main__":
    main()

"""The worker: a process that holds the models and does the jobs, and nothing else.

    python -m fallow.node.engine.worker --control-fd N --store DIR --bundle CID ... [--max-jobs N] [--memory-mib N]

It makes its key, loads the bundles, says `Ready`, and then serves until its end of the control socket closes, at which
it is gone at once, whatever it was doing. It can be killed at any moment: it keeps nothing.
"""

from __future__ import annotations

import argparse
import hmac
import os
import queue
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import jax
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ...protocol.errors import Code, EngineError, FallowError, RemoteProtocolError
from ...protocol.limits import TEXT_BYTES_MAX
from ...protocol.work import (
    Input,
    Work,
    decode_input_untrusted,
    decode_work_untrusted,
    transcript_next,
    transcript_start,
)
from . import device, programs
from .bundles import BundleStore
from .caps import COMPILE_S_MAX, RUN_S_MIN, Caps, measure_speed, memory_bytes
from .entries import Run, Step, run_entry
from .loading import Grant
from .messages import (
    AHEAD_PIECES_MAX,
    Beat,
    Cancel,
    Cancelled,
    Credit,
    EngineJob,
    EnginePiece,
    Failed,
    Fatal,
    FrameBuffer,
    Loading,
    Message,
    Ready,
    Served,
    Unserved,
    encode,
)
from .sealing import PieceSealer, open_input
from .watchdog import Watchdog

NICE: Final = 10
"""Below whatever the owner runs, and below our own daemon, whose answers are waited for; it costs no throughput."""

_INBOX_MAX: Final = 1024
"""Messages read but not yet acted upon; the daemon bounds jobs and credit far below."""


def main(arguments: Sequence[str] | None = None, *, run: Run = run_entry) -> None:
    """Serves until the daemon closes the socket. `run` does the jobs: another than `run_entry` makes another worker."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to handle; it tells us by closing the socket
    os.nice(NICE)
    control = socket.socket(fileno=options.control_fd)
    inbox = _Inbox(control)
    try:
        models, refused = load(BundleStore(options.store), options.bundle, control, options)
    except FallowError as error:
        control.sendall(encode(Fatal(error.code.value, _short(error.message))))
        raise SystemExit(error.message) from None
    worker = Worker(control, models, run, options.max_jobs)
    worker.announce(refused)
    worker.serve(inbox)


def load(
    store: BundleStore, cids: Sequence[str], control: socket.socket, options: argparse.Namespace
) -> tuple[dict[bytes, programs.Model], tuple[Unserved, ...]]:
    """The models by the hash in their bundle's CID, and what of the bundles is refused.

    Raises `FallowError` for one that is not here or damaged, and if none is left.
    """
    device.configure(store.compile_cache)
    bundles = [store.open(cid) for cid in cids]
    caps = Caps(options.memory_mib * 2**20 or memory_bytes(), options.compile_s, options.run_s)
    watchdog, speed = Watchdog(control), measure_speed()
    models: dict[bytes, programs.Model] = {}
    refused: list[Unserved] = []
    for bundle in bundles:
        control.sendall(encode(Loading(bundle.hash)))
        try:
            models[bundle.hash] = programs.load(bundle, Grant(caps, speed, partial(watchdog.limit, bundle.hash)))
        except EngineError as error:
            refused.append(Unserved(bundle.hash, error.code.value, _short(error.message)))
    if refused and not models:
        raise EngineError(Code(refused[0].code), "; ".join(each.message for each in refused))
    return models, tuple(refused)


@dataclass(slots=True, eq=False)
class _Job:
    """One job under way."""

    id: bytes
    steps: Iterator[Step | None]
    sealer: PieceSealer
    transcript: bytes
    index: int = 0
    credit: int = AHEAD_PIECES_MAX


class Worker:
    """Jobs take turns, one step each; between any two steps the daemon is heard."""

    def __init__(self, control: socket.socket, models: dict[bytes, programs.Model], run: Run, max_jobs: int) -> None:
        self._control = control
        self._models = models
        self._run = run
        self._max_jobs = max_jobs
        self._private = X25519PrivateKey.generate()
        self._jobs: deque[_Job] = deque()

    def announce(self, refused: tuple[Unserved, ...] = ()) -> None:
        """The daemon knows our key, what we serve, and what we refuse."""
        served = tuple(
            Served(hash, model.manifest.name, model.numerics_class, model.rates) for hash, model in self._models.items()
        )
        self._send(Ready(self._private.public_key().public_bytes_raw(), served, refused))

    def serve(self, inbox: _Inbox) -> None:
        """Does not return: the inbox ends the process when the socket closes."""
        while True:
            turn = next((job for job in self._jobs if job.credit), None)
            for message in inbox.take(wait=turn is None):
                self._handle(message)
            if turn and turn in self._jobs:
                self._jobs.remove(turn)
                self._jobs.append(turn)
                self._step(turn)

    def _handle(self, message: Message) -> None:
        match message:
            case EngineJob():
                try:
                    self._jobs.append(self._begin_untrusted(message))
                except FallowError as error:
                    self._fail(message.id, error)
            case Credit():
                for job in self._jobs:
                    if job.id == message.id:
                        job.credit += message.pieces
            case Cancel():
                for job in [job for job in self._jobs if job.id == message.id]:
                    self._jobs.remove(job)
                    self._send(Cancelled(job.id))

    def _begin_untrusted(self, job: EngineJob) -> _Job:
        """Raises `FallowError` if the client's input is not what the order says it is."""
        if job.bundle not in self._models:
            raise EngineError(Code.UNKNOWN_BUNDLE, "The worker does not serve this bundle.")
        if len(self._jobs) >= self._max_jobs:
            raise EngineError(Code.BUSY, "The worker has as many jobs as it may.")
        opened = decode_input_untrusted(open_input(self._private, job.id, job.sealed))
        work = _checked_work_untrusted(opened, job)
        steps = self._run(self._models[job.bundle], job.entry, job.parameters, work)
        sealer = PieceSealer(opened.reply_secret, job.id)
        return _Job(job.id, steps, sealer, transcript_start(opened.salt, job.id))

    def _step(self, job: _Job) -> None:
        try:
            step = next(job.steps)
            encoded = step.piece.encode() if step else b""
        except jax.errors.JaxRuntimeError as error:
            self._end(job, EngineError(Code.WORKER_FAILED, f"The computation broke: {error}"))
        except FallowError as error:
            self._end(job, error)
        else:
            if step:
                self._give(job, step, encoded)
            else:
                self._send(Beat())

    def _give(self, job: _Job, step: Step, encoded: bytes) -> None:
        piece, job.transcript = step.piece, transcript_next(job.transcript, encoded)
        self._send(
            EnginePiece(
                id=job.id,
                index=job.index,
                sealed=job.sealer.seal(job.index, encoded),
                tokens=len(piece.values_micro),
                values_micro=piece.values_micro,
                transcript=job.transcript,
                end=step.end,
                gaps_micro=piece.gaps_micro,
                masses_ppm=piece.masses_ppm,
            )
        )
        job.index += 1
        job.credit -= 1
        if step.end:
            self._jobs.remove(job)

    def _end(self, job: _Job, error: FallowError) -> None:
        self._jobs.remove(job)
        self._fail(job.id, error)

    def _fail(self, job_id: bytes, error: FallowError) -> None:
        self._send(Failed(job_id, error.code.value, _short(error.message)))

    def _send(self, message: Message) -> None:
        self._control.sendall(encode(message))


class _Inbox:
    """What the daemon sends, read by a thread of its own, so that its going is noticed in the middle of a long run."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._messages: queue.Queue[Message] = queue.Queue(_INBOX_MAX)
        threading.Thread(target=self._read, name="control", daemon=True).start()

    def take(self, *, wait: bool) -> list[Message]:
        """Everything that has come; with `wait` at least one message."""
        taken = [self._messages.get()] if wait else []
        while not self._messages.empty():
            taken.append(self._messages.get())
        return taken

    def _read(self) -> None:
        frames = FrameBuffer()
        try:
            while received := self._control.recv(256 * 1024):
                for message in frames.feed_untrusted(received):
                    self._messages.put_nowait(message)
        except (OSError, queue.Full, RemoteProtocolError) as error:
            os.write(2, f"The control socket failed: {error}\n".encode())
            os._exit(1)
        os._exit(0)  # the daemon has gone or wants us gone; nothing here is worth unwinding


def _checked_work_untrusted(opened: Input, job: EngineJob) -> Work:
    if not hmac.compare_digest(opened.digest, job.input_digest):
        raise RemoteProtocolError(Code.INPUT_MISMATCH, "The input is not the one that the order commits to.")
    work = decode_work_untrusted(opened.work)
    if work.input_tokens != job.input_tokens:
        raise RemoteProtocolError(
            Code.INPUT_MISMATCH, f"The input has {work.input_tokens} tokens, the order says {job.input_tokens}."
        )
    if len(work.sequences) != job.calls:
        raise RemoteProtocolError(
            Code.INPUT_MISMATCH, f"The input has {len(work.sequences)} sequences, the order says {job.calls}."
        )
    return work


def _short(message: str) -> str:
    return message.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fallow-worker")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--bundle", action="append", required=True, metavar="CID")
    parser.add_argument("--max-jobs", type=int, default=4)
    parser.add_argument("--memory-mib", type=int, default=0, help="what a program may take; 0: see caps.memory_bytes")
    parser.add_argument(
        "--compile-s", type=float, default=COMPILE_S_MAX, help="how long reading and compiling one may take"
    )
    parser.add_argument("--run-s", type=float, default=RUN_S_MIN, help="how long a run may take at least")
    return parser


if __name__ == "__main__":
    main()

"""The worker: a process that holds the models and does the jobs, and nothing else.

    python -m fallow.node.engine.worker --control-fd N --store DIR --bundle CID ... [--max-jobs N] [--memory-mib N]
        [--unconfined] [--batch-unproven]

It confines itself, waits for `Begin`, loads the bundles, says `Ready`, and then serves until its end of the control socket
closes, at which it is gone at once, whatever it was doing. It can be killed at any moment: it keeps nothing.
"""

from __future__ import annotations

import argparse
import hmac
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
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
from .bundles import Bundle, BundleStore
from .caps import COMPILE_S_MAX, RUN_S_MIN, Caps, measure_speed, memory_bytes
from .confinement import Confinement
from .entries import Run, Step, run_entry
from .kept import Kept
from .loading import Grant
from .messages import (
    AHEAD_PIECES_MAX,
    Beat,
    Begin,
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
    Overrun,
    Rates,
    Ready,
    Served,
    Unserved,
    encode,
)
from .rates import measure
from .sealing import PieceSealer, open_input
from .turns import Task, Turns
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
    store = BundleStore(options.store)
    compiled = store.worker_cache(options.bundle)
    confinement = Confinement(on=not options.unconfined)
    confinement.before_threads([store.root / "bundles", store.compile_cache], [compiled])
    inbox = _Inbox(control)
    begin = inbox.first()
    try:
        bundles = [store.open(cid) for cid in options.bundle]
        device.configure(compiled, beside=store.compile_cache)
        confinement.before_programs(jax.default_backend(), [bundle.manifest for bundle in bundles], options.max_jobs)
        models, refused = load(bundles, control, options, Kept(compiled, store.compile_cache))
    except FallowError as error:
        control.sendall(encode(Fatal(error.code.value, _short(error.message))))
        raise SystemExit(error.message) from None
    worker = Worker(control, models, run, options.max_jobs, confinement)
    worker.announce(refused, {each.bundle: each.rates for each in begin.known})
    worker.serve(inbox)


def load(
    bundles: Sequence[Bundle], control: socket.socket, options: argparse.Namespace, kept: Kept
) -> tuple[dict[bytes, programs.Model], tuple[Unserved, ...]]:
    """The models by the hash in their bundle's CID, and what of the bundles is refused.

    Raises `FallowError` for one that is damaged, and if none is left.
    """
    caps = Caps(options.memory_mib * 2**20 or memory_bytes(), options.compile_s, options.run_s)
    watchdog, speed = Watchdog(control), cache(measure_speed)
    models: dict[bytes, programs.Model] = {}
    refused: list[Unserved] = []
    for bundle in bundles:
        control.sendall(encode(Loading(bundle.hash)))
        grant = Grant(caps, speed, partial(watchdog.limit, bundle.hash), kept)
        try:
            models[bundle.hash] = programs.load(bundle, grant, trusted=options.batch_unproven)
        except EngineError as error:
            refused.append(Unserved(bundle.hash, error.code.value, _short(error.message)))
    if refused and not models:
        raise EngineError(Code(refused[0].code), "; ".join(each.message for each in refused))
    return models, tuple(refused)


class _Job:
    """One job under way: what seals its answer and passes it on."""

    def __init__(self, job: EngineJob, opened: Input, send: Callable[[Message], None]) -> None:
        self.id = job.id
        self._send = send
        self._sealer = PieceSealer(opened.reply_secret, job.id)
        self._transcript = transcript_start(opened.salt, job.id)
        self._index = 0

    def give(self, step: Step) -> None:
        """The piece is on its way."""
        piece, encoded = step.piece, step.piece.encode()
        self._transcript = transcript_next(self._transcript, encoded)
        self._send(
            EnginePiece(
                id=self.id,
                index=self._index,
                sealed=self._sealer.seal(self._index, encoded),
                tokens=len(piece.values_micro),
                values_micro=piece.values_micro,
                transcript=self._transcript,
                end=step.end,
                gaps_micro=piece.gaps_micro,
                masses_ppm=piece.masses_ppm,
            )
        )
        self._index += 1

    def fail(self, error: FallowError) -> None:
        """The daemon knows that there is nothing more, and why."""
        self._send(Failed(self.id, error.code.value, _short(error.message)))


class Worker:
    """Jobs take turns; between any two runs the daemon is heard."""

    def __init__(
        self,
        control: socket.socket,
        models: dict[bytes, programs.Model],
        run: Run,
        max_jobs: int,
        confinement: Confinement,
    ) -> None:
        self._control = control
        self._models = models
        self._run = run
        self._max_jobs = max_jobs
        self._confinement = confinement
        self._private = X25519PrivateKey.generate()
        self._turns = Turns(models.values())
        self._tasks: dict[bytes, Task] = {}
        self._silent = True

    def announce(self, refused: tuple[Unserved, ...], known: Mapping[bytes, Rates]) -> None:
        """The daemon knows our key, what we serve, what we refuse, and what confines us."""
        served = tuple(
            Served(hash, model.manifest.name, model.numerics_class, known.get(hash) or measure(model))
            for hash, model in self._models.items()
        )
        self._send(Ready(self._private.public_key().public_bytes_raw(), served, self._confinement.measures, refused))

    def serve(self, inbox: _Inbox) -> None:
        """Does not return: the inbox ends the process when the socket closes."""
        while True:
            while not self._turns.waiting and inbox.empty and self._load_next():
                pass
            for message in inbox.take(wait=not self._turns.waiting):
                self._handle(message)
            self._tasks = {id: task for id, task in self._tasks.items() if task.request is not None}
            self._silent = True
            self._turns.run()
            if self._silent and self._turns.waiting:
                self._send(Beat())

    def _handle(self, message: Message) -> None:
        match message:
            case EngineJob():
                try:
                    self._begin_untrusted(message)
                except FallowError as error:
                    self._send(Failed(message.id, error.code.value, _short(error.message)))
            case Credit() if message.id in self._tasks:
                self._tasks[message.id].credit += message.pieces
            case Cancel() if (task := self._tasks.pop(message.id, None)) and task.request is not None:
                self._turns.remove(task)
                self._send(Cancelled(message.id))

    def _begin_untrusted(self, job: EngineJob) -> None:
        """The job takes part. Raises `FallowError` if the client's input is not what the order says it is."""
        if job.bundle not in self._models:
            raise EngineError(Code.UNKNOWN_BUNDLE, "The worker does not serve this bundle.")
        if len(self._turns) >= self._max_jobs:
            raise EngineError(Code.BUSY, "The worker has as many jobs as it may.")
        opened = decode_input_untrusted(open_input(self._private, job.id, job.sealed))
        work = _checked_work_untrusted(opened, job)
        model, answer = self._models[job.bundle], _Job(job, opened, self._send)
        steps = self._run(model.manifest, job.entry, job.parameters, work)
        task = Task(job.client, model, job.parameters, steps, answer.give, answer.fail, AHEAD_PIECES_MAX)
        self._turns.add(task)
        self._tasks[job.id] = task

    def _load_next(self) -> bool:
        """While nothing else is to be done, wider and longer programs are loaded; False when all of them were."""
        for hash, model in self._models.items():
            try:
                if model.load_next():
                    return True
            except EngineError as error:
                # Its other programs have served, but a bundle is refused whole: this process ends, and the next lacks it.
                self._send(Overrun(hash, _short(error.message)))
                os._exit(1)
        self._confinement.before_jobs()
        return False

    def _send(self, message: Message) -> None:
        self._silent = False
        self._control.sendall(encode(message))


class _Inbox:
    """What the daemon sends, read by a thread of its own, so that its going is noticed in the middle of a long run."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._messages: queue.Queue[Message] = queue.Queue(_INBOX_MAX)
        threading.Thread(target=self._read, name="control", daemon=True).start()

    def first(self) -> Begin:
        """Waits until the daemon says so. Does not return if it says something else."""
        message = self._messages.get()
        if not isinstance(message, Begin):
            raise SystemExit(f"{type(message).__name__} came before `Begin`")
        return message

    @property
    def empty(self) -> bool:
        """Whether nothing has come."""
        return self._messages.empty()

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
    if work.calls != job.calls:
        raise RemoteProtocolError(Code.INPUT_MISMATCH, f"{work.calls} inputs came, the order says {job.calls}.")
    return work


def _short(message: str) -> str:
    return message.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fallow-worker")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--bundle", action="append", required=True, metavar="CID")
    parser.add_argument("--max-jobs", type=int, default=4)
    parser.add_argument("--memory-mib", type=int, default=0, help="what a run may take; 0: as `caps.memory_bytes` says")
    parser.add_argument(
        "--compile-s", type=float, default=COMPILE_S_MAX, help="what reading and compiling one may take"
    )
    parser.add_argument("--run-s", type=float, default=RUN_S_MIN, help="what a run may always take")
    parser.add_argument(
        "--batch-unproven", action="store_true", help="slots are taken to be apart on the publisher's word"
    )
    parser.add_argument("--unconfined", action="store_true", help="the owner has turned the sandbox off")
    return parser


if __name__ == "__main__":
    main()

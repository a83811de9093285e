"""The jobs that a worker has: begun when the daemon says so, taking turns, their answers sealed piece by piece."""

from __future__ import annotations

import hmac
import socket
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Final

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
from . import heap
from .areas import Areas
from .confinement import Confinement
from .device import close_cache
from .entries import Run, Step
from .inbox import Inbox
from .messages import (
    AHEAD_PIECES_MAX,
    PAUSE_S_MAX,
    Beat,
    Cancel,
    Cancelled,
    Credit,
    EngineJob,
    EnginePiece,
    Failed,
    Message,
    Pace,
    Ready,
    Sealed,
    Served,
    encode,
)
from .processor import crowded
from .programs import Model
from .sealing import PieceSealer, open_input
from .turns import Task, Turns

FIRST_JOB_S: Final = 1.0
"""A worker that has just become ready gives the first job so long to come before it is busy for half a second at a time."""

CROWD: Final = 10.0
CROWD_S_MAX: Final = 10.0
"""It waits on while more wants to run than there are cores, other workers that start mostly: for so many times as long as its
first programs took to load, at most so many seconds. Four more take the processor as long as another worker's start."""
LOOK_S: Final = 0.5

PATIENCE: Final = 4.0
PATIENCE_S_MAX: Final = 10.0
"""Each program that nobody waits for is loaded this many times later than others kept it from the processor, up to so many
seconds: alone, a worker has all of them within seconds; six on two cores leave most of these to the jobs among them."""

LATE: Final = 10.0
LATE_S_MAX: Final = 30.0
"""Where somebody always waits, the next program is loaded this many times later than the one before took, at most so many
seconds: a tenth of the time goes there, and however busy a worker is, it comes to have all programs and is sealed."""

TRIM_AFTER_S: Final = 2.0
"""Longer than a client thinks between two windows of a text: what is given back has to be paged in again."""


class _Job:
    """One job under way: what seals its answer and passes it on."""

    def __init__(self, job: EngineJob, opened: Input, areas: Areas, send: Callable[[Message], None]) -> None:
        self.id = job.id
        self._area = job.area
        self._areas: Areas | None = areas
        self._send = send
        self._sealer = PieceSealer(opened.reply_secret, job.id)
        self._transcript = transcript_start(opened.salt, job.id)
        self._index = 0

    def give(self, step: Step, ran: frozenset[str]) -> None:
        """The piece is on its way."""
        piece, encoded = step.piece, step.piece.encode()
        self._transcript = transcript_next(self._transcript, encoded)
        sealed, area_bytes = self._sealer.seal(self._index, encoded), 0
        if self._areas and (area_bytes := self._areas.put(self._area, sealed, answer=True)):
            sealed, self._areas = b"", None  # once: who reads it says nothing when it has
        self._send(
            EnginePiece(
                id=self.id,
                index=self._index,
                sealed=sealed,
                tokens=len(piece.values_micro),
                values_micro=piece.values_micro,
                transcript=self._transcript,
                end=step.end,
                gaps_micro=piece.gaps_micro,
                masses_ppm=piece.masses_ppm,
                ran=tuple(sorted(ran)),
                area_bytes=area_bytes,
            )
        )
        self._index += 1

    def fail(self, error: FallowError) -> None:
        """The daemon knows that there is nothing more, and why."""
        self._send(Failed(self.id, error.code.value, short(error.message)))


class Workbench:
    """Jobs take turns; between any two runs the daemon is heard."""

    def __init__(
        self,
        control: socket.socket,
        models: dict[bytes, Model],
        run: Run,
        max_jobs: int,
        confinement: Confinement,
        areas: Areas,
        chores: Iterator[None],
    ) -> None:
        """`chores` come one by one when all programs are loaded, and before nothing may be written any more."""
        self._control = control
        self._areas = areas
        self._models = models
        self._run = run
        self._max_jobs = max_jobs
        self._confinement = confinement
        self._private = X25519PrivateKey.generate()
        self._turns = Turns(models.values())
        self._chores = chores
        self._late = inf
        """When one more program is loaded even if somebody waits."""
        self._tasks: dict[bytes, Task] = {}
        self._silent = True
        self._grown = True
        self._rest = 0.0
        """Seconds of pause for each second of computing."""

    def announce(self, served: tuple[Served, ...]) -> None:
        """The daemon knows our key, what we serve, and what confines us."""
        key = self._private.public_key().public_bytes_raw()
        self._send(Ready(key, served, self._confinement.measures))

    def serve(self, inbox: Inbox, *, patient: bool) -> None:
        """Does not return: the inbox ends the process when the socket closes. `patient`: others that start have the processor
        before the rest of our programs."""
        inbox.wait(FIRST_JOB_S)  # before the rest is loaded: after a yield somebody may be waiting already
        if patient:
            self._wait_in_crowd(inbox)
        self._late = time.monotonic() + LATE * FIRST_JOB_S
        while True:
            self._load_while_idle(inbox)
            if time.monotonic() >= self._late and (took_s := self._load_next()) is not None:
                self._pause(inbox, took_s)
            self._trim_when_idle(inbox)
            for message in inbox.take(wait=not self._turns.waiting):
                self._handle(message)
            self._tasks = {id: task for id, task in self._tasks.items() if task.request is not None}
            self._silent = True
            self._grown |= self._turns.waiting
            began = time.monotonic()
            self._turns.run()
            ran_s = time.monotonic() - began
            if self._silent and self._turns.waiting:
                self._send(Beat())
            self._pause(inbox, ran_s)

    def _wait_in_crowd(self, inbox: Inbox) -> None:
        took_s = sum(model.first_s for model in self._models.values())
        until = time.monotonic() + min(CROWD_S_MAX, CROWD * took_s)
        while inbox.empty and time.monotonic() < until and crowded():
            inbox.wait(LOOK_S)

    def _pause(self, inbox: Inbox, ran_s: float) -> None:
        """After a step or a load that took so long, the accelerator is left alone as long as the pace wants; the daemon is
        heard."""
        began = time.monotonic()
        while (left := began + min(PAUSE_S_MAX, ran_s * self._rest) - time.monotonic()) > 0:
            inbox.wait(left)
            for message in inbox.take(wait=False):
                self._handle(message)

    def _handle(self, message: Message) -> None:
        match message:
            case EngineJob():
                try:
                    self._begin_untrusted(message)
                except FallowError as error:
                    self._send(Failed(message.id, error.code.value, short(error.message)))
            case Pace():
                self._rest = 1_000_000 / message.duty_ppm - 1
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
        sealed = job.sealed or self._areas.take_untrusted(job.area, job.area_bytes, answer=False)
        opened = decode_input_untrusted(open_input(self._private, job.id, sealed))
        work = _checked_work_untrusted(opened, job)
        model, answer = self._models[job.bundle], _Job(job, opened, self._areas, self._send)
        steps = self._run(model.manifest, job.entry, job.parameters, work)
        task = Task(job.client, model, job.parameters, steps, answer.give, answer.fail, AHEAD_PIECES_MAX)
        self._turns.add(task)
        self._tasks[job.id] = task

    def _load_while_idle(self, inbox: Inbox) -> None:
        """Returns when there is something else to do, or nothing more to load."""
        while not self._turns.waiting and inbox.empty:
            own = time.process_time()
            if (took_s := self._load_next()) is None:
                return
            kept_waiting_s = took_s - (time.process_time() - own)
            inbox.wait(min(PATIENCE_S_MAX, PATIENCE * max(0.0, kept_waiting_s)))
            self._pause(inbox, took_s)

    def _trim_when_idle(self, inbox: Inbox) -> None:
        """After jobs, and after loading: once nothing has come for a while, the machine has back what is not used any more."""
        if not self._grown or self._turns.waiting:
            return
        inbox.wait(TRIM_AFTER_S)
        if inbox.empty:
            heap.trim()
            self._grown = False

    def _load_next(self) -> float | None:
        """One more program is loaded, wider or longer ones last, or a chore done: the seconds that it took. After the last,
        nothing is written any more, and this returns None."""
        began = time.monotonic()
        if any(model.load_next() for model in self._models.values()) or next(self._chores, self) is None:
            now = time.monotonic()
            self._late = now + min(LATE_S_MAX, LATE * (now - began))
            return now - began
        self._late = inf
        if self._confinement.before_jobs():
            close_cache()
            self._send(Sealed())
        return None

    def _send(self, message: Message) -> None:
        self._silent = False
        self._control.sendall(encode(message))


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


def short(message: str) -> str:
    """What fits into a message's text."""
    return message.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")

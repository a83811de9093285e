"""A worker that serves, heard word for word until it ends: what it may say then, and how long it may say nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import Final

import trio

from ...protocol.errors import Code, RemoteProtocolError
from ...protocol.limits import PROGRAMS_MAX
from .jobs import Jobs
from .messages import PAUSE_S_MAX, Beat, Cancelled, EnginePiece, Failed, Loading, Message, Overrun, Sealed
from .process import WorkerProcess
from .startup import START_S_MAX

SILENCE_S_MAX: Final = 60.0
"""A worker with work says something after each step, and the longest step, beside busy neighbours, takes seconds."""


LOADS_MAX: Final = PROGRAMS_MAX + 4
"""Of one bundle, by one worker that serves: each program is loaded once, and the first of each role is measured once more."""


@dataclass(frozen=True, slots=True)
class End:
    """How a worker that served has ended."""

    reason: str
    code: Code = Code.WORKER_DIED
    """What its jobs are told."""
    over: bytes | None = None
    """The bundle over which it ended, if it was over one."""
    own_word: bool = False
    """Whether it said so itself."""
    how: str = ""
    """How it came to its end: for the owner, beside the reason."""


class Hearing:
    """One worker that serves these bundles and has these jobs."""

    def __init__(self, process: WorkerProcess, jobs: Jobs, served: frozenset[bytes]) -> None:
        self.sealed = False
        """Whether it has given up writing, by its own account."""
        self.paced = False
        """Whether it pauses between its steps, as we told it to: then it says nothing for longer."""
        self._process = process
        self._jobs = jobs
        self._served = served
        self._scope = trio.CancelScope()
        """Around listening; its deadline is when silence means that the worker hangs."""
        self._loading: bytes | None = None
        """The bundle of which it loads one more program, or measures one."""
        self._loading_since = 0.0
        self._loads = Counter[bytes]()

    async def until_end(self) -> End:
        """Returns why nothing more comes from the worker: it ended, or did what a sound one never does."""
        try:
            with self._scope:
                async for message in self._process:
                    if (end := self._hear_untrusted(message)) is not None:
                        return end
                    self._scope.deadline = inf
                    self.limit()
        except RemoteProtocolError as error:
            code = error.code if error.code is Code.TOO_MANY_STEPS else Code.WORKER_DIED
            return End(f"The worker broke the rules of its socket and was killed. {error.message}", code)
        if self._scope.cancelled_caught:
            return self._hung()
        ended = await self._process.how_it_ended()
        if self._loading is not None:
            return End("it ended while it loaded or measured one of its programs", over=self._loading, how=ended)
        return End(ended)

    def _hung(self) -> End:
        if self._loading is not None:
            hung = f"it said nothing for {START_S_MAX:.0f} s while it loaded or measured one of its programs"
            return End(hung, over=self._loading)
        late = "did not answer for a job" if self._jobs.due <= trio.current_time() else "said nothing"
        return End(f"The worker {late} for {SILENCE_S_MAX:.0f} s or more while it had work, and was killed.")

    def limit(self) -> None:
        """If the worker has something to do or to answer, time runs until its next word. To be called when it gets that."""
        now = trio.current_time()
        if self._loading is not None:
            self._scope.deadline = min(self._scope.deadline, now + START_S_MAX)
        elif self._jobs.working:
            silent_s = SILENCE_S_MAX + PAUSE_S_MAX * self.paced
            self._scope.deadline = min(self._scope.deadline, now + silent_s, self._jobs.due)

    def _hear_untrusted(self, message: Message) -> End | None:
        """Raises `RemoteProtocolError` for a message that does not fit the state of worker and jobs."""
        loading, self._loading = self._loading, None
        if loading is not None:
            self._jobs.postpone(trio.current_time() - self._loading_since)
        match message:
            case Beat() if loading is not None:
                pass
            case Beat():
                self._jobs.beat_untrusted()
            case Loading() if message.bundle in self._served and self._loads[message.bundle] < LOADS_MAX:
                self._loads[message.bundle] += 1
                self._loading, self._loading_since = message.bundle, trio.current_time()
            case Sealed() if not self.sealed:
                self.sealed = True
            case Overrun() if message.bundle == loading or message.bundle in self._jobs.working:
                return End(message.message, over=message.bundle, own_word=True)
            case EnginePiece() | Failed() | Cancelled():
                self._jobs.take_untrusted(message, self._process.areas)
            case _:
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, f"{type(message).__name__} came out of place.")
        return None

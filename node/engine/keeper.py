"""Keeps one worker process running while one is wanted: starts it, passes jobs and pieces, notices its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from types import MappingProxyType
from typing import Final

import trio

from ...protocol.errors import Code, EngineError, RemoteProtocolError
from ...protocol.identity import cid
from ...protocol.limits import BUNDLES_MAX
from .answers import Answer, OpenJob
from .confinement import SEALED
from .messages import (
    Beat,
    Begin,
    Cancel,
    Cancelled,
    Credit,
    EngineJob,
    EnginePiece,
    Failed,
    Fatal,
    KnownRates,
    Loading,
    Message,
    Overrun,
    Rates,
    Ready,
    Sealed,
    Served,
    Unserved,
)
from .process import WorkerProcess
from .sandbox import BUBBLEWRAP
from .spawning import Spawner

START_S_MAX: Final = 300.0
"""For each bundle that is loaded: compiling a large one from scratch beside five that do the same takes a minute or two."""

SPARE_S: Final = 5.0
"""From a worker's being ready to the start of the next: importing its libraries takes a processor for a second."""

SILENCE_S_MAX: Final = 60.0
"""A worker with work says something after each step, and the longest step, beside busy neighbours, takes seconds."""

RESTARTS_MAX: Final = 5
RESTARTS_S: Final = 600.0
"""A worker that dies more often than this is broken, and starting it burns the owner's power for nothing."""


class WorkerEngine:
    """An `Engine` over one worker process at a time. `keep` has to run beside it."""

    def __init__(self, spawner: Spawner, max_jobs: int) -> None:
        self._spawner = spawner
        self._max_jobs = max_jobs
        self._wanted = trio.Event()
        """Set while a worker is to run. `kill` replaces it, so that whoever holds the old one knows it was a kill."""
        self._process: WorkerProcess | None = None
        self._hpke_key = b""
        self._served: dict[bytes, Served] = {}
        self._rates: dict[bytes, Rates] = {}
        """As first measured: a worker that has to be there at once does not measure them again."""
        self._measures: tuple[str, ...] = ()
        self._refused: dict[bytes, EngineError] = {}
        """Never forgotten: what a program did once it does again, and each time costs everybody a restart."""
        self._jobs: dict[bytes, OpenJob] = {}
        self._deaths: deque[tuple[float, frozenset[bytes]]] = deque(maxlen=RESTARTS_MAX)
        """When workers died, and of which bundles they had jobs then."""
        self._at_death: frozenset[bytes] = frozenset()
        self._failure: EngineError | None = None
        self._generation = 0
        self._changed = trio.Event()
        self._silence = trio.CancelScope()
        """Around listening to the worker; its deadline is when silence means that it hangs."""
        self._loading: bytes | None = None
        """The bundle of which the worker loads one more program, while it serves."""

    @property
    def hpke_key(self) -> bytes:
        return self._hpke_key

    @property
    def served(self) -> Mapping[bytes, Served]:
        return MappingProxyType(self._served)

    @property
    def measures(self) -> Sequence[str]:
        return self._measures

    @property
    def refused(self) -> Mapping[bytes, EngineError]:
        return MappingProxyType(self._refused)

    @property
    def free_slots(self) -> int:
        return self._max_jobs - len(self._jobs) if self._served else 0

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def failure(self) -> EngineError | None:
        return self._failure

    async def changed(self, seen: int) -> int:
        while self._generation == seen:
            await self._changed.wait()
        return self._generation

    def submit(self, job: EngineJob) -> Answer:
        if job.bundle in self._refused:
            raise self._refused[job.bundle]
        if not self._process or not self._served:
            raise self._failure or EngineError(Code.WORKER_DIED, "No worker is ready.")
        if job.bundle not in self._served:
            raise EngineError(Code.UNKNOWN_BUNDLE, "The worker does not serve this bundle.")
        if job.id in self._jobs:
            raise EngineError(Code.REPLAYED, "A job of this order is running.")
        if not self.free_slots:
            raise EngineError(Code.BUSY, f"All {self._max_jobs} slots are taken.")
        area = min(set(range(self._max_jobs)) - {each.area for each in self._jobs.values()})
        opened = OpenJob(job.bundle, area, lambda pieces: self._tell(job.id, Credit(job.id, pieces)))
        self._jobs[job.id] = opened
        area_bytes = self._process.areas.put(area, job.sealed, answer=False)
        self._tell(job.id, replace(job, sealed=b"" if area_bytes else job.sealed, area=area, area_bytes=area_bytes))
        return opened.answer

    def cancel(self, job_id: bytes) -> None:
        if (job := self._jobs.get(job_id)) and not job.cancelled:
            job.cancel()
            self._tell(job_id, Cancel(job_id))

    def kill(self) -> None:
        self._wanted = trio.Event()
        self._let_go("The worker was stopped.")
        self._announce()

    async def restart(self) -> None:
        self.kill()
        self._failure = None
        self._deaths.clear()
        wanted = self._wanted
        wanted.set()
        self._announce()
        while not self._served:
            if self._wanted is not wanted:
                raise self._failure or EngineError(Code.WORKER_DIED, "The worker was stopped while it started.")
            await self.changed(self._generation)

    async def keep(self) -> None:
        """Runs a worker whenever one is wanted, until cancelled; leaves none behind."""
        try:
            await self._keep()
        finally:
            await self._spawner.close()

    async def _keep(self) -> None:
        while True:
            await self._until_wanted()
            wanted, refused = self._wanted, len(self._refused)
            try:
                await self._run_worker()
            except EngineError as error:  # it never got ready: what is wrong is wrong again next time
                if self._wanted is wanted and len(self._refused) == refused and not self._spawner.gave_spare:
                    self._give_up(error)
                continue
            if (
                self._wanted is wanted and len(self._refused) == refused
            ):  # else the next worker lacks what killed this one
                self._count_death()

    async def _until_wanted(self) -> None:
        while not self._wanted.is_set():
            await self.changed(self._generation)

    async def _run_worker(self) -> None:
        """Returns when the worker has come and gone; raises `EngineError` if it never got ready."""
        process = await self._spawner.take(self._refused)
        if not self._wanted.is_set():  # the owner came back while a spare that did not fit was being reaped
            return await process.kill_and_reap()
        self._process = process
        reason = "The worker ended by itself."
        try:
            await process.begin(Begin(tuple(KnownRates(bundle, rates) for bundle, rates in self._rates.items())))
            ready = await self._until_ready(process)
            if self._process is process:
                self._hpke_key = ready.hpke_key
                self._measures = (*([BUBBLEWRAP] if process.boxed else []), *ready.measures)
                self._served = {served.bundle: served for served in ready.served}
                self._rates |= {served.bundle: served.rates for served in ready.served}
                self._announce()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._prepare_next)
                    nursery.start_soon(process.write)
                    reason = await self._listen(process)
                    nursery.cancel_scope.cancel()
        finally:
            if self._process is process:
                self._let_go(reason)
                self._announce()
            await process.kill_and_reap()

    async def _prepare_next(self) -> None:
        """The next worker is on its way, but not while this one's first answer needs the processors."""
        await trio.sleep(SPARE_S)
        self._spawner.prepare(self._refused)

    async def _until_ready(self, process: WorkerProcess) -> Ready:
        """What the worker says when it is ready. Raises `EngineError` with what it says, or its log, if it is not.

        A bundle over which it dies, or that takes too long, is refused: then it can be started again without that one.
        """
        loading: bytes | None = None
        try:
            for _ in range(BUNDLES_MAX + 1):
                with trio.move_on_after(START_S_MAX) as waiting:
                    message = await anext(process, None)
                if waiting.cancelled_caught:
                    raise self._blame_untrusted(process, loading, f"It was not ready within {START_S_MAX:.0f} s.")
                match message:
                    case Loading():
                        loading = message.bundle
                    case Ready():
                        if any(each.bundle not in process.bundles for each in message.served):
                            raise RemoteProtocolError(
                                Code.ILLEGAL_MOVE, "A bundle is served that nobody had asked for."
                            )
                        for unserved in message.refused:
                            self._refuse_untrusted(unserved.bundle, _error_untrusted(unserved))
                        return message
                    case Fatal():
                        raise _error_untrusted(message)
                    case Overrun() if message.bundle == loading:
                        raise self._blame_untrusted(process, loading, f"{message.message}.")
                    case None:
                        raise self._blame_untrusted(
                            process, loading, f"It ended before it was ready. {process.last_words()}"
                        )
                    case _:
                        break
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "Something came that has no place before the worker is ready.")
        except RemoteProtocolError as error:
            raise EngineError(Code.WORKER_FAILED, f"The worker began with nonsense. {error.message}") from None

    def _blame_untrusted(self, process: WorkerProcess, loading: bytes | None, why: str) -> EngineError:
        """What to say of a worker that did not get ready; the bundle that it was loading, if any, is refused for it."""
        if loading is None or self._process is not process:  # it had not begun, or we killed it
            return EngineError(Code.WORKER_FAILED, f"The worker did not start. {why}")
        error = EngineError(Code.BUNDLE_REFUSED, f"The worker ended over bundle {cid(loading)}: {why}")
        return self._refuse_untrusted(loading, error)

    def _refuse_untrusted(self, bundle: bytes, error: EngineError) -> EngineError:
        """The bundle is not served again. Raises `RemoteProtocolError` for one that the worker was never given."""
        if self._process and bundle not in self._process.bundles:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A bundle was refused that nobody had asked for.")
        self._refused[bundle] = error
        return error

    def _overran_untrusted(self, overrun: Overrun) -> None:
        """The worker is gone, the bundle's jobs have failed by its fault, and the others' have ended with the worker."""
        why = f"Bundle {self._served[overrun.bundle].name} ({cid(overrun.bundle)}) was stopped: {overrun.message}."
        error = self._refuse_untrusted(overrun.bundle, EngineError(Code.BUNDLE_REFUSED, why))
        for job_id, job in list(self._jobs.items()):
            if job.bundle == overrun.bundle:
                job.fail(error)
                del self._jobs[job_id]
        self._let_go("A program of another bundle broke the rules, and the worker was stopped.")
        self._announce()

    async def _listen(self, process: WorkerProcess) -> str:
        """Returns why nothing more comes from the worker: it ended, or did what a sound one never does."""
        self._silence, self._loading = trio.CancelScope(), None
        try:
            with self._silence:
                async for message in process:
                    if isinstance(message, Overrun) and message.bundle in self._served:
                        self._overran_untrusted(message)
                        break
                    self._handle_untrusted(message)
                    self._loading = message.bundle if isinstance(message, Loading) else None
                    self._silence.deadline = inf
                    self._limit_silence()
        except RemoteProtocolError as error:
            return f"The worker broke the rules of its socket and was killed. {error.message}"
        if self._loading in self._served:  # else it was killed, by us or for what it said
            assert self._loading
            self._overran_untrusted(
                Overrun(self._loading, "the worker hung or ended while it loaded one of its programs")
            )
        if self._silence.cancelled_caught:
            return f"The worker said nothing for {SILENCE_S_MAX:.0f} s while it had work, and was killed."
        return "The worker ended by itself."

    def _handle_untrusted(self, message: Message) -> None:
        """Raises `RemoteProtocolError` for a message that does not fit the state of the jobs."""
        match message:
            case Beat():
                return
            case Loading() if message.bundle in self._served:
                return
            case Sealed() if SEALED not in self._measures:
                self._measures += (SEALED,)
                return
            case EnginePiece() | Failed() | Cancelled() if message.id in self._jobs:
                job = self._jobs[message.id]
            case _:
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, f"{type(message).__name__} came out of place.")
        if isinstance(message, EnginePiece):
            job.add_untrusted(self._whole_untrusted(message, job.area))
            if not message.end:
                return
        elif isinstance(message, Failed):
            job.fail(_error_untrusted(message))
        elif not job.cancelled:
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A job was given up that nobody had cancelled.")
        del self._jobs[message.id]

    def _whole_untrusted(self, piece: EnginePiece, area: int) -> EnginePiece:
        """The piece with what it left in shared memory. Raises `RemoteProtocolError` if there is nothing sealed in it."""
        if bool(piece.sealed) == bool(piece.area_bytes):
            raise RemoteProtocolError(
                Code.BAD_RECORD, "A piece lies in its message or in memory, and in one of them only."
            )
        if not piece.area_bytes or not self._process:
            return piece
        sealed = self._process.areas.take_untrusted(area, piece.area_bytes, answer=True)
        return replace(piece, sealed=sealed, area_bytes=0)

    def _tell(self, job_id: bytes, message: EngineJob | Credit | Cancel) -> None:
        if self._process and job_id in self._jobs:
            self._process.send(message)
            self._limit_silence()

    def _limit_silence(self) -> None:
        """If the worker has something to do or to answer, time runs until its next word."""
        if self._loading or any(job.awaits_word for job in self._jobs.values()):
            most = START_S_MAX if self._loading else SILENCE_S_MAX
            self._silence.deadline = min(self._silence.deadline, trio.current_time() + most)

    def _let_go(self, reason: str) -> None:
        """The worker is dead to everybody: it has SIGKILL, its jobs have failed, its key and offers are gone."""
        if not self._process:
            return
        self._process.kill()
        self._process, self._hpke_key, self._served = None, b"", {}
        jobs, self._jobs = self._jobs, {}
        self._at_death = frozenset(job.bundle for job in jobs.values())
        for job in jobs.values():
            job.fail(EngineError(Code.WORKER_DIED, reason))

    def _count_death(self) -> None:
        """After too many deaths the one bundle that had a job at each is refused, if there are others; else all is given up."""
        now, before = trio.current_time(), list(self._deaths)
        self._deaths.append((now, self._at_death))
        if len(before) < RESTARTS_MAX or now - before[0][0] >= RESTARTS_S:
            return
        died = f"The worker died {RESTARTS_MAX + 1} times within {RESTARTS_S / 60:.0f} minutes"
        suspects = self._at_death.intersection(*(bundles for _, bundles in before))
        if len(suspects) == 1 and len(self._rates) > len(self._refused) + 1:
            (bundle,) = suspects
            self._refused[bundle] = EngineError(
                Code.BUNDLE_REFUSED, f"{died}, each time with a job of bundle {cid(bundle)}: it is not served again."
            )
            self._deaths.clear()
        else:
            self._give_up(EngineError(Code.WORKER_FAILED, f"{died}; it is not started again."))

    def _give_up(self, error: EngineError) -> None:
        self._failure = error
        self._wanted = trio.Event()
        self._announce()

    def _announce(self) -> None:
        self._generation += 1
        self._changed.set()
        self._changed = trio.Event()


def _error_untrusted(message: Failed | Fatal | Unserved) -> EngineError:
    try:
        return EngineError(Code(message.code), message.message)
    except ValueError:
        raise RemoteProtocolError(Code.BAD_RECORD, f"{message.code!r} is not a code.") from None

"""Keeps one worker process running while one is wanted: starts it, gives it jobs, and starts another when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Final

import trio

from ...protocol.errors import Code, EngineError
from ...protocol.identity import cid
from .answers import Answer
from .blame import TERM_S, Blame, term_s
from .cgroup import CGROUP
from .confinement import SEALED
from .ended import Ended
from .hearing import End, Hearing
from .jobs import Jobs
from .messages import DUTY_PPM_MIN, Begin, Cancel, Credit, EngineJob, KnownRates, Pace, Rates, Served
from .process import WorkerProcess
from .sandbox import BUBBLEWRAP
from .spawning import Spawner
from .startup import until_ready

SPARE_S: Final = 5.0
"""From a worker's being ready to the start of the next: importing its libraries takes a processor for a second."""


class WorkerEngine:
    """An `Engine` over one worker process at a time. `keep` has to run beside it."""

    def __init__(self, spawner: Spawner, max_jobs: int) -> None:
        self._spawner = spawner
        self._wanted = trio.Event()
        """Set while a worker is to run. `kill` replaces it, so that whoever holds the old one knows it was a kill."""
        self._process: WorkerProcess | None = None
        self._hearing: Hearing | None = None
        self._hpke_key = b""
        self._loading: bytes | None = None
        self._served: dict[bytes, Served] = {}
        self._rates: dict[bytes, Rates] = {}
        """As last said: a worker that has to be there at once does not measure them before it serves."""
        self._measures: tuple[str, ...] = ()
        self._jobs = Jobs(max_jobs)
        self._blame = Blame()
        self._at_death: tuple[frozenset[bytes], frozenset[bytes]] = frozenset(), frozenset()
        """The bundles of which the last worker had jobs, and those that it served, when it went."""
        self._failure: EngineError | None = None
        self._ended: Ended | None = None
        self._rests_until = inf
        """When a worker is started again after a failure."""
        self._failures = 0
        self._pace = Pace(1_000_000)
        self._generation = 0
        self._changed = trio.Event()

    @property
    def hpke_key(self) -> bytes:
        return self._hpke_key

    @property
    def loading(self) -> bytes | None:
        return self._loading

    @property
    def served(self) -> Mapping[bytes, Served]:
        return MappingProxyType(self._served)

    @property
    def measures(self) -> Sequence[str]:
        return (*self._measures, *([SEALED] if self._hearing and self._hearing.sealed else []))

    @property
    def refused(self) -> Mapping[bytes, EngineError]:
        return self._blame.refused

    @property
    def free_slots(self) -> int:
        return self._jobs.most - len(self._jobs) if self._served else 0

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def failure(self) -> EngineError | None:
        return self._failure

    @property
    def ended(self) -> Ended | None:
        return self._ended

    async def changed(self, seen: int) -> int:
        while self._generation == seen:
            await self._changed.wait()
        return self._generation

    def submit(self, job: EngineJob) -> Answer:
        if job.bundle in self.refused:
            raise self.refused[job.bundle]
        if not self._process or not self._served:
            raise self._failure or EngineError(Code.WORKER_DIED, "No worker is ready.")
        if job.bundle not in self._served:
            raise EngineError(Code.UNKNOWN_BUNDLE, "The worker does not serve this bundle.")
        if job.id in self._jobs:
            raise EngineError(Code.REPLAYED, "A job of this order is running.")
        if not self.free_slots:
            raise EngineError(Code.BUSY, f"All {self._jobs.most} slots are taken.")
        return self._jobs.open(job, self._process.areas, self._tell)

    def cancel(self, job_id: bytes) -> None:
        self._jobs.cancel(job_id, self._tell)

    def pace(self, duty: float) -> None:
        self._pace = Pace(round(1_000_000 * min(1.0, max(DUTY_PPM_MIN / 1_000_000, duty))))
        if self._hearing:
            self._hearing.paced = self._pace.duty_ppm < 1_000_000
        self._tell(self._pace)

    def kill(self) -> None:
        self._wanted = trio.Event()
        self._rests_until = inf
        self._ended = None
        self._let_go(EngineError(Code.WORKER_DIED, "The worker was stopped."))
        self._announce()

    async def restart(self) -> None:
        self.kill()
        self._failure, self._failures = None, 0
        self._blame.forget_deaths()
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
            while True:
                await self._until_wanted()
                await self._keep_one()
        finally:
            await self._spawner.close()

    async def _keep_one(self) -> None:
        """One worker has come and gone, and what follows from its end is decided."""
        wanted, accusations = self._wanted, self._blame.accusations
        try:
            await self._run_worker()
        except EngineError as error:  # it never got ready
            if self._wanted is not wanted:  # we stopped it
                return
            # What is wrong is wrong again next time, unless that one differs.
            if self._blame.accusations == accusations and not self._spawner.gave_spare:
                self._give_up(error)
            self._tell_owner(error.code, error.message, jobs=0)

    async def _until_wanted(self) -> None:
        while not self._wanted.is_set():
            with trio.move_on_at(self._rests_until):
                await self.changed(self._generation)
            if trio.current_time() >= self._rests_until:
                self._rests_until, self._failure, self._ended = inf, None, None
                self._wanted.set()
                self._announce()

    async def _run_worker(self) -> None:
        """Returns when the worker has come and gone; raises `EngineError` if it never got ready."""
        process = await self._spawner.take(self._blame)
        if not self._wanted.is_set():  # the owner came back while a spare that did not fit was being reaped
            return await process.kill_and_reap()
        self._process = process
        try:
            await process.begin(Begin(tuple(KnownRates(bundle, rates) for bundle, rates in self._rates.items())))
            ready = await until_ready(
                process,
                self._blame,
                lambda: self._process is not process,
                self._begin_loading,
                spare=self._spawner.gave_spare,
            )
            self._loading = None
            if self._process is process:
                self._hpke_key = ready.hpke_key
                around = [BUBBLEWRAP] * process.boxed + [CGROUP] * process.bounded
                self._measures = (*around, *ready.measures)
                self._served = {served.bundle: served for served in ready.served}
                self._rates |= {served.bundle: served.rates for served in ready.served}
                self._blame.served(self._served)
                self._hearing = Hearing(process, self._jobs, frozenset(self._served))
                if self._pace.duty_ppm < 1_000_000:
                    self._hearing.paced = True
                    process.send(self._pace)
                self._announce()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._start_next)
                    nursery.start_soon(process.write)
                    self._conclude(await self._hearing.until_end(), process)
                    nursery.cancel_scope.cancel()
        finally:
            self._loading = None
            if self._process is process:
                self._let_go(EngineError(Code.WORKER_DIED, "The worker did not get ready."))
            await process.kill_and_reap()

    def _begin_loading(self, bundle: bytes) -> None:
        self._loading = bundle

    async def _start_next(self) -> None:
        """The next worker is on its way, but not while this one's first answer needs the processors."""
        await trio.sleep(SPARE_S)
        self._spawner.start_spare(self._blame)

    def _conclude(self, end: End, process: WorkerProcess) -> None:
        """The worker that has ended is let go, each of its jobs knows why, and what follows is decided. At once: nobody finds
        it in between."""
        if self._process is not process:  # we killed it, whatever it was at
            return
        jobs, refusals = len(self._jobs), self._blame.refusals
        error = for_jobs = EngineError(end.code, end.reason)
        if end.over is not None:
            what = f"Bundle {self._served[end.over].name} ({cid(end.over)}) was stopped: {end.reason}."
            error = for_jobs = self._blame.ended_over(
                end.over, what, believed=end.own_word and process.bundles == (end.over,)
            )
            if error.code is Code.BUNDLE_REFUSED:
                self._jobs.fail(error, end.over)
                reason = "A program of another bundle broke the rules, and the worker was stopped."
                for_jobs = EngineError(Code.WORKER_DIED, reason)
        self._let_go(for_jobs)
        worn = None
        if self._blame.refusals == refusals:  # else the next one lacks what killed this one
            worn = self._blame.died(*self._at_death)
        if worn is not None:
            self._give_up(worn)
        words = (error.message, end.how, process.log.last_words(), worn.message if worn else "")
        self._tell_owner(error.code, " ".join(filter(None, words)), jobs)

    def _tell(self, message: EngineJob | Credit | Cancel | Pace) -> None:
        if self._process and self._hearing:
            self._process.send(message)
            self._hearing.limit()

    def _let_go(self, why: EngineError) -> None:
        """The worker is dead to everybody: it has SIGKILL, its jobs have failed, its key and offers are gone."""
        if not self._process:
            return
        self._process.kill()
        self._at_death = self._jobs.bundles, frozenset(self._served)
        self._measures = tuple(self.measures)
        self._process, self._hearing, self._hpke_key, self._served = None, None, b"", {}
        self._jobs.fail(why)

    def _give_up(self, error: EngineError) -> None:
        """No worker runs for a term, or until those bundles may be served again of which none was left."""
        self._rests_until = trio.current_time() + term_s(self._failures)
        self._failures += 1
        if error.code is Code.BUNDLE_REFUSED:
            self._rests_until = max(self._blame.until_any(), trio.current_time() + TERM_S)
        self._failure = error
        self._wanted = trio.Event()

    def _tell_owner(self, code: Code, what: str, jobs: int) -> None:
        """How a worker ended that nobody had stopped is there to be read, and what was decided since."""
        self._ended = Ended(code, what, jobs, self._next(), trio.current_time())
        self._announce()

    def _next(self) -> str:
        if self._failure is None:
            return "Another one is started at once."
        by_owner = "when the machine is withheld and lent again, or the node is started again"
        if self._rests_until == inf:
            return f"Another one is started only {by_owner}."
        minutes = (self._rests_until - trio.current_time()) / 60
        return f"Another one is started in {minutes:.0f} minutes; sooner {by_owner}."

    def _announce(self) -> None:
        self._generation += 1
        self._changed.set()
        self._changed = trio.Event()

"""The seam to the worker: one call to submit a job, one to take the machine back. What the daemon imports; no JAX.

kill() -----------------------> down: nothing runs, nothing is held         from any state, at once
restart() --------------------> starting -> up, with a new key              from any state
the worker dies or misbehaves -> starting -> up, with a new key             a bounded number of times
a bundle is the cause of it ----> starting -> up, without that bundle       for a term, or for good
it does not start, or dies too often -> down, and `failure` says why        until restart(), or for a term
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import trio

from ...protocol.errors import EngineError
from .answers import Answer
from .bundles import BundleStore
from .cgroup import ground
from .ended import Ended
from .keeper import WorkerEngine
from .messages import EngineJob, Served
from .sandbox import Policy, bubblewrap
from .spawning import Spawner, worker_command


class Engine(Protocol):
    """What the daemon needs of an engine. Everything but `restart` and `changed` returns at once."""

    @property
    def hpke_key(self) -> bytes:
        """The X25519 key of the worker that now runs, to seal inputs to; empty while none is ready."""
        ...

    @property
    def loading(self) -> bytes | None:
        """The bundle that a worker which starts is loading, by the hash in its CID."""
        ...

    @property
    def served(self) -> Mapping[bytes, Served]:
        """What the worker offers, by the hash in the bundle's CID; empty while none is ready."""
        ...

    @property
    def measures(self) -> Sequence[str]:
        """What confines the worker that now runs, or ran last, by `confinement.MEASURES`' names, `BUBBLEWRAP` and
        `CGROUP`."""
        ...

    @property
    def refused(self) -> Mapping[bytes, EngineError]:
        """Why a bundle is not served, until it is again, by the hash in its CID. See `blame`."""
        ...

    @property
    def free_slots(self) -> int:
        """Jobs that `submit` would take now. A cancelled job's slot is free when the worker has stopped it."""
        ...

    @property
    def generation(self) -> int:
        """Counts each time a worker became ready, went away or was given up: read key and offers afresh then."""
        ...

    @property
    def failure(self) -> EngineError | None:
        """Why no worker runs and none will until `restart`, if that is so."""
        ...

    @property
    def ended(self) -> Ended | None:
        """How the worker before this one ended, or why it never got ready, and what followed; None if `kill` stopped it."""
        ...

    def submit(self, job: EngineJob) -> Answer:
        """The job is on its way to the worker; iterate the answer for its pieces.

        Raises `EngineError`: the one in `refused`, `worker_died` (or `failure`) while no worker is ready, `unknown_bundle`,
        `busy` without a free slot, `replayed` if a job with this id is open. What only the worker can tell comes from
        the answer.
        """
        ...

    def cancel(self, job_id: bytes) -> None:
        """The job ends within one step and its answer yields nothing more; of no effect on a job that has ended."""
        ...

    def pace(self, duty: float) -> None:
        """This worker and those after it compute for this share of the time, 1 being all of it; at least `DUTY_PPM_MIN`."""
        ...

    def kill(self) -> None:
        """The worker has got SIGKILL. Open jobs end with `EngineError(worker_died)`; none runs until `restart`."""
        ...

    async def restart(self) -> None:
        """A fresh worker is ready, with a new key. Raises `EngineError` if it does not start or is killed meanwhile."""
        ...

    async def changed(self, seen: int) -> int:
        """Returns `generation` as soon as it differs from `seen`."""
        ...


@asynccontextmanager
async def open_engine(
    store: BundleStore,
    cids: Sequence[str],
    *,
    log_path: Path,
    max_jobs: int = 4,
    command: Sequence[str] | None = None,
    policy: Callable[[], Policy] = lambda: Policy.PREFERRED,
    spare: bool = False,
    options: Sequence[str] = (),
    start: bool = True,
) -> AsyncIterator[Engine]:
    """A worker is ready and serves the bundles; when the block ends it is dead and reaped.

    Without `start` none runs yet: `restart` starts the first one, too.

    With `spare` the next worker is always started ahead of its time. `options` are further arguments of the worker.
    `cids` is read anew for each worker: what is appended to it meanwhile is served from the next `restart` on.
    `command` starts another worker than `worker_command()`; it gets the same arguments appended. The worker's standard
    output and error go to the end of `log_path`. Raises `EngineError` if it does not start: with the code that it gave
    (`bundle_not_built`, `corrupt_chunk`), else `worker_failed` with the last line of its log; `sandbox_missing` if
    `policy`, asked anew for each worker, requires a sandbox and none can be made here.
    """
    words = [*(command or worker_command()), *options]
    spawner = Spawner(words, log_path, store, cids, policy, max_jobs, spare=spare)
    await trio.to_thread.run_sync(bubblewrap)  # found out once, by a process that takes a moment
    await trio.to_thread.run_sync(ground)
    try:
        async with trio.open_nursery() as nursery:
            engine = WorkerEngine(spawner, max_jobs)
            nursery.start_soon(engine.keep)
            if start:
                await engine.restart()
            yield engine
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:  # the block's own error, which callers expect as it was raised
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise

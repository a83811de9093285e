"""Where workers come from: each is started for the bundles that are left to serve, and the next one ahead of its time.

A spare has imported its libraries, which takes longer than anything else at a start, and waits for `Begin`. It has no model, no
accelerator and no work, and costs no processor time; so it may stay while the owner uses the machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from ...protocol.errors import Code, EngineError, FallowError, RemoteProtocolError, StoreError
from ...protocol.identity import cid_hash_untrusted
from . import cgroup, kernels
from .blame import Blame
from .bundles import BundleStore
from .confinement import memory_bytes
from .process import WorkerProcess
from .sandbox import Box, Policy, bubblewrap


class Spawner:
    """Starts the workers of one engine. `cids` and `policy` are read anew for each."""

    def __init__(
        self,
        command: Sequence[str],
        log_path: Path,
        store: BundleStore,
        cids: Sequence[str],
        policy: Callable[[], Policy],
        max_jobs: int,
        *,
        spare: bool,
    ) -> None:
        self._command = command
        self._log_path = log_path
        self._store = store
        self._cids = cids
        self._policy = policy
        self._max_jobs = max_jobs
        self._keeps_spare = spare
        self._spare: WorkerProcess | None = None
        self.gave_spare = False
        """Whether the worker that was taken last had waited: what befell it meanwhile says nothing of the next one."""

    async def take(self, blame: Blame) -> WorkerProcess:
        """A worker for every bundle that is not left out, which waits for `Begin`: the spare, if it fits.

        Raises `EngineError`: `bundle_refused` if none is left, `sandbox_missing`, or `worker_failed` if none can be started.
        """
        left = blame.left(self._cids)
        spare, self._spare = self._spare, None
        self.gave_spare = bool(spare and spare.bundles == _hashes(left) and spare.alive)
        if spare and self.gave_spare:
            return spare
        if spare:
            await spare.kill_and_reap()
        await trio.to_thread.run_sync(_build_kernels, self._store, left)
        return self._start(left)

    def start_spare(self, blame: Blame) -> None:
        """The next worker is on its way. That it cannot be started is said when it is needed."""
        if self._keeps_spare and self._spare is None:
            with suppress(FallowError):
                self._spare = self._start(blame.left(self._cids))

    async def close(self) -> None:
        """The spare is gone."""
        if self._spare:
            await self._spare.kill_and_reap()

    def _start(self, cids: Sequence[str]) -> WorkerProcess:
        policy = self._policy()
        words = [*self._command, "--store", str(self._store.root.resolve())]
        words += ["--unconfined"] if policy is Policy.OFF else []
        for cid in cids:
            words += ["--bundle", cid]
        box = _box(self._store, cids, policy)
        group = _group(self._store, cids, self._max_jobs) if policy is not Policy.OFF else None
        return WorkerProcess(words, self._log_path, box, _hashes(cids), self._max_jobs, group)


def worker_command() -> list[str]:
    """How the worker is started: by this interpreter, with nothing of the current directory on its path."""
    return [sys.executable, "-P", "-m", f"{__package__}.worker"]


def _build_kernels(store: BundleStore, cids: Sequence[str]) -> None:
    """The kernels that these bundles call are compiled, where that can be done; the worker says what it cannot run."""
    for cid in cids:
        with suppress(EngineError, StoreError, RemoteProtocolError, OSError):
            kernels.prepare(store.open(cid), store.compile_cache)


def _hashes(cids: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(map(cid_hash_untrusted, cids))


def _box(store: BundleStore, cids: Sequence[str], policy: Policy) -> Box | None:
    """What the worker is started in: it sees the bundles that it serves, and writes nothing but what it compiles."""
    found = bubblewrap() if policy is not Policy.OFF else None
    if not found:
        if policy is Policy.REQUIRED:
            raise EngineError(Code.SANDBOX_MISSING, f"No worker is started without a sandbox: {bubblewrap().why_not}")
        return None
    root = store.root.resolve()
    reads = (store.compile_cache.resolve(), *(root / "bundles" / cid for cid in cids))
    return Box(found.path, reads, (store.worker_cache(cids).resolve(),))


def _group(store: BundleStore, cids: Sequence[str], jobs: int) -> cgroup.Group | None:
    """What the worker is put into, if it can be bounded so: room for its bundles, as its own limit has it."""
    if not cgroup.ground().controllers:
        return None
    manifests = []  # of what is not here, the worker says so itself
    for cid in cids:
        with suppress(StoreError, RemoteProtocolError, OSError):
            manifests.append(store.open(cid).manifest)
    return cgroup.make(cgroup.ground(), cgroup.bounds(memory_bytes(manifests, jobs)))

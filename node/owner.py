"""The owner's wishes carried out: the machine given back at once, and lent again when it may be.

The offer follows the worker: a new worker has a new key, and with it begins a new offer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from ..protocol.errors import EngineError
from ..protocol.limits import WORKER_KEY_MS_MAX
from .availability import Availability
from .engine.ended import Ended
from .engine.engine import Engine
from .log import EventLog, wall_ms
from .presence import Presence
from .profiles import Offer
from .rules.policy import OWNER
from .serving import Executor

KEY_MS: Final = WORKER_KEY_MS_MAX * 3 // 4
"""Age of a worker's key at which no more orders are taken for it; the longest job still ends before the key does."""

STOPPING: Final = "the node is being stopped"
"""All that others learn is this, or that the owner needs the machine: not who, nor what for, nor by which rule."""


class Keeper:
    """Keeps worker, offer and state as the owner wishes."""

    def __init__(
        self, engine: Engine, availability: Availability, executor: Executor, presence: Presence,
        make_offer: Callable[[], Offer], log: EventLog,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._availability = availability
        self._executor = executor
        self._presence = presence
        self._make_offer = make_offer
        self._log = log
        self._left, self._lent, self._returned = trio.Event(), trio.Event(), trio.Event()
        self._followed = b""
        """The key of the worker that is on offer; none: empty."""
        self.last_end: Ended | None = None
        """How a worker last ended that nobody had stopped."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled; started once the first offer stands."""
        self._follow_worker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_worker)
            nursery.start_soon(self._start_when_lent)
            nursery.start_soon(self._hand_back_when_told)
            nursery.start_soon(self._replace_old_worker)
            task_status.started()

    def take_back(self) -> None:
        """The machine is the owner's: the worker got SIGKILL before anything else, and every job has been told.

        What is left to do for those is done as soon as others have their turn; `handed_back` waits for it.
        """
        self._engine.kill()
        self._withdraw()
        self._executor.tell(OWNER)
        self._left.set()

    def lend(self) -> None:
        """A worker starts, if one may run now; if jobs are still being handed back, when that is done."""
        self._lent.set()

    async def handed_back(self) -> None:
        """No job is open that was told to end."""
        while self._availability.yielding:
            await self._returned.wait()

    async def replace_worker(self) -> None:
        """A new worker takes over from this one, whose last job has ended; or will when the owner lends the machine again."""
        self._availability.worker(False, "the worker is being replaced")
        self._withdraw()
        await self._executor.until_idle()
        if self._availability.wants_worker:
            await self._restart()

    async def stop(self) -> None:
        """The machine is the owner's, and the node is about to end."""
        self._availability.stop()
        self._engine.kill()
        self._withdraw()
        await self._hand_back(STOPPING)

    async def _hand_back_when_told(self) -> None:
        while True:
            await self._left.wait()
            self._left = trio.Event()
            await self._hand_back(OWNER)

    async def _hand_back(self, reason: str) -> None:
        began = trio.current_time()
        await self._executor.hand_back(reason)
        self._availability.yielded()
        self._returned.set()
        self._returned = trio.Event()
        self._log.write("yielded", reason=reason, took_ms=round((trio.current_time() - began) * 1000))
        self._lent.set()  # it may have been lent again while jobs were still being handed back

    def _withdraw(self) -> None:
        self._executor.offer = None
        self._presence.renew(None)

    def _follow_worker(self) -> None:
        """Offer and state are those of the worker that is there now, or of none."""
        key, ended = self._engine.hpke_key, self._engine.ended
        self._availability.worker(bool(key), f"there is no worker: {ended.what} {ended.next}" if ended else "")
        if ended is not None and ended is not self.last_end:
            self.last_end = ended
            self._log.write("worker_gone", code=ended.code, why=ended.what, kept=ended.kept, next=ended.next)
        elif self._followed and not key:
            self._log_stop()
        self._followed = key
        if key:
            self._executor.offer = self._make_offer()
            self._presence.renew(self._executor.offer)
            self._log.write("worker_ready")
        else:
            self._withdraw()

    def _log_stop(self) -> None:
        lent = self._availability.wants_worker
        why = "a fresh one takes over" if lent else "; ".join(self._availability.withheld or self._availability.reasons)
        following = "Another one is started at once." if lent else "Another one is started when the machine is lent."
        kept = "Jobs that were under way end with a receipt for what was done."
        self._log.write("worker_gone", code="", why=f"The worker was stopped: {why}.", kept=kept, next=following)

    async def _watch_worker(self) -> None:
        while True:
            await self._engine.changed(self._engine.generation)
            self._follow_worker()

    async def _start_when_lent(self) -> None:
        while True:
            await self._lent.wait()
            self._lent = trio.Event()
            if self._availability.wants_worker and not self._engine.served:
                await self._restart()

    async def _replace_old_worker(self) -> None:
        """No worker key gets older than it may: its worker is replaced when its last job has ended."""
        while True:
            offer = self._executor.offer
            age_ms = wall_ms() - offer.worker_key.record.not_before_ms if offer else 0
            await trio.sleep(max(0, KEY_MS - age_ms) / 1000)
            if offer is not None and self._executor.offer is offer:
                await self.replace_worker()

    async def _restart(self) -> None:
        with suppress(EngineError):  # which is in the log: by then the engine says what became of the worker
            await self._engine.restart()

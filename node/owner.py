"""The owner's wishes carried out: the machine given back at once, and lent again when it may be.

The offer follows the worker: a new worker has a new key, and with it begins a new offer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from ..protocol.errors import EngineError
from ..protocol.limits import WORKER_KEY_MS_MAX
from .availability import Availability
from .delivery import now_ms
from .engine.engine import Engine
from .log import EventLog, wall_ms
from .presence import Presence
from .profiles import Offer
from .serving import Executor

KEY_MS: Final = WORKER_KEY_MS_MAX * 3 // 4
"""Age of a worker's key at which no more orders are taken for it; the longest job still ends before the key does."""

OWNER, STOPPING = "the owner needs the machine", "the node is being stopped"
RULES = "the owner's rules do not allow it now"
"""All that others learn: not who, nor what for."""


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
        self._parked = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled; started once the first offer stands."""
        self._availability.start()
        self._follow_worker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_worker)
            nursery.start_soon(self._come_back)
            nursery.start_soon(self._replace_old_worker)
            task_status.started()

    async def drive(self) -> None:
        """The machine is the owner's: the worker got SIGKILL before anything else, and every job was handed back."""
        if self._availability.parked:
            self._availability.drive(OWNER)
            await self._give_back(OWNER)

    async def withhold(self, reason: str) -> None:
        """A rule of the owner's keeps the machine from being lent, as urgently as the owner; no reason: none does any more."""
        before = self._availability.withheld
        self._availability.withhold(reason)
        if reason and not before:
            await self._give_back(RULES)
        elif before and not reason:
            self._follow_worker()
            self._parked.set()

    def park(self) -> None:
        """The machine may be lent again, once it has been parked for long enough."""
        self._availability.park(now_ms())
        self._log.write("parked")
        self._parked.set()

    async def replace_worker(self) -> None:
        """A new worker takes over from this one, whose last job has ended; or will when the owner lends the machine again."""
        self._availability.worker(False, "the worker is being replaced")
        self._withdraw()
        await self._executor.until_idle()
        if self._availability.wants_worker(now_ms()):
            await self._restart()

    async def stop(self) -> None:
        """The machine is the owner's, and the node is about to end."""
        self._availability.stop()
        await self._give_back(STOPPING)

    async def _give_back(self, reason: str) -> None:
        began = trio.current_time()
        self._engine.kill()
        self._withdraw()
        await self._executor.hand_back(reason)
        self._availability.yielded()
        self._log.write("yielded", reason=reason, took_ms=round((trio.current_time() - began) * 1000))
        if self._availability.parked:  # said while jobs were still being handed back
            self._parked.set()

    def _withdraw(self) -> None:
        self._executor.offer = None
        self._presence.renew(None)

    def _follow_worker(self) -> None:
        """Offer and state are those of the worker that is there now, or of none."""
        ready = bool(self._engine.served)
        failure = self._engine.failure
        self._availability.worker(ready, failure.message if failure else "")
        if ready:
            self._executor.offer = self._make_offer()
            self._presence.renew(self._executor.offer)
            self._log.write("worker_ready")
        else:
            self._withdraw()
            self._log.write("worker_gone", why=failure.message if failure else "")

    async def _watch_worker(self) -> None:
        while True:
            await self._engine.changed(self._engine.generation)
            self._follow_worker()

    async def _come_back(self) -> None:
        """A worker runs again after the machine was parked for long enough."""
        while True:
            await self._parked.wait()
            self._parked = trio.Event()
            await trio.sleep_until((self._availability.settled_ms + 1) / 1000)
            # Not if the owner came back meanwhile; then the next parking waits here again.
            if self._availability.wants_worker(now_ms()) and not self._engine.served:
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
        try:
            await self._engine.restart()
        except EngineError as error:
            self._log.write("worker_failed", code=error.code, why=error.message)

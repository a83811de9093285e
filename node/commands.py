"""The owner's commands, from the moment on that the node is in the mesh: also before its first bundle is there, and loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio

from ..protocol.errors import EngineError
from ..protocol.identity import cid, peer_id
from . import control
from .availability import Availability
from .delivery import now_ms
from .engine.bundles import Bundle
from .engine.engine import Engine
from .library import Library
from .network.seam import Network, Reachability
from .owner import OWNER, Keeper


class Commands:
    """Carries them out: by itself until there is a `keeper`, which needs a worker's offer to begin with."""

    def __init__(
        self, network: Network, library: Library, bundles: Sequence[Bundle], availability: Availability
    ) -> None:
        self.keeper: Keeper | None = None
        self._network = network
        self._library = library
        self._bundles = bundles
        self._availability = availability
        self._engine: Engine | None = None
        self._drives = 0
        self._parked = trio.Event()

    async def start_worker(self, engine: Engine) -> None:
        """The first worker is ready, as soon as the owner lets it be. Raises `EngineError` if it cannot be started."""
        self._engine = engine
        while True:
            while not self._availability.wants_worker(now_ms()):
                await self._parked.wait()
                await trio.sleep_until((self._availability.settled_ms + 1) / 1000)
            drives = self._drives
            try:
                return await engine.restart()
            except EngineError:
                if self._drives == drives:
                    raise

    async def answer(self, command: str) -> control.Reply:
        """The command is carried out; what the node then says of itself."""
        if command == control.DRIVE:
            await self._drive()
        elif command == control.PARK:
            self._park()
        return self._status()

    async def _drive(self) -> None:
        if self.keeper:
            return await self.keeper.drive()
        self._drives += 1
        self._parked = trio.Event()
        self._availability.drive(OWNER)
        if self._engine:
            self._engine.kill()
        self._availability.yielded()

    def _park(self) -> None:
        if self.keeper:
            return self.keeper.park()
        self._availability.park(now_ms())
        self._parked.set()

    def _status(self) -> control.Reply:
        if self.keeper is None:
            self._availability.worker(False, self._doing())
        now, engine = now_ms(), self._engine
        return {
            "peer_id": peer_id(self._network.key),
            "pid": os.getpid(),
            "state": str(self._availability.state(now)),
            "reasons": list(self._availability.reasons(now)),
            "jobs_running": self._availability.jobs,
            "addresses": list(self._network.addresses()),
            "peers": len(self._network.peers()),
            **_reached(self._network.reachability()),
            "bundles": [bundle.manifest.name for bundle in self._bundles],
            "refused": [f"{cid(bundle)}: {error.message}" for bundle, error in engine.refused.items()]
            if engine
            else [],
            "sandbox": list(engine.measures if engine else ()) or ["none"],
            "fetching": [f"{name}: {stage}" for name, stage in self._library.missing.items()],
        }

    def _doing(self) -> str:
        """What there is to wait for before the first worker is ready."""
        if self._engine is None:
            return "no bundle is here yet"
        names = {bundle.hash: bundle.manifest.name for bundle in self._bundles}
        return f"loading {names[self._engine.loading]}" if self._engine.loading in names else ""


def _reached(found: Reachability) -> control.Reply:
    return {
        "reach": "relayed" if found.relayed else "direct",
        "dialled_back": {None: "not asked", True: "yes", False: "no"}[found.dialled],
        "relays": [peer_id(relay) for relay in found.relays],
        "relays_why": found.why,
        "relay_reservations": found.relays_for,
        "relay_circuits": found.circuits,
    }

"""The owner's commands, from the moment on that the node is in the mesh: also before its first bundle is there, and loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

import trio

from ..protocol.errors import Code, ConfigError, EngineError
from ..protocol.identity import cid, peer_id
from . import control
from .availability import Availability
from .config import Config
from .connection import Survey
from .engine.bundles import Bundle
from .engine.engine import Engine
from .lending import Lending
from .library import Library
from .network.seam import Network, Reachability
from .owner import Keeper
from .purse import in_words, purse
from .recording import Recorder
from .rules.hours import span
from .starlink import dish_status
from .words import budget_in_words, next_in_words, now_in_words, said, temperature_in_words


class Commands:
    """Carries them out: by itself until there is a keeper, which needs a worker's offer to begin with."""

    def __init__(
        self, config: Config, network: Network, library: Library, bundles: Sequence[Bundle], availability: Availability,
        lending: Lending, recorder: Recorder,
    ) -> None:  # fmt: skip
        self._keeper: Keeper | None = None
        self._survey: Survey | None = None
        self._config = config
        self._network = network
        self._library = library
        self._bundles = bundles
        self._availability = availability
        self._lending = lending
        self._recorder = recorder
        self._purse = purse(config.state)
        self.page = ""
        """The address of the owner's page, if there is one."""
        self._engine: Engine | None = None
        self._left = 0
        self._lent = trio.Event()
        lending.on_leave, lending.on_lend = self._leave, self._lend

    async def start_worker(self, engine: Engine) -> None:
        """The first worker is ready, as soon as the owner lets it be. Raises `EngineError` if it cannot be started."""
        self._engine = engine
        while True:
            while not self._availability.wants_worker:
                await self._lent.wait()
            left = self._left
            try:
                return await engine.restart()
            except EngineError:
                if self._left == left:
                    raise

    def hand_over(self, keeper: Keeper, survey: Survey) -> None:
        """They carry commands out, and measure what is said of the connection, from now on. To be called without a checkpoint
        since `start_worker` returned: nobody has killed that worker."""
        self._keeper, self._survey = keeper, survey
        self._lending.on_leave, self._lending.on_lend = keeper.take_back, keeper.lend

    async def answer(self, command: str, seconds: int = 0) -> control.Reply:
        """The command is carried out; what the node then says of itself. Raises `StoreError` if it will not last."""
        lending = self._lending
        carry_out: dict[str, Callable[[], None]] = {
            control.DRIVE: lending.drive,
            control.PARK: lending.park,
            control.PAUSE: partial(lending.pause, seconds),
            control.RESUME: lending.resume,
            control.OPT_OUT: partial(lending.opt_out, True),
            control.OPT_IN: partial(lending.opt_out, False),
        }
        if command in carry_out:
            try:
                carry_out[command]()
            finally:
                if self._keeper:
                    await self._keeper.handed_back()
        match command:
            case control.WHY:
                return self._why()
            case control.PAGE:
                return self._address()
            case _:
                income = await self._purse.get()
                return self._status(in_words(income, self._purse.problem))

    def _leave(self) -> None:
        self._left += 1
        if self._engine:
            self._engine.kill()
        self._availability.yielded()

    def _lend(self) -> None:
        self._lent.set()
        self._lent = trio.Event()

    def _status(self, earned: str) -> control.Reply:
        if self._keeper is None:
            self._availability.worker(False, self._doing())
        engine = self._engine
        return {
            "state": str(self._availability.state),
            "now": now_in_words(self._availability),
            "next": next_in_words(self._lending),
            "budget": budget_in_words(self._lending),
            "temperature": temperature_in_words(self._lending),
            "earned_today": earned,
            **({"diary": self._recorder.problem} if self._recorder.problem else {}),
            **self._worker_ended(),
            "peer_id": peer_id(self._network.key),
            "pid": os.getpid(),
            "reasons": list(self._availability.reasons),
            "jobs_running": self._availability.jobs,
            "addresses": list(self._network.addresses()),
            "peers": len(self._network.peers()),
            "bootstrap": list(self._config.bootstrap),
            **_reached(self._network.reachability()),
            **(_connected(self._survey) if self._survey else {}),
            "bundles": [bundle.manifest.name for bundle in self._bundles],
            "refused": [f"{cid(bundle)}: {error.message}" for bundle, error in engine.refused.items()]
            if engine
            else [],
            "sandbox": list(engine.measures if engine else ()) or ["none"],
            "fetching": [f"{name}: {stage}" for name, stage in self._library.missing.items()],
            "store": str(self._config.store),
            "store_bytes_max": self._config.store_bytes_max,
        }

    def _why(self) -> control.Reply:
        """What is read of the machine, and what follows from it."""
        return {
            "state": str(self._availability.state),
            "now": now_in_words(self._availability),
            "next": next_in_words(self._lending),
            "reasons": list(self._availability.reasons),
            **self._worker_ended(),
            **said(self._lending),
        }

    def _worker_ended(self) -> control.Reply:
        """How a worker last ended that nobody had stopped, if one did."""
        ended = self._keeper.last_end if self._keeper else None
        return {"worker_ended": f"{span(trio.current_time() - ended.at_s)} ago: {ended}"} if ended else {}

    def _address(self) -> control.Reply:
        """Raises `ConfigError(bad_config)` if there is no page."""
        if not self.page:
            what = '`page = "127.0.0.1:8781"` in node.toml and a restart make one'
            raise ConfigError(Code.BAD_CONFIG, f"This node shows no page: {what}.")
        return {"address": self.page}

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


def _connected(survey: Survey) -> control.Reply:
    found, dish = survey.now(), survey.dish
    measured, link = found.measured, found.link
    metered = {None: "metered or not is not known", True: "metered", False: "not metered"}[link.metered]
    rates = {"up": found.up_kbit_per_s, "down": found.down_kbit_per_s}
    said = [f"{name} {rate / 1000:.1f} Mbit/s" for name, rate in rates.items() if rate is not None]
    return {
        "link": f"not known: {link.why}" if link.why else f"{', '.join(link.kinds) or 'no default route'}; {metered}",
        "round_trips": (
            f"{measured.rtt_p50_us / 1000:.1f} to {measured.rtt_p95_us / 1000:.1f} ms, "
            f"{measured.loss_ppm / 10_000:.1f} % lost, over {measured.peers} peers"
            if measured
            else "not measured: no node is connected"
        ),
        "rates": ", ".join(said) or "not measured",
        "witnesses": len(survey.witnesses.shown()),
        **({"dish": dish_status(dish)} if dish else {}),
    }

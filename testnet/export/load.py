"""Clients that ask an exported network for some minutes, and one JSON line about how that went.

FALLOW_BUNDLE          a text bundle
FALLOW_LOAD_S          for how many seconds (600)
FALLOW_LOAD_CLIENTS    how many ask side by side (8)
FALLOW_ASSURANCE       how answers are checked (quorum:2/3)
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from ...client import connect
from ...client.mesh import Mesh
from ...protocol.errors import Code, ConfigError, FallowError, NetworkError
from .cluster import CLIENTS_MAX, MINUTES_MAX, STATE

PROMPT: Final = "Go on."
TOKENS: Final = 48
JOIN_S: Final = 300.0
"""For nodes to be pulled, started and found: a load that begins before its network waits."""
AGAIN_S: Final = 2.0
TIMES_MAX: Final = 100_000
"""The last so many answers are timed."""


@dataclass
class Tally:
    """What came of what was asked. Answers cut short by the load's end are in none of it."""

    completed: int = 0
    verified: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """By code."""
    answer_ms: deque[int] = field(default_factory=lambda: deque(maxlen=TIMES_MAX))

    def line(self) -> str:
        """The summary, in one line of JSON."""
        times = sorted(self.answer_ms)
        at = {f"p{p}": times[min(len(times) - 1, len(times) * p // 100)] for p in (50, 95, 99)} if times else {}
        summary = {"asked": self.completed + self.failures.total(), "completed": self.completed}
        return json.dumps({**summary, "verified": self.verified, "failures": dict(self.failures), "answer_ms": at})


def run(told: Mapping[str, str], bootstrap: str) -> int:
    """The load ran, and its summary is on stdout; 0 if anything was completed. Raises `FallowError`."""
    seconds = _count(told, "FALLOW_LOAD_S", 600, 60 * MINUTES_MAX)
    clients = _count(told, "FALLOW_LOAD_CLIENTS", 8, CLIENTS_MAX)
    bundle, assurance = told.get("FALLOW_BUNDLE", ""), told.get("FALLOW_ASSURANCE", "quorum:2/3")
    home = own_home(Path(told.get("FALLOW_STATE", STATE)), Path(told.get("FALLOW_HOME", "")))
    tally = Tally()
    trio.run(_load, bootstrap, home, bundle, assurance, clients, seconds, tally)
    print(tally.line(), flush=True)
    return 0 if tally.completed else 1


def own_home(state: Path, image: Path) -> Path:
    """A home with the image's bundles and trust list, and keys and wallet of its own: the image may be read-only."""
    home = state / "client"
    home.mkdir(parents=True, exist_ok=True)
    if (image / "trust.toml").exists():
        shutil.copyfile(image / "trust.toml", home / "trust.toml")
    if not (home / "store").exists():
        (home / "store").symlink_to(image / "store")
    return home


async def _load(
    bootstrap: str, home: Path, bundle: str, assurance: str, clients: int, seconds: int, tally: Tally
) -> None:
    joining_until = trio.current_time() + JOIN_S
    while True:
        try:
            async with connect([bootstrap], home=home) as mesh:
                with trio.move_on_after(seconds):
                    async with trio.open_nursery() as nursery:
                        for _ in range(clients):
                            nursery.start_soon(_ask, mesh, bundle, assurance, tally)
            return
        except NetworkError:
            if trio.current_time() > joining_until:
                raise
        await trio.sleep(AGAIN_S)


async def _ask(mesh: Mesh, bundle: str, assurance: str, tally: Tally) -> None:
    """Asks again as soon as it has its answer, until cancelled."""
    while True:
        began = trio.current_time()
        try:
            answer = await mesh.generate(bundle, PROMPT, max_tokens=TOKENS, assurance=assurance)
        except FallowError as error:
            tally.failures[str(error.code)] += 1
            print(f"failed: {error}", file=sys.stderr, flush=True)
            await trio.sleep(AGAIN_S)
            continue
        tally.completed += 1
        tally.verified += answer.verdict is not None and answer.verdict.outcome == "accepted"
        tally.answer_ms.append(round((trio.current_time() - began) * 1000))


def _count(told: Mapping[str, str], name: str, usual: int, most: int) -> int:
    text = told.get(name, str(usual))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise ConfigError(Code.BAD_CONFIG, f"{name} is a whole number from 1 to {most}.")
    return int(text)

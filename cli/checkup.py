"""Of `fallow doctor`: what was looked at on this machine and in the mesh, each with what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from ..node import control
from ..node.book import BOOK, Book
from ..node.config import default_home
from ..node.engine.sizes import mib
from ..node.engine.upkeep import RESERVE_BYTES, usage_bytes
from ..node.log import wall_ms
from ..protocol.errors import FallowError, NetworkError
from ..protocol.identity import peer_key_untrusted
from .clock import judged, kept_by_others
from .environment import bootstrap_addresses, is_given

if TYPE_CHECKING:
    from ..client.stranger import Seen

_MEASURED: Final = ("link", "round_trips", "rates", "dish")
"""What a node says of its connection, in its own words."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `good` is None where it cannot be said."""

    good: bool | None
    found: str
    advice: str = ""
    """What to do about it; empty if nothing is to be done."""


def checks(state: Path | None, bootstrap: str | None, sandbox: Check, accelerators: Sequence[str]) -> dict[str, Check]:
    """Everything that there is to look at, by its name. `accelerators` are those that JAX finds."""
    status, running = _status(state)
    return {
        "node": running,
        **trio.run(_in_the_mesh, status, state, bootstrap, restrict_keyboard_interrupt_to_checkpoints=True),
        **_measured(status),
        "sandbox": sandbox
        if sandbox.good
        else replace(sandbox, advice="`fallow doctor --sandbox` shows each attempt."),
        "accelerator": _accelerator([name for name in accelerators if name != "cpu"]),
        "disk": _disk(status),
    }


def _status(state: Path | None) -> tuple[Mapping[str, object] | None, Check]:
    """What the node says of itself, if one runs."""
    if state is None:
        return None, Check(None, "no state folder was named, so none was asked", "`--node STATE` asks the node there.")
    try:
        status = control.request(state, control.STATUS)
    except FallowError as error:
        return None, Check(False, error.message, "`fallow node run --config node.toml` starts it.")
    reasons = status["reasons"]
    why = f": {'; '.join(map(str, reasons))}" if isinstance(reasons, list) and reasons else ""
    return status, Check(True, f"runs, and is {status['state']}{why}; connected with {status['peers']} peers")


def _measured(status: Mapping[str, object] | None) -> dict[str, Check]:
    """What the node has measured of its connection; nothing without one, or of what could not be measured."""
    found = status or {}
    said = {name: str(found[name]) for name in _MEASURED if name in found}
    return {
        name.replace("_", " "): Check(None if what.startswith("not ") else True, what) for name, what in said.items()
    }


async def _in_the_mesh(
    status: Mapping[str, object] | None, state: Path | None, bootstrap: str | None
) -> dict[str, Check]:
    """How this machine stands in the mesh, by its node's word and by a stranger's."""
    from ..client.stranger import look

    node = peer_key_untrusted(str(status["peer_id"])) if status else None
    given = bootstrap_addresses(bootstrap) if is_given(bootstrap) else []
    own = status["bootstrap"] if status else []
    given += [str(each) for each in own if each not in given] if isinstance(own, list) else []
    known = [way for folder in (state, default_home()) if folder for way in _ways_in(folder)]
    itself = status["addresses"] if status else []
    known += [str(each) for each in itself] if isinstance(itself, list) else []
    seen, why = None, ""
    try:
        seen = await look(node, given, known, wall_ms, listen=status is None)
    except NetworkError as error:
        why = error.message
    clock = Check(*judged(kept_by_others(), seen.ages_ms if seen else ()))
    return {"mesh": _mesh(seen, why), "reach": _reach(status, seen), "found": _found(status, seen), "clock": clock}


def _ways_in(folder: Path) -> list[str]:
    if not (folder / BOOK).exists():
        return []
    with closing(Book(folder / BOOK)) as book:
        return book.ways_in()


def _mesh(seen: Seen | None, why: str) -> Check:
    if seen is None:
        advice = "Set FALLOW_BOOTSTRAP (or --bootstrap) to the address of a node that runs; see whether a firewall is between."
        return Check(False, f"not joined: {why}", advice)
    if not seen.others:
        return Check(None, "nobody but the node itself was there to join by", "Name another one with --bootstrap.")
    return Check(True, f"joined as a stranger, with a fresh key; {seen.peers} peers were there")


def _reach(status: Mapping[str, object] | None, seen: Seen | None) -> Check:
    """How others come to this machine, and what its owner can do about it."""
    if status is None:
        if seen is None or seen.let_in is None:
            return Check(None, "no peer could be asked to dial this machine")
        if seen.let_in:
            return Check(True, "peers got through to a port of this machine that was opened for them")
        advice = 'A node here is reached through relays: `reach = "auto"`, or forward a port and set `announce`.'
        return Check(
            None, "peers did not get through to a port of this machine: a router or firewall is between", advice
        )
    relays = status["relays"]
    if status["reach"] == "direct":
        found = {"yes": "others got through to it", "no": "others did not get through"}
        told = found.get(str(status["dialled_back"]), "nobody was asked to try")
        good = True if status["dialled_back"] == "yes" or (seen and seen.way == "direct") else None
        return Check(good, f"directly, at its own addresses; {told}")
    if isinstance(relays, list) and relays:
        return Check(True, f"through relays: {', '.join(map(str, relays))}")
    why = str(status["relays_why"]) or "The mesh names none."
    advice = 'Ask a site to take the role `relay`, or set `reach = "direct"`.'
    return Check(False, f"not at all: it needs a relay and has none. {why}", advice)


def _found(status: Mapping[str, object] | None, seen: Seen | None) -> Check:
    """Whether somebody who knows nothing but the node's name finds it and gets through."""
    if status is None or seen is None:
        return Check(
            None, "no node runs whom a stranger could look for" if status is None else "no stranger could look"
        )
    if seen.found is None:
        advice = "A node is found a minute after it has joined; if it stays so, see `reach`, and `announce_failed` in node.log."
        return Check(False, f"a stranger does not find its profile. {seen.why}", advice)
    age_s = (wall_ms() - seen.found.connectivity.record.issued_ms) // 1000
    if not seen.way:
        advice = "See `reach`: a router or firewall is between; forward the port and set `announce`, or use relays."
        return Check(
            False, f"a stranger finds its profile, {age_s} s old, but does not get through. {seen.why}", advice
        )
    way = "through a relay" if seen.way == "relayed" else "directly"
    return Check(True, f"a stranger finds its profile, {age_s} s old, and reaches it {way}")


def _accelerator(names: Sequence[str]) -> Check:
    if found := [name for name in names if not name.startswith("none")]:
        return Check(True, ", ".join(found))
    if names:
        return Check(False, names[0], "pip install 'fallow[node]', or see whether the driver works.")
    return Check(
        None, "none: models run on the processor", "With an NVIDIA card: its driver, and `pip install 'jax[cuda12]'`."
    )


def _disk(status: Mapping[str, object] | None) -> Check:
    """How much the store may still take."""
    store = Path(str(status["store"])) if status else default_home() / "store"
    limit = int(str(status["store_bytes_max"])) if status else 0
    there = next(each for each in (store, *store.absolute().parents) if each.exists())
    free, used = shutil.disk_usage(there).free, usage_bytes(store) if store.exists() else 0
    room = min(free - RESERVE_BYTES, limit - used if limit else free)
    bound = f"of at most {mib(limit)}" if limit else "without a limit of its own"
    found = f"the store takes {mib(used)}, {bound}; {mib(free)} of the disk are free"
    if room > 0:
        return Check(True, found)
    advice = "`fallow bundle gc --to SIZE` makes room; `store_bytes_max` in node.toml decides what a node may take."
    return Check(False, f"{found}: nothing more can be fetched", advice)

"""`fallow doctor`: what this machine has for lending itself, and how it stands in the mesh, found out by trying it."""

from __future__ import annotations

import json as json_text
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import trio
from cyclopts import Parameter

from ..node import control
from ..node.book import BOOK, Book
from ..node.config import default_home
from ..node.engine import cgroup
from ..node.engine.cgroup import CGROUP, Ground
from ..node.engine.confinement import MEASURES
from ..node.engine.sandbox import BUBBLEWRAP, Bubblewrap, bubblewrap
from ..node.engine.sizes import mib
from ..node.engine.trial import ATTEMPTS, Trial, try_out
from ..node.engine.upkeep import RESERVE_BYTES, usage_bytes
from ..node.log import wall_ms
from ..protocol.errors import FallowError, NetworkError
from ..protocol.identity import peer_key_untrusted
from .clock import judged, kept_by_others
from .environment import AsJson, Bootstrap, bootstrap_addresses, is_given
from .output import Json, line, print_json, table

if TYPE_CHECKING:
    from ..client.stranger import Seen

_MARKS: Final = {True: "ok", False: "NO", None: "? "}
_JAX_S_MAX: Final = 120.0
"""A GPU's driver takes some seconds to wake."""
_ASK_JAX: Final = (
    "import json, jax; print(json.dumps([f'{d.platform} ({d.device_kind})' if d.platform != 'cpu' else 'cpu'"
    " for d in jax.devices()]))"
)
_MEASURED: Final = ("link", "round_trips", "rates", "dish")
"""What a node says of its connection, in its own words."""
_WORDS: Final = {
    BUBBLEWRAP: "no network, no other processes, no files but its own: namespaces",
    CGROUP: "a bound on memory and threads that no program gets around, and the node first",
    **MEASURES,
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `good` is None where it cannot be said."""

    good: bool | None
    found: str
    advice: str = ""
    """What to do about it; empty if nothing is to be done."""


def doctor(
    *,
    sandbox: Annotated[bool, Parameter(help="Only the sandbox, attempt by attempt.")] = False,
    node: Annotated[Path | None, Parameter(help="State folder of a node on this machine.")] = None,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> int:
    """0 if strangers' bundles can be served here; 1 if a node would refuse them, or something got through.

    Says beside that how this machine stands in the mesh: reached by whom, found by strangers or not, its clock and disk.
    """
    found = bubblewrap()
    trial, group = try_out(found.path), cgroup.try_out()
    sound = bool(found) and not trial.holes
    machine = {} if sandbox else _machine()
    checks = {} if sandbox else _checks(node, bootstrap, Check(sound, ", ".join(_held(trial, group)) or "none"))
    if json:
        shown: Json = {
            name: {"good": each.good, "found": each.found, "advice": each.advice} for name, each in checks.items()
        }
        print_json({**machine, "checks": shown, "sandbox": _sandbox(found, trial, group), "strangers_bundles": sound})
        return 0 if sound else 1
    for key, value in machine.items():
        line(f"{key.replace('_', ' '):<18} {', '.join(value) if isinstance(value, list) else value}")
    for name, check in checks.items():
        line(f"{_MARKS[check.good]} {name:<16} {check.found}")
        if check.advice:
            line(f"{'':<18} -> {check.advice}")
    if sandbox:
        _show(trial, group)
    line(_verdict(found, trial))
    return 0 if sound else 1


def _checks(state: Path | None, bootstrap: str | None, sandbox: Check) -> dict[str, Check]:
    status, running = _status(state)
    accelerators = [name for name in _accelerators() if name != "cpu"]
    return {
        "node": running,
        **trio.run(_in_the_mesh, status, state, bootstrap, restrict_keyboard_interrupt_to_checkpoints=True),
        **_measured(status),
        "sandbox": sandbox
        if sandbox.good
        else replace(sandbox, advice="`fallow doctor --sandbox` shows each attempt."),
        "accelerator": _accelerator(accelerators),
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


def _machine() -> dict[str, str | list[str]]:
    versions = {name: _version(name) for name in ("fallow", "jax", "jaxlib")}
    kernel = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return {"system": kernel, "python": platform.python_version(), **versions, "accelerators": _accelerators()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed (pip install 'fallow[node]')"


@cache
def _accelerators() -> list[str]:
    """What JAX finds. Asked in a process of its own: the command itself never loads it."""
    command = [sys.executable, "-P", "-c", _ASK_JAX]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_JAX_S_MAX, check=True)
        return [str(name) for name in json_text.loads(asked.stdout)]
    except subprocess.CalledProcessError as error:
        return [f"none: {str(error.stderr).strip().rpartition(chr(10))[2]}"]
    except subprocess.TimeoutExpired:
        return [f"none: JAX did not find one within {_JAX_S_MAX:.0f} s"]


def _held(trial: Trial, group: Ground) -> list[str]:
    return [name for name in _WORDS if name in trial.measures or (name == CGROUP and "memory" in group.controllers)]


def _sandbox(found: Bubblewrap, trial: Trial, group: Ground) -> dict[str, Json]:
    return {
        "measures": {name: name in _held(trial, group) for name in _WORDS},
        "attempts": {name: trial.attempts[name] for name in ATTEMPTS},
        "holes": list(trial.holes),
        "missing": found.why_not,
        "control_group": {"controllers": list(group.controllers), "missing": group.why_not},
    }


def _show(trial: Trial, group: Ground) -> None:
    held = _held(trial, group)
    table(
        ("measure", "holds", "what it means"),
        [(name, "yes" if name in held else "no", words) for name, words in _WORDS.items()],
    )
    if group.why_not:
        line(f"{CGROUP}: {group.why_not}")
    table(
        ("a worker that tries to", "is", "by"),
        [
            (what, "denied" if trial.attempts[name] else "NOT denied", _met(trial, name))
            for name, what in ATTEMPTS.items()
        ],
    )


def _met(trial: Trial, name: str) -> str:
    return trial.attempts[name] or "-"


def _verdict(found: Bubblewrap, trial: Trial) -> str:
    """One sentence: what may be served, or what is missing and how to get it."""
    if not found:
        return f"A node here refuses strangers' bundles, since {found.why_not}"
    if trial.holes:
        tried = "; ".join(ATTEMPTS[name] for name in trial.holes)
        return f"The sandbox has holes here ({tried}): serve only bundles whose publishers you trust."
    return "Strangers' bundles can be served here: nothing that was tried got through."

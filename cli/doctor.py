"""`fallow doctor`: what this machine has for lending itself, and how it stands in the mesh, found out by trying it."""

from __future__ import annotations

import json as json_text
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from ..node.engine import cgroup
from ..node.engine.cgroup import CGROUP, Ground
from ..node.engine.confinement import MEASURES
from ..node.engine.sandbox import BUBBLEWRAP, Bubblewrap, bubblewrap
from ..node.engine.trial import ATTEMPTS, Trial, try_out
from .checkup import Check
from .checkup import checks as look
from .environment import AsJson, Bootstrap
from .output import Json, line, print_json, table

_MARKS: Final = {True: "ok", False: "NO", None: "? "}
_JAX_S_MAX: Final = 120.0
"""A GPU's driver takes some seconds to wake."""
_ASK_JAX: Final = (
    "import json, jax; print(json.dumps([f'{d.platform} ({d.device_kind})' if d.platform != 'cpu' else 'cpu'"
    " for d in jax.devices()]))"
)
_WORDS: Final = {
    BUBBLEWRAP: "no network, no other processes, no files but its own: namespaces",
    CGROUP: "a bound on memory and threads that no program gets around, and the node first",
    **MEASURES,
}


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
    holds = Check(sound, ", ".join(_held(trial, group)) or "none")
    checks = {} if sandbox else look(node, bootstrap, holds, _accelerators())
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

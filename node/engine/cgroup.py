"""The control group around a worker: how much memory and how many threads it may have, and that others come first.

Version 2 of the kernel's control groups (https://docs.kernel.org/admin-guide/cgroup-v2.html), where this process may divide the
group that it is in: as a service with `Delegate=yes`, under `systemd-run --user --scope -p Delegate=yes`, or in a container
that has its groups mounted for writing. Unlike the worker's own limit, which counts addresses, this one counts memory, and
holds on a GPU, too.

    <group>/fallow-node            this process: a group that is divided has no processes of its own
    <group>/fallow-worker-PID-N    one worker of the node with that process id
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final

CGROUP: Final = "cgroup"
"""The name of what this module adds to the worker's own measures."""

CONTROLLERS: Final = ("memory", "pids", "cpu")
"""What bounds a worker. The name stands for all its settings here."""

NODE: Final = "fallow-node"
WORKER: Final = "fallow-worker-"

CPU_WEIGHT: Final = 10
"""Beside the node's own 100: a tenth of the time while the node wants it, and all of it otherwise."""
DYING_WEIGHT: Final = 10_000
"""The most that the kernel gives: what is killed takes its memory apart by itself, and is out of the way the sooner."""
THREADS_MAX: Final = 64
THREADS_CORE: Final = 8
"""XLA has three for a core at most, and Python's are five: generously more than that, and nothing for a bomb."""

_TRIAL_S_MAX: Final = 10.0
"""A killed process is gone in milliseconds."""

_DELEGATE: Final = "Run the node as a service with `Delegate=yes`, or by `systemd-run --user --scope -p Delegate=yes`."
_numbers = count()


@dataclass(frozen=True, slots=True)
class Ground:
    """Where this machine lets us make groups for workers."""

    path: Path | None
    """None if nowhere."""
    controllers: tuple[str, ...] = ()
    """Those of `CONTROLLERS` that hold for groups made there."""
    why_not: str = ""
    """One sentence or two for the owner, if any of them is missing."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one worker gets at most."""

    memory_bytes: int
    threads: int

    def settings(self, controllers: Collection[str]) -> dict[str, str]:
        """Files of a group, and what stands in them. Nothing of a worker is swapped out: its plaintext stays off the disk."""
        wanted = {
            "memory.max": str(self.memory_bytes),
            "memory.swap.max": "0",
            "memory.oom.group": "1",
            "pids.max": str(self.threads),
            "cpu.weight": str(CPU_WEIGHT),
        }
        return {name: value for name, value in wanted.items() if name.partition(".")[0] in controllers}


class Group:
    """One worker's group, from `make` to `remove`. Without a process in it, it costs nothing."""

    def __init__(self, path: Path, controllers: tuple[str, ...]) -> None:
        self._path = path
        self._controllers = controllers
        self.holds = False
        """Whether a process is in it whose memory it bounds."""

    def take(self, pid: int) -> None:
        """The process is in the group, if the kernel lets it be. What memory it has already, counts elsewhere."""
        with suppress(OSError):
            (self._path / "cgroup.procs").write_text(str(pid))
            self.holds = "memory" in self._controllers

    def kill(self) -> None:
        """Whatever is in it has got SIGKILL (Linux 5.14)."""
        with suppress(OSError), (self._path / "cgroup.kill").open("r+") as stream:
            stream.write("1")
        if "cpu" in self._controllers:
            with suppress(OSError):
                (self._path / "cpu.weight").write_text(str(DYING_WEIGHT))

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel has killed something in it because it had no more memory."""
        with suppress(OSError):
            return bool(re.search(r"^oom_kill [1-9]", (self._path / "memory.events").read_text(), re.MULTILINE))
        return False

    def remove(self) -> None:
        """It is gone, if no process is left in it; else with the next node's start."""
        with suppress(OSError):
            self._path.rmdir()


def make(ground: Ground, bounds: Bounds) -> Group | None:
    """A group with these bounds, as far as there are controllers for them; None if none can be made."""
    if ground.path is None:
        return None
    path = ground.path / f"{WORKER}{os.getpid()}-{next(_numbers)}"
    try:
        path.mkdir()
    except OSError:
        return None
    held = list(ground.controllers)
    for name, value in bounds.settings(ground.controllers).items():
        try:
            (path / name).write_text(value)
        except OSError:
            if name != "memory.swap.max":  # which kernels without swap lack
                held = [each for each in held if each != name.partition(".")[0]]
    return Group(path, tuple(held))


@cache
def ground() -> Ground:
    """Where this process may make groups, found out by preparing it; once, since it may move this process for that."""
    found = prepare(own_group())
    if found.path is not None:
        sweep(found.path)
    return found


def own_group(process: Path = Path("/proc/self")) -> Path | None:
    """The folder of the group that a process is in, given the process's own; None where version 2 is not mounted."""
    group = _first(r"0::(/.*)", process / "cgroup")
    mount = _first(r"\S+ \S+ \S+ (\S+) (\S+) .* - cgroup2 .*", process / "mountinfo")
    if group is None or mount is None:
        return None
    with suppress(ValueError):  # of a group outside of what is mounted
        return Path(_unescaped(mount[2])) / Path(group[1]).relative_to(_unescaped(mount[1]))
    return None


def prepare(own: Path | None) -> Ground:
    """The group can be divided, with whatever controllers it has; this process has moved down within it, if it had to."""
    if own is None:
        return Ground(None, (), "Control groups of version 2 are not mounted here.")
    base = own.parent if own.name == NODE else own
    try:
        there = (base / "cgroup.controllers").read_text().split()
        wanted: list[str] = [each for each in CONTROLLERS if each in there]
        if not os.access(base, os.W_OK):
            return Ground(None, (), f"The node may not divide its control group {base}. {_DELEGATE}")
        busy = not _enable(base, wanted) and not (_move_down(own, base) and _enable(base, wanted))
        held = tuple(each for each in CONTROLLERS if each in (base / "cgroup.subtree_control").read_text().split())
    except OSError as error:
        return Ground(None, (), f"The node cannot use its control group {base}: {error.strerror}. {_DELEGATE}")
    missing = [each for each in CONTROLLERS if each not in held]
    if not missing:
        return Ground(base, held)
    names = ", ".join(missing)
    if busy and wanted:
        return Ground(base, held, f"Control group {base} holds other processes, and cannot bound {names}. {_DELEGATE}")
    why = "they may be given to version 1, or to nobody below."
    return Ground(base, held, f"Control group {base} has no {names}: {why}")


def sweep(base: Path) -> None:
    """Groups that nodes left behind which were killed are gone."""
    for left in base.glob(f"{WORKER}*-*"):
        node = left.name.removeprefix(WORKER).partition("-")[0]
        if not Path("/proc", node).exists():
            with suppress(OSError):
                left.rmdir()


def bounds(memory_bytes: int) -> Bounds:
    """Those of a worker that may have so much memory."""
    return Bounds(memory_bytes, THREADS_MAX + THREADS_CORE * (os.cpu_count() or 1))


def try_out() -> Ground:
    """What holds here, by putting a process into a group of its own and killing it there."""
    found = ground()
    group = make(found, bounds(2**30))
    if group is None:
        why = found.why_not or f"No group can be made in {found.path}. {_DELEGATE}"
        return Ground(None, (), why)
    sleeper = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        group.take(sleeper.pid)
        group.kill()
        sleeper.wait(_TRIAL_S_MAX)
    except subprocess.TimeoutExpired:
        return Ground(None, (), "A process that was put into a group of its own could not be killed there.")
    finally:
        sleeper.kill()
        sleeper.communicate()
        group.remove()
    return found


def _enable(base: Path, controllers: Sequence[str]) -> bool:
    """Whether groups below have these controllers now."""
    control = base / "cgroup.subtree_control"
    missing = set(controllers) - set(control.read_text().split())
    with suppress(OSError):
        if missing:
            control.write_text(" ".join(f"+{each}" for each in sorted(missing)))
        return True
    return False


def _move_down(own: Path, base: Path) -> bool:
    """Whether this process has left the group for one below it. Only where nobody else is in it, whom that would leave out."""
    if own != base or (base / "cgroup.procs").read_text().split() != [str(os.getpid())]:
        return False
    with suppress(OSError):
        (base / NODE).mkdir(exist_ok=True)
        (base / NODE / "cgroup.procs").write_text(str(os.getpid()))
        return True
    return False


def _first(pattern: str, path: Path) -> re.Match[str] | None:
    """The first line that is of this form."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((found for line in lines if (found := re.fullmatch(pattern, line))), None)


def _unescaped(path: str) -> str:
    """As the kernel means it: spaces and their like are octal in its tables."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)

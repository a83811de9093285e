"""What the worker does to itself, so that a program which breaks out of XLA still reaches nothing.

Each step comes as early as it can, none can be undone, and all say which measures hold, since kernels differ. Around all
of this stands `sandbox`; neither needs the other.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Final

from ...protocol.bundle import Manifest
from . import landlock, seccomp
from .messages import PREFIX_BYTES
from .sandbox import gpu_paths, readable

LANDLOCK, SECCOMP, LIMITS, MEMORY, SEALED = "landlock", "seccomp", "rlimits", "memory", "sealed"
MEASURES: Final = {
    LANDLOCK: "only the files it needs, no TCP, no signals to other processes",
    SECCOMP: "no system calls but those on a list",
    LIMITS: "no core dumps, bounded files and descriptors",
    MEMORY: "a bound on its memory",
    SEALED: "nothing can be written once all programs are loaded",
}
"""All measures, by the names that `Ready` carries, with what each means."""

FILE_BYTES_MAX: Final = 64 * 2**20
"""Of a compiled program (SmolLM2's largest: 0.2 MB) and of the log, the only files that a worker writes."""
FILES_MAX: Final = 256
"""Open at once; loading two bundles takes 20."""
MEMORY_FLOOR_BYTES: Final = 2 * 2**30
"""JAX dies of a segmentation fault when it may have 1 GiB, and runs with 2."""
MEMORY_CORE_BYTES: Final = 256 * 2**20
"""Address space for each core: threads of XLA reserve a stack and an arena, 72 MiB each, three for a core at most."""

_PLACES: Final = (
    "/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/dev/zero", "/dev/urandom",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system",
)  # fmt: skip
"""What Python and XLA read, beside their own files."""


class Confinement:
    """What confines this process so far. With `on` false nothing does, ever: the owner has turned it off."""

    def __init__(self, *, on: bool) -> None:
        self.measures: tuple[str, ...] = ()
        """Those that hold, by their names in `MEASURES`."""
        self._on = on
        self._devices = False

    def before_threads(self, reads: Sequence[Path], writes: Sequence[Path]) -> None:
        """Of all files, this process reads only these and what its Python needs, and writes only below `writes`.

        To be called while no other thread runs: Landlock binds its caller and what that starts. Raises `OSError` if the
        kernel has Landlock and refuses.
        """
        if not self._on:
            return
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would put plaintext on the disk
        _lower(resource.RLIMIT_FSIZE, FILE_BYTES_MAX)
        _lower(resource.RLIMIT_NOFILE, FILES_MAX)
        self.measures += (LIMITS,)
        if landlock.version() and _threads() == 1:
            private = (
                [Path("/tmp")] if os.getpid() == 1 else []
            )  # the first process of a sandbox, whose /tmp is its own
            devices = [Path("/dev/null"), *(path for path in gpu_paths() if path.is_relative_to("/dev"))]
            places = [*map(Path, _PLACES), *readable(), *gpu_paths()]
            landlock.restrict([*places, *reads], [*devices, *private, *writes])
            self.measures += (LANDLOCK,)

    def before_programs(self, platform: str, manifests: Sequence[Manifest], jobs: int) -> None:
        """This process makes only listed system calls, and on a CPU its memory is bounded by what the bundles need.

        To be called when JAX's back end runs and no publisher's program has been read. `platform` is JAX's: on a GPU the
        driver maps address space without measure, and is spoken to by ioctl. Raises `OSError` without seccomp.
        """
        if not self._on:
            return
        self._devices = platform != "cpu"
        if not self._devices:
            _lower(resource.RLIMIT_AS, _address_space() + memory_bytes(manifests, jobs))
            self.measures += (MEMORY,)
        if seccomp.supported():
            seccomp.load(seccomp.Allowed(writing=True, devices=self._devices))
            self.measures += (SECCOMP,)

    def before_jobs(self) -> bool:
        """Nothing is written any more, but to the log: no later job leaves anything for the next worker. True the first time.

        To be called when all programs are loaded and compiled; the jobs that came before that could write. Not on a GPU,
        whose driver opens its devices when it likes.
        """
        if SECCOMP in self.measures and SEALED not in self.measures and not self._devices:
            seccomp.load(seccomp.Allowed(writing=False))
            self.measures += (SEALED,)
            return True
        return False


def memory_bytes(manifests: Sequence[Manifest], jobs: int) -> int:
    """How far the address space may grow: what the bundles need, generously, and no more than the machine has.

    Weights count three times (mapped, copied where a program wants another layout, and as much to compute with), once more
    for each further device, which may want all of them; each program's arguments and results twice, beside them the state of
    each job and one more in the making, and what is kept of sequences that have ended.
    """
    weights = sum((2 + (each.devices or 1)) * each.weights.length_bytes for each in manifests)
    devices = max((each.devices or 1 for each in manifests), default=1)
    runs = sum(max(program.memory_bytes for program in manifest.programs) for manifest in manifests)
    state = sum(8 * prod(each.shape) for manifest in manifests for each in manifest.state)
    needed = weights + 2 * runs + 2 * jobs * state + len(manifests) * PREFIX_BYTES
    wanted = MEMORY_FLOOR_BYTES + MEMORY_CORE_BYTES * (devices - 1 + (os.cpu_count() or 1)) + needed
    return max(MEMORY_FLOOR_BYTES, min(wanted, os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()))


def _lower(limit: int, most: int) -> None:
    """The limit is `most`, or what it was if that is less; for good."""
    least = min((value for value in resource.getrlimit(limit) if value != resource.RLIM_INFINITY), default=most)
    bound = min(most, least)
    resource.setrlimit(limit, (bound, bound))


def _address_space() -> int:
    """Of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())

"""Around the worker: the namespaces that bubblewrap starts it in, and what of this machine it finds there.

What the worker does to itself from inside is `confinement`'s. Neither needs the other: each is there for when the other
has a hole, and without bubblewrap the worker still confines itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final

BUBBLEWRAP: Final = "bubblewrap"
"""The name of what this module adds to the worker's own measures."""

TMP_BYTES_MAX: Final = 64 * 2**20
"""Of the worker's private /tmp, which is memory: libraries put small files there, if any."""

_TRIAL_S_MAX: Final = 10.0
"""Starting an empty sandbox takes 10 ms; a machine that needs this long cannot start workers either."""

_NAMESPACES: Final = "it needs user namespaces, which this system or a container around the node may forbid."

_VARIABLES_KEPT: Final = ("JAX_PLATFORMS", "LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "XLA_FLAGS")
"""What an owner may have set for JAX, and where Python and the loader look. Everything else could hold a secret."""

_LIBRARIES: Final = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/urandom")
_GPU: Final = (
    "/dev/nvidia*", "/dev/nvidia-caps", "/dev/dxg", "/proc/driver/nvidia", "/sys/bus/pci", "/sys/devices", "/sys/class/drm",
    "/sys/module/nvidia*", "/usr/local/cuda*", "/usr/local/nvidia",
)  # fmt: skip
"""What CUDA opens where there is an NVIDIA GPU. Its driver takes the worker's calls: it is then part of what is trusted."""


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """bubblewrap as this machine has it, and tried."""

    path: str
    """Empty if there is none that works."""
    why_not: str = ""
    """One sentence for the owner, if there is none."""

    def __bool__(self) -> bool:
        return bool(self.path)


class Policy(StrEnum):
    """How an owner wants workers to be started."""

    REQUIRED = "required"
    """In a sandbox, or not at all."""
    PREFERRED = "preferred"
    """In a sandbox where one can be made; else confined by what they do to themselves."""
    OFF = "off"
    """Neither."""


@dataclass(frozen=True, slots=True)
class Box:
    """What one worker's sandbox holds beside Python and the system's libraries. Paths keep their names inside."""

    bwrap: str
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()

    def wrap(self, command: Sequence[str], info_fd: int | None = None) -> list[str]:
        """The command in the sandbox: no network, no other processes, no capabilities, and of the files only these.

        Paths that are not there are left out. bubblewrap writes the process id of what it started to `info_fd`: the
        command itself, as the first process of its namespace, so that killing it kills all.
        """
        words = [self.bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
        words += ["--hostname", "worker", "--proc", "/proc"]
        words += ["--size", str(TMP_BYTES_MAX), "--perms", "0700", "--tmpfs", "/tmp"]
        words += _system()
        for path in _outermost([*readable(), *self.reads, *map(Path, _named_files(command))]):
            words += ["--ro-bind-try", str(path), str(path)]
        for path in self.writes:
            words += ["--bind", str(path), str(path)]
        words += ["--remount-ro", "/", "--chdir", "/"]  # the root is memory, which would have no bound
        if info_fd is not None:
            words += ["--info-fd", str(info_fd)]
        return [*words, "--", *command]


@cache
def bubblewrap() -> Bubblewrap:
    """Whether a sandbox can be made here, found out by making one; once, since the answer takes a process."""
    path = shutil.which("bwrap")
    if not path:
        return Bubblewrap("", "bubblewrap is not installed (on Debian or Ubuntu: apt-get install bubblewrap).")
    try:
        # The worker's own interpreter as the trial: what it needs is what has to be there.
        command = Box(path).wrap([sys.executable, "-I", "-S", "-c", ""])
        tried = subprocess.run(command, capture_output=True, timeout=_TRIAL_S_MAX, env=environment(), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Bubblewrap("", f"bubblewrap is installed but does not start: {error}.")
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {tried.returncode}"
        return Bubblewrap("", f"bubblewrap is installed but cannot make a sandbox here ({said}); {_NAMESPACES}")
    return Bubblewrap(path)


def readable() -> list[Path]:
    """What the worker's Python needs beside the system's libraries: interpreter, packages, and this package itself."""
    executable = Path(sys.executable)
    found = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix) if prefix not in ("/usr", "/usr/local")]
    found += [executable, *_links(executable)]
    found += [Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    named = [Path(p).absolute() for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    found += [path for path in named if not Path.home().is_relative_to(path)]  # `.` at home would show all of it
    package = Path(__file__).parents[2]
    if package.parent.name not in ("site-packages", "dist-packages"):  # a checkout: the rest of it is not ours to show
        found += [path.parent if path.parent != package else path for path in _sources(package)]
    return _outermost(found)


def environment() -> Mapping[str, str]:
    """All of the worker's environment. Nothing is inherited but what is named here."""
    kept = {name: value for name, value in os.environ.items() if name in _VARIABLES_KEPT}
    return kept | {
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        # By their places, as NVML and `accelerators` count them: CUDA's own order has the fastest first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        # XLA has threads of its own. Those that NumPy would start at its import would escape Landlock, which binds the
        # thread that asks for it and what that one starts.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def gpu_paths() -> list[Path]:
    """What CUDA needs, on a machine with an NVIDIA GPU; nothing on any other."""
    if not any(Path("/dev").glob("nvidia*")):
        return []
    return [path for pattern in _GPU for path in Path("/").glob(pattern[1:])]


def _system() -> list[str]:
    """bubblewrap's words for the system's libraries and the few devices."""
    words = []
    for device in _DEVICES:
        words += ["--dev-bind", device, device]
    for library in map(Path, _LIBRARIES):
        if library.is_symlink():
            words += ["--symlink", str(library.readlink()), str(library)]
        elif library.is_dir():
            words += ["--ro-bind", str(library), str(library)]
    for path in gpu_paths():
        words += ["--dev-bind" if path.is_relative_to("/dev") else "--ro-bind", str(path), str(path)]
    return words


def _named_files(command: Sequence[str]) -> Iterator[str]:
    """The files that a command names: a test network's worker is a script of its own."""
    return (word for word in command[1:] if word.startswith("/") and Path(word).is_file())


def _outermost(paths: Sequence[Path]) -> list[Path]:
    """Those that are there and not below another of them."""
    there = dict.fromkeys(path for path in paths if path.exists())
    return [path for path in there if there.keys().isdisjoint(path.parents)]


def _links(path: Path) -> Iterator[Path]:
    """Where a symbolic link leads, step by step."""
    while path.is_symlink():
        path = path.parent / path.readlink()
        yield path


def _sources(package: Path) -> Iterator[Path]:
    yield package / "__init__.py"
    yield from package.glob("*/__init__.py")

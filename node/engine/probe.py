"""Tries, from where a worker stands, what a worker must not do, and says on standard output how each attempt ended.

    python -m fallow.node.engine.probe PORT PARENT ADDRESS OUTSIDE CACHE [--unconfined]

`trial` starts it. It goes through the worker's own steps of confinement first, with no JAX in between: the attempts are the
ones that a program makes which has taken over the worker. Each leaves no trace where it succeeds.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from .confinement import Confinement, memory_bytes

SECRET: Final = "secret"
"""The name of a file in OUTSIDE."""

_PTRACE_SEIZE: Final = 0x4206
_CLONE_NEWUSER: Final = 0x10000000
_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2
_libc = ctypes.CDLL(None, use_errno=True)


class _Range(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))


def main(port: int, parent: int, address: int, outside: Path, cache: Path, *, confined: bool) -> None:
    """Prints one JSON object: the measures that hold, and for each attempt the error that it met, or null."""
    confinement = Confinement(on=confined)
    confinement.before_threads([], [cache])
    confinement.before_programs("cpu", [], 1)
    (cache / "compiled").write_bytes(b"native code")  # as a worker may, until its bundles are loaded
    confinement.before_jobs()
    attempts: dict[str, Callable[[], object]] = {
        "network": lambda: socket.create_connection(("127.0.0.1", port), 1.0),
        "passwd": Path("/etc/passwd").read_bytes,
        "home": lambda: os.listdir(_home()),  # noqa: PTH208  # the error of the call itself is wanted
        "secret": (outside / SECRET).read_bytes,
        "write": lambda: (outside / "written").touch(),
        "cache": lambda: (cache / "compiled").write_bytes(b"other code"),
        "processes": _see_processes,
        "fork": _fork,
        "exec": lambda: _reached(lambda: os.execv("/none", ["none"])),
        "ptrace": lambda: _call(_libc.ptrace, _PTRACE_SEIZE, parent, None, None),
        "read memory": lambda: _read_memory(parent, address),
        "signal": lambda: os.kill(parent, 0),
        "mount": lambda: _mount(bytes(cache)),
        "namespace": lambda: _call(_libc.unshare, _CLONE_NEWUSER),
        "memory": _take_memory,
        "core": _dump_core,
        "setuid": lambda: os.setuid(os.getuid() + 1),
    }  # fmt: skip
    outcome = {name: _outcome(attempt) for name, attempt in attempts.items()}
    print(json.dumps({"measures": confinement.measures, "attempts": outcome}), flush=True)


def _outcome(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return None


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "denied")


def _home() -> str:
    """Of this user, where the password file cannot be asked."""
    return "/root" if os.getuid() == 0 else "/home"


def _see_processes() -> None:
    """Raises `ProcessLookupError` if there is none but this one."""
    if all(int(name) == os.getpid() for name in os.listdir("/proc") if name.isdecimal()):  # noqa: PTH208
        raise ProcessLookupError(errno.ESRCH, "no other process")


def _fork() -> None:
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)


def _reached(call: Callable[[], object]) -> None:
    """The call came as far as to look for its file, which is not there."""
    with suppress(FileNotFoundError):
        call()


def _read_memory(process: int, address: int) -> None:
    into = ctypes.create_string_buffer(16)
    ours, theirs = _Range(ctypes.addressof(into), 16), _Range(address, 16)
    _call(_libc.process_vm_readv, process, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)


def _mount(place: bytes) -> None:
    """Of a folder of the trial's own over itself, and not for long: where nothing forbids it, this is the real machine."""
    _call(_libc.mount, place, place, None, _MS_BIND, None)
    _call(_libc.umount2, place, _MNT_DETACH)


def _take_memory() -> None:
    """Reserves more than the limit. Untouched pages cost nothing, so without a limit the system gives them."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE: not refused for want of memory alone
    mmap.mmap(-1, memory_bytes([], 1) + 2**30, flags=flags).close()


def _dump_core() -> None:
    """Raises `PermissionError` if a crash could not write this process's memory to disk."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        raise PermissionError(errno.EPERM, "no core files")


if __name__ == "__main__":
    said = sys.argv[1:]
    main(int(said[0]), int(said[1]), int(said[2]), Path(said[3]), Path(said[4]), confined="--unconfined" not in said)

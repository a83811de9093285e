"""Landlock: this thread, and those that it starts, may touch no files but the ones named (Linux 5.13; landlock(7)).

Also, where the kernel is new enough: no TCP, no signals and no abstract sockets to processes outside.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls; these numbers are the same on every architecture."""
_ABI_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_IOCTL_DEV: Final = 1 << 15
_FILE_RIGHTS: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | _IOCTL_DEV
"""Those that a rule for a single file may have; 14: truncate."""
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
"""Execute, because a shared library is mapped executable."""

_RIGHTS_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""File rights that each version of the interface knows; from version 5 on, 16. What is not named here is denied."""
_TCP: Final = 0b11
"""bind and connect, from version 4 on."""
_SCOPES: Final = 0b11
"""Abstract Unix sockets and signals, from version 6 on."""


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The version of the kernel's interface; 0 without Landlock."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ABI_VERSION)))


def restrict(reads: Iterable[Path], writes: Iterable[Path]) -> None:
    """The calling thread may read and execute what is below `reads`, do everything below `writes`, and no more for ever.

    Paths that are not there are left out. Raises `OSError`. Call it where `version` is at least 1 and before any other
    thread is started: threads that run already are not bound by it.
    """
    newest = version()
    handled = (1 << _RIGHTS_BITS.get(newest, 16)) - 1
    # An older kernel refuses a longer record than it knows, even of zeros that it would not have to understand.
    size = 8 if newest < 4 else 16 if newest < 6 else 24
    attributes = _RulesetAttr(handled, _TCP, _SCOPES)
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    try:
        for path in reads:
            _allow(ruleset, path, handled & _READ)
        for path in writes:
            _allow(ruleset, path, handled)
        forbid_new_privileges()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def forbid_new_privileges() -> None:
    """No program that this process executes gains rights by it: what both Landlock and seccomp demand first."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs cannot be set")


def _allow(ruleset: int, path: Path, rights: int) -> None:
    with suppress(FileNotFoundError):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            granted = rights if path.is_dir() else rights & _FILE_RIGHTS
            rule = _PathBeneathAttr(granted, place)
            _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(place)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result

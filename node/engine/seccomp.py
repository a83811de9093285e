"""seccomp: which system calls this process may still make, and of a few, with which arguments. An allowlist.

Everything else gives EPERM, in all threads, for ever. An error, and not the end of the process: that protects as well, and
a library that merely tries something new (the C library does, release by release) goes on without it. Only a call of
another architecture ends the process, since its numbers mean other things.

The filter is written here rather than by libseccomp, which would have to be found and loaded inside the sandbox.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .landlock import forbid_new_privileges

# What JAX does when it compiles and runs, and the worker on its socket, traced on x86-64 with glibc 2.36; with it their
# neighbours that other C libraries use for the same. Numbers: x86-64, then the generic table that aarch64 has (-1: none).
_ALWAYS: Final = {
    # Files, by whatever Landlock and the mount namespace have left.
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "close": (3, 57), "lseek": (8, 62), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291), "stat": (4, -1),
    "lstat": (6, -1), "access": (21, -1), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, -1),
    "readlinkat": (267, 78), "getdents64": (217, 61), "fadvise64": (221, 223), "fstatfs": (138, 44), "statfs": (137, 43),
    "getcwd": (79, 17), "dup": (32, 23),
    # Waiting, and the control socket; no call that makes a socket is here.
    "poll": (7, -1), "ppoll": (271, 73), "select": (23, -1), "pselect6": (270, 72), "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21), "epoll_wait": (232, -1), "epoll_pwait": (281, 22), "eventfd2": (290, 19), "pipe2": (293, 59),
    "recvfrom": (45, 207),
    # Memory. Executable too: XLA compiles.
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "mbind": (237, 235), "get_mempolicy": (239, 236), "membarrier": (324, 283),
    # Threads.
    "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293), "gettid": (186, 178),
    "set_tid_address": (218, 96), "exit": (60, 93), "exit_group": (231, 94), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "sched_getparam": (143, 121), "sched_getscheduler": (145, 120), "getcpu": (309, 168),
    # Signals to itself.
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "setitimer": (38, 103),
    # What it is and what time it is.
    "getpid": (39, 172), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "getrlimit": (97, 163), "getrusage": (98, 165), "getpriority": (140, 141),
    "sysinfo": (99, 179), "uname": (63, 160), "times": (100, 153), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "gettimeofday": (96, 169), "getrandom": (318, 278),
    "arch_prctl": (158, -1), "seccomp": (317, 277),
}  # fmt: skip
"""`seccomp` is here because a second filter can only take more away."""

_WRITING: Final = {
    "open": (2, -1), "openat": (257, 56), "rename": (82, -1), "renameat": (264, 38), "renameat2": (316, 276),
    "unlink": (87, -1), "unlinkat": (263, 35), "mkdir": (83, -1), "mkdirat": (258, 34), "ftruncate": (77, 46),
}  # fmt: skip
"""For what is compiled while bundles are loaded, which is kept."""

_CLONE, _CLONE3, _TGKILL, _SENDTO = (56, 220), (435, 435), (234, 131), (44, 206)
_PRCTL, _PRLIMIT, _IOCTL, _FCNTL, _OPENAT = (157, 167), (302, 261), (16, 29), (72, 25), _WRITING["openat"]

_THREAD: Final = 0x00010000
_NEW_NAMESPACES: Final = 0x7E020080
"""CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET and, of clone's lowest byte (the exit signal), -TIME."""
_PR_OPTIONS: Final = (15, 16, 0x53564D41, 38)
"""A thread's name, set and got, that of a piece of memory, and no_new_privs, which comes before a second filter."""
_IOCTLS: Final = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
"""Is it a terminal (Python asks this of every file), how much can be read, non-blocking, close on exec or not."""
_FCNTLS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 1030)
"""Duplicates, flags and locks. Not F_SETOWN, by which the kernel would signal a process of the caller's choice."""
_OPEN_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000
"""Any of these flags of open changes something; the last one is an unnamed temporary file."""

_ARCHITECTURES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32: Final = 0x40000000
"""From this number on, x86-64 has a second table."""

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER, _ARCHITECTURE = 0, 4
_PR_SECCOMP_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1
_SECCOMP: Final = _ALWAYS["seccomp"]


def supported() -> bool:
    """Whether there is a table of numbers for this machine; that the kernel has seccomp is learnt by `load`."""
    return platform.machine() in _ARCHITECTURES


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is allowed beyond computing and answering on the socket."""

    writing: bool
    """Files may be opened for writing, made, renamed and removed."""
    devices: bool = False
    """Any ioctl: how a GPU's driver is spoken to."""


def load(allowed: Allowed) -> None:
    """All threads of this process make no other system calls from now on. Raises `OSError` without seccomp."""
    column, architecture = _ARCHITECTURES[platform.machine()]
    code = b"".join(_program(column, architecture, allowed))
    instructions = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code) // 8, ctypes.cast(instructions, ctypes.c_void_p))
    forbid_new_privileges()
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_uint(_FLAG_TSYNC)
    result = libc.syscall(_SECCOMP[column], _PR_SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(program))
    if result:  # above 0: a thread that has a filter which is not this one's
        raise OSError(ctypes.get_errno() or errno.ESRCH, "the system call filter cannot be loaded into every thread")


def _program(column: int, architecture: int, allowed: Allowed) -> Iterator[bytes]:
    """The filter's instructions. Each rule stands for itself and falls through to the next, so no jump is a long one."""
    yield _instruction(_LOAD, _ARCHITECTURE)
    yield _instruction(_JUMP_EQUAL, architecture, 1, 0)
    yield _instruction(_RETURN, _KILL)
    yield _instruction(_LOAD, _NUMBER)
    yield _instruction(_JUMP_AT_LEAST, _X32, 0, 1)
    yield _instruction(_RETURN, _ERROR | errno.EPERM)
    plain = _ALWAYS | (_WRITING if allowed.writing else {}) | ({"ioctl": _IOCTL} if allowed.devices else {})
    for numbers in plain.values():
        if numbers[column] >= 0:
            yield _instruction(_JUMP_EQUAL, numbers[column], 0, 1)
            yield _instruction(_RETURN, _ALLOW)
    # The C library starts threads by clone3, whose flags no filter can see; told that there is none, it uses clone.
    yield from _if_number(_CLONE3[column], [_instruction(_RETURN, _ERROR | errno.ENOSYS)])
    yield from _if_number(_CLONE[column], [*_needs_bits(0, _THREAD), *_forbids_bits(0, _NEW_NAMESPACES)])
    yield from _if_number(_TGKILL[column], _one_of(0, (os.getpid(),)))
    yield from _if_number(_SENDTO[column], [*_needs_value(4, 0, high=True), *_needs_value(4, 0)])  # no address
    yield from _if_number(_PRCTL[column], _one_of(0, _PR_OPTIONS))
    yield from _if_number(_PRLIMIT[column], _one_of(0, (0,)))  # its own limits, and never up
    yield from _if_number(_IOCTL[column], _one_of(1, _IOCTLS))
    yield from _if_number(_FCNTL[column], _one_of(1, _FCNTLS))
    yield from _if_number(_OPENAT[column], _forbids_bits(2, _OPEN_WRITES))
    yield _instruction(_RETURN, _ERROR | errno.EPERM)


def _if_number(number: int, rule: list[bytes]) -> list[bytes]:
    """The rule for one call, ending in "allowed"; each of its checks returns if it fails."""
    body = [*rule, _instruction(_RETURN, _ALLOW)]
    return [_instruction(_JUMP_EQUAL, number, 0, len(body)), *body]


def _one_of(argument: int, values: tuple[int, ...]) -> list[bytes]:
    """Compares the lower half: all of these arguments are ints."""
    checks = [_instruction(_JUMP_EQUAL, value, len(values) - index, 0) for index, value in enumerate(values)]
    return [_load(argument), *checks, _instruction(_RETURN, _ERROR | errno.EPERM)]


def _needs_value(argument: int, value: int, *, high: bool = False) -> list[bytes]:
    return [
        _load(argument, high=high),
        _instruction(_JUMP_EQUAL, value, 1, 0),
        _instruction(_RETURN, _ERROR | errno.EPERM),
    ]


def _needs_bits(argument: int, bits: int) -> list[bytes]:
    """At least one of them; `bits` is one bit wherever this is used."""
    return [_load(argument), _instruction(_JUMP_ANY_BIT, bits, 1, 0), _instruction(_RETURN, _ERROR | errno.EPERM)]


def _forbids_bits(argument: int, bits: int) -> list[bytes]:
    return [_load(argument), _instruction(_JUMP_ANY_BIT, bits, 0, 1), _instruction(_RETURN, _ERROR | errno.EPERM)]


def _load(argument: int, *, high: bool = False) -> bytes:
    """Both architectures are little-endian: the lower half comes first."""
    return _instruction(_LOAD, 16 + 8 * argument + 4 * high)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return code.to_bytes(2, "little") + bytes((if_true, if_false)) + value.to_bytes(4, "little")

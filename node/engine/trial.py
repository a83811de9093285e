"""What confines workers on this machine, found out by letting one try: `probe`, started as a worker is."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...protocol.errors import Code, EngineError
from .probe import SECRET
from .sandbox import BUBBLEWRAP, Box, environment

ATTEMPTS: Final[Mapping[str, str]] = {
    "network": "connect to a port of this machine",
    "passwd": "read /etc/passwd",
    "home": "list the home directory",
    "secret": "read a file of this user's",
    "write": "write a file beside it",
    "cache": "change a compiled program after the bundles were loaded",
    "processes": "see other processes",
    "fork": "start a process",
    "exec": "execute a program",
    "ptrace": "trace the node's process",
    "read memory": "read the node's memory",
    "signal": "signal the node's process",
    "mount": "mount a file system",
    "namespace": "make a user namespace, a common way to holes of the kernel",
    "memory": "take more memory than its limit",
    "setuid": "become another user",
    "core": "leave a core file with what it computed",
}
"""What is tried, by the probe's names."""

_PLACE: Final = "/var/tmp"
"""Not /tmp: inside, that is another one."""

_TRIAL_S_MAX: Final = 60.0
"""It takes a second; a machine under load a few more."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial's outcome."""

    measures: tuple[str, ...]
    """Those that hold by the worker's own account, and `BUBBLEWRAP` if it was started in a box."""
    attempts: Mapping[str, str | None]
    """The error that each of `ATTEMPTS` met; None for one that succeeded."""

    @property
    def holes(self) -> tuple[str, ...]:
        """The attempts that succeeded."""
        return tuple(name for name, met in self.attempts.items() if met is None)


def try_out(bwrap: str, *, confined: bool = True) -> Trial:
    """A process started as a worker is, by `bwrap` if that is no empty text, has tried all that it should not do.

    With `confined` false it does nothing to itself, so that what bubblewrap alone holds back can be seen. Raises
    `EngineError(worker_failed)` if it ends without an answer.
    """
    kept = ctypes.create_string_buffer(b"of the node itself")
    with tempfile.TemporaryDirectory(prefix="fallow-trial-", dir=_PLACE) as folder, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        Path(folder, SECRET).write_text("of this user")
        (cache := Path(folder, "cache")).mkdir()
        facts = (listening.getsockname()[1], os.getpid(), ctypes.addressof(kept), folder, cache)
        command = [sys.executable, "-P", "-m", f"{__package__}.probe", *map(str, facts)]
        if bwrap:
            command = Box(bwrap, writes=(cache,)).wrap(command)
        return _run(command if confined else [*command, "--unconfined"], boxed=bool(bwrap))


def _run(command: list[str], *, boxed: bool) -> Trial:
    try:
        ended = subprocess.run(command, capture_output=True, timeout=_TRIAL_S_MAX, env=environment(), check=False)
        said = json.loads(ended.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(Code.WORKER_FAILED, f"The trial of the sandbox did not end: {error}.") from None
    except ValueError:
        last = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {ended.returncode}"
        raise EngineError(Code.WORKER_FAILED, f"The trial of the sandbox broke off: {last}") from None
    return Trial((*([BUBBLEWRAP] if boxed else []), *said["measures"]), said["attempts"])

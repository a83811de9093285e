"""`python -m fallow.node.power.helper`: the one thing that needs root, apart from the node: an accelerator's own power limit.

    fallow-power --socket /run/fallow-power.sock --user fallow      as root; off unless somebody starts it

It takes lines `CAP INDEX WATTS` and answers `ok`, or why not. It sets nothing but that limit, within what the accelerator's
maker and its owner allow, for one user, and sets it back to what it was when that user's node has gone, however it went; when
it is told to end; and, should it have been killed, at its next start.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..sensors.nvml import Nvml, NvmlError

LINE_BYTES_MAX: Final = 64
CAP_S: Final = 30.0
"""A node says its wish again so often, to a helper that was started meanwhile, too."""
IDLE_S: Final = 3 * CAP_S
"""One that has said nothing for so long is frozen."""
KEPT_BYTES_MAX: Final = 4096
WATTS_MAX: Final = 1e6


class Limits:
    """The limits that were lowered, and what they were before: also in a file, from before the first is lowered."""

    def __init__(self, library: Nvml, kept: Path) -> None:
        """What one that was killed has left behind is set back."""
        self._library = library
        self._kept = kept
        self._found_w = self._left_behind()
        self.lift()

    def lower(self, index: int, watts: float) -> None:
        """The accelerator draws no more than this, as far as its maker lets it be told. Raises `NvmlError`, `OSError`."""
        least, most = self._library.limits_w(index)
        if index not in self._found_w:
            found_w = {**self._found_w, index: self._library.limit_w(index)}
            self._keep(found_w)
            self._found_w = found_w
        self._library.cap(index, min(most, self._found_w[index], max(least, watts)))

    def lift(self) -> None:
        """Every limit is what it was; one that could not be set back is known, and in the file, until the next time."""
        for index, watts in list(self._found_w.items()):
            with suppress(NvmlError):
                self._library.cap(index, watts)
                del self._found_w[index]
        if not self._found_w:
            self._kept.unlink(missing_ok=True)

    def _keep(self, found_w: dict[int, float]) -> None:
        """Whole, or as it was. Whoever may write beside the socket could have laid a link there: it is replaced, never
        followed."""
        scratch = self._kept.with_name(f"{self._kept.name}.new")
        scratch.unlink(missing_ok=True)
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            json.dump(found_w, stream)
        scratch.replace(self._kept)

    def _left_behind(self) -> dict[int, float]:
        nonsense = suppress(OSError, ValueError, TypeError, AttributeError, RecursionError)
        with nonsense, os.fdopen(os.open(self._kept, os.O_RDONLY | os.O_NOFOLLOW)) as stream:
            if os.fstat(stream.fileno()).st_uid == os.geteuid():
                found, known = json.loads(stream.read(KEPT_BYTES_MAX)).items(), range(len(self._library))
                return {int(index): float(w) for index, w in found if int(index) in known and 0 < w < WATTS_MAX}
        return {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves one node after another until it is told to end. 1, with a sentence, where there is nothing to cap."""
    parser = argparse.ArgumentParser(prog="fallow-power", description="Caps accelerators for a node, as root.")
    parser.add_argument("--socket", type=Path, required=True, help="where the node asks; made, and owned by the user")
    parser.add_argument("--user", required=True, help="whose node may ask: a name or a number")
    parser.add_argument("--nvml", default="libnvidia-ml.so.1", help="NVIDIA's management library")
    options = parser.parse_args(arguments)
    try:
        library = Nvml(options.nvml)
        user = int(options.user) if options.user.isdecimal() else pwd.getpwnam(options.user).pw_uid
    except (NvmlError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    limits = Limits(library, options.socket.with_name(f"{options.socket.name}.limits"))
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, _end)
    try:
        with _listening(options.socket, user) as listening:
            print("ready", flush=True)
            while True:
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    if _asker(connection) in (user, 0):
                        serve(connection, library, limits)
    finally:
        limits.lift()  # once more: being told to end may have broken into the last time


def serve(connection: socket.socket, library: Nvml, limits: Limits) -> None:
    """One node's wishes, until it has gone; then every limit is what it was."""
    connection.settimeout(IDLE_S)
    try:
        with connection.makefile("rb") as lines:
            while line := lines.readline(LINE_BYTES_MAX):
                connection.sendall(_obey(line.decode(errors="replace"), library, limits).encode() + b"\n")
    finally:
        limits.lift()


def _obey(line: str, library: Nvml, limits: Limits) -> str:
    wish = re.fullmatch(r"CAP (\d{1,2}) (\d{1,6})\n", line)
    if wish is None or int(wish[1]) >= len(library):
        return "no: say CAP INDEX WATTS, of an accelerator that is there"
    try:
        limits.lower(int(wish[1]), float(wish[2]))
    except (NvmlError, OSError) as error:
        return f"no: {error}"
    return "ok"


def _end(number: int, frame: object) -> None:
    """Out of whatever it does, through every `finally`; once."""
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(0)


def _listening(path: Path, user: int) -> socket.socket:
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    os.umask(before)
    os.chown(path, user, -1)
    listening.listen(1)
    return listening


def _asker(connection: socket.socket) -> int:
    """The user on the other side, by the kernel's word."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[1])


if __name__ == "__main__":
    sys.exit(main())

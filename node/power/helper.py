"""`python -m fallow.node.power.helper`: the one thing that needs root, apart from the node: an accelerator's own power limit.

    fallow-power --socket /run/fallow-power.sock --user fallow      as root; off unless somebody starts it

It takes lines `CAP INDEX WATTS` and answers `ok`, or why not. It sets nothing but that limit, within what the accelerator's
maker allows, for one user, and sets it back to the default when that user's node has gone, however it went.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..sensors.nvml import Nvml, NvmlError

LINE_BYTES_MAX: Final = 64
IDLE_S: Final = 3600.0
"""A node repeats its wish each minute; one that has not for an hour is frozen."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves one node after another until it is killed. 1, with a sentence, where there is nothing to cap."""
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
    options.socket.unlink(missing_ok=True)
    before = os.umask(0o177)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(options.socket))
        os.umask(before)
        os.chown(options.socket, user, -1)
        listening.listen(1)
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                if _asker(connection) in (user, 0):
                    serve(connection, library)


def serve(connection: socket.socket, library: Nvml) -> None:
    """One node's wishes, until it has gone; then every limit is what it was."""
    connection.settimeout(IDLE_S)
    touched: set[int] = set()
    try:
        with connection.makefile("rb") as lines:
            while line := lines.readline(LINE_BYTES_MAX):
                connection.sendall(_obey(line.decode(errors="replace"), library, touched).encode() + b"\n")
    finally:
        for index in touched:
            with suppress(NvmlError):
                library.cap(index, library.limits_w(index)[2])


def _obey(line: str, library: Nvml, touched: set[int]) -> str:
    wish = re.fullmatch(r"CAP (\d{1,2}) (\d{1,6})\n", line)
    if wish is None or int(wish[1]) >= len(library):
        return "no: say CAP INDEX WATTS, of an accelerator that is there"
    index, watts = int(wish[1]), float(wish[2])
    try:
        least, most, _ = library.limits_w(index)
        touched.add(index)
        library.cap(index, min(most, max(least, watts)))
    except NvmlError as error:
        return f"no: {error}"
    return "ok"


def _asker(connection: socket.socket) -> int:
    """The user on the other side, by the kernel's word."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[1])


if __name__ == "__main__":
    sys.exit(main())

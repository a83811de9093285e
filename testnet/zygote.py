"""The parent of a test network's nodes: it has imported what a node needs, once, and forks each of them.

    python -m fallow.testnet.zygote --dir DIR [--lifeline]

Importing takes most of a second of processor time and 70 MiB, for each node anew; forked nodes share both. Whoever may open
the socket in DIR asks for a node in one line of JSON and reads the answer from the same connection: the process id, and then
what the node itself says when it is ready. An adversary that is another program than the node is run instead of it. A node
holds the reading end of a pipe whose other end is here alone, so none outlives this process; with `--lifeline`, this one ends
with its own standard input.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from ..node.__main__ import main as run_node
from ..node.control import reachable
from ..node.engine.sandbox import bubblewrap
from . import clock
from .record import ZYGOTE_SOCKET

REQUEST_BYTES_MAX: Final = 64 * 1024
REQUEST_S: Final = 5.0
"""For a request's one line, once somebody has connected."""
NAMESPACES: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_NAME: Final = 15


def main(arguments: Sequence[str] | None = None) -> None:
    """Nodes are forked until standard input ends, with `--lifeline`, or a signal comes."""
    parser = argparse.ArgumentParser(prog="fallow-zygote")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--lifeline", action="store_true")
    options = parser.parse_args(arguments)
    bubblewrap()  # what each node would find out by a process of its own
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them: nobody asks here what became of one
    gc.collect()
    gc.freeze()  # what a collection does not touch stays shared
    with reachable(options.dir, ZYGOTE_SOCKET) as address, socket.socket(socket.AF_UNIX) as listening:
        (options.dir / ZYGOTE_SOCKET).unlink(missing_ok=True)
        before = os.umask(0o177)
        listening.bind(address)
        os.umask(before)
        listening.listen(64)
        print("ready", flush=True)
        _serve(listening, lifeline=options.lifeline)


def _serve(listening: socket.socket, *, lifeline: bool) -> None:
    end, held = os.pipe()
    while True:
        waited_for = [listening.fileno(), 0] if lifeline else [listening.fileno()]
        told, _, _ = select.select(waited_for, [], [])
        if 0 in told:
            return
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(REQUEST_S)
            try:
                request = json.loads(_line(connection))
            except (OSError, ValueError):
                continue
            connection.settimeout(None)
            if not (pid := os.fork()):
                listening.close()
                os.close(held)
                _become(request, connection, end)
            connection.sendall(b'{"pid": %d}\n' % pid)


def _line(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\n"):
        part = connection.recv(4096)
        if not part or len(received) > REQUEST_BYTES_MAX:
            raise ValueError("no line")
        received += part
    return received


def _become(request: Mapping[str, Any], connection: socket.socket, end: int) -> NoReturn:
    """This process, forked a moment ago, is the node, and ends as it."""
    status = 1
    try:
        errors = os.open(request["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor, target in ((end, 0), (connection.fileno(), 1), (errors, 2)):
            os.dup2(descriptor, target)
        for descriptor in (end, errors, connection.detach()):
            os.close(descriptor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Of the same session but another group: a terminal's Ctrl-C is not for it, and when its parent dies while it is
        # frozen, its group is orphaned and the kernel thaws and ends it (credentials(7), setpgid(2)).
        os.setpgid(0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NAME, request["name"].encode()[:15], 0, 0, 0)
        if request["namespace"]:
            _enter(libc, NAMESPACES / request["namespace"])
        if command := request["command"]:
            os.execv(command[0], [*command, "--config", request["config"]])
        clock.install(Path(request["clock"]))
        status = run_node(["--config", request["config"]])
    except BaseException:  # noqa: BLE001  # a process's outermost task: what it ends with is written down
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _enter(libc: ctypes.CDLL, namespace: Path) -> None:
    with namespace.open() as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


if __name__ == "__main__":
    main()

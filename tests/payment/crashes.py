"""Run as a program: a client and a node, one of which is killed at one write of its disk, for each of its writes.

    python -m ... FOLDER

Each run leaves a folder `<victim>-<number>-<before|after>` with both sides' files as they are once everybody has been started
again and all is quiet. Children are forked from this process, which has everything imported: a run takes a tenth of a second.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).parent))

from pair import CLIENT, SEEN, House, Line, desk_of, request_of

from fallow.client.execution import Broken, Receipted, execute
from fallow.client.wallet import Wallet
from fallow.node.log import wall_ms
from fallow.protocol.errors import FallowError

TOKENS = 40
"""A full window and a part: two receipts."""
JOBS = 2
RUNS_MAX = 400
PATIENCE_S = 30


class Killer:
    """Ends this process at its `number`-th write, `before` it or after; or only counts them."""

    def __init__(self, number: int, *, before: bool) -> None:
        self.number, self.before, self.seen = number, before, 0

    def around(self, sql: str, call: Callable[[], Any]) -> Any:
        if not sql.lstrip().upper().startswith(("SELECT", "PRAGMA")):
            self.seen += 1
        else:
            return call()
        if self.before and self.seen == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call()
        if not self.before and self.seen == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def watch_disk(killer: Killer) -> None:
    """From now on, every connection of this process to a database of its own goes by the killer."""
    connect = sqlite3.connect

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return killer.around(sql, partial(super().execute, sql, *values))

        def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return killer.around(sql, partial(super().executemany, sql, *values))

        def executescript(self, sql: str) -> sqlite3.Cursor:
            return killer.around(sql, partial(super().executescript, sql))

    sqlite3.connect = partial(connect, factory=Watched)  # type: ignore[assignment]


async def node(folder: Path, door: socket.socket) -> None:
    house = House(folder / "node")
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(door))
    async with trio.open_nursery() as nursery:
        await trio.serve_listeners(house.serve, [listener], handler_nursery=nursery)


async def client(folder: Path, door: socket.socket) -> None:
    """Brings what a process before it left, has its jobs done, and has all its vouchers confirmed in the end."""
    address = door.getsockname()
    door.close()

    async def dial() -> trio.SocketStream:
        return await trio.open_unix_socket(address)

    line = Line(dial)
    wallet = Wallet(folder / "wallet.db", CLIENT)
    desk = desk_of(wallet, line)
    for channel in await wallet.take_over(wall_ms()):
        desk.settler.add((), channel)
    for _ in range(JOBS):
        try:
            async with execute(desk, SEEN, request_of(TOKENS)) as execution:
                async for event in execution.events:
                    if isinstance(event, Receipted):
                        await execution.pay(event)
                    if isinstance(event, Broken) or (
                        isinstance(event, Receipted) and event.receipt.record.end != "open"
                    ):
                        break
        except FallowError:
            pass  # the node is being started again
    await desk.settler.drain()
    wallet.close()


def run(folder: Path, victim: str, number: int, *, before: bool) -> bool:
    """Whether the victim came so far that it was killed. Whoever is killed is started again, once."""
    folder.mkdir(parents=True)
    door = socket.socket(socket.AF_UNIX)  # open all the time: whoever dials a node that is dead waits for the next one
    door.bind(str(folder / "door"))
    door.listen()
    kill = Killer(number, before=before)
    nodes = [_fork(node, folder, door, kill if victim == "node" else None)]
    clients = [_fork(client, folder, door, kill if victim == "client" else None)]
    killed = False
    while True:
        pid, status = os.wait()
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if pid in clients and not died:
            assert status == 0, f"the client ended with {status}"
            break
        assert died and not killed, f"a {'client' if pid in clients else 'node'} ended with {status}"
        killed = True
        (clients if pid in clients else nodes).append(_fork(client if pid in clients else node, folder, door, None))
    os.kill(nodes[-1], signal.SIGKILL)
    os.waitpid(nodes[-1], 0)
    door.close()
    return killed


def _fork(program: Callable[..., Any], folder: Path, door: socket.socket, killer: Killer | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(PATIENCE_S)
    try:
        if killer is not None:
            watch_disk(killer)
        trio.run(program, folder, door)
    except BaseException:  # noqa: BLE001 - a forked child must not come back into its parent's code
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(folder: Path) -> None:
    for victim in ("client", "node"):
        for before in (True, False):
            number = 1
            while run(folder / f"{victim}-{number}-{'before' if before else 'after'}", victim, number, before=before):
                number += 1
                assert number < RUNS_MAX


if __name__ == "__main__":
    main(Path(sys.argv[1]))

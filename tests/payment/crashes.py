"""Run as a program: a client and a node, one of which is killed at one write of its disk, for each of its writes.

    python -m ... FOLDER [held|roll]      held: half of the pay is held, and could be forfeited
                                          roll: a channel's limit covers one job, so that each needs a new one

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
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).parent))

from pair import CLIENT, HOLDING, SEEN, House, Line, desk_of, request_of

from fallow.client import wallet as wallet_module
from fallow.client.desk import Desk
from fallow.client.events import Broken, Receipted
from fallow.client.execution import execute
from fallow.client.nodes import Node
from fallow.client.ordering import Request
from fallow.client.wallet import Wallet
from fallow.node.log import wall_ms
from fallow.protocol.errors import FallowError

Program = Callable[[Path, socket.socket], Awaitable[None]]

TOKENS = 40
"""A full window and a part: two receipts."""
JOBS = 2
ONE_JOB_UCR = 200
"""The limit of a channel that covers one job, and not two."""
RUNS_MAX = 400
EITHER: Mapping[str, str] = {"client": "", "node": ""}
PATIENCE_S = 30


class Killer:
    """Ends this process at its `number`-th write, `before` it or after; or only counts them. Those before the first one in
    which `since` stands do not count; `whole`: nor do those that change nothing on disk until their transaction ends."""

    def __init__(self, number: int, *, before: bool, since: str = "", whole: bool = False) -> None:
        self.number, self.before, self.since, self.whole = number, before, since, whole
        self.seen, self.begun = 0, False

    def around(self, sql: str, call: Callable[[], Any], *, inside: bool) -> Any:
        """`inside`: in a transaction."""
        word = "".join(sql.split(maxsplit=1)[:1]).upper()
        self.begun = self.begun or self.since in sql
        waits = self.whole and (word != "COMMIT" if inside else word == "BEGIN")
        if word in ("SELECT", "PRAGMA") or waits or not self.begun:
            return call()
        self.seen += 1
        if self.before and self.seen == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call()
        if not self.before and self.seen == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def watch_disk(killer: Killer, files: Collection[str] = ()) -> None:
    """From now on, every connection of this process to a database of its own goes by the killer; or to `files` alone."""
    connect = sqlite3.connect

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return killer.around(sql, partial(super().execute, sql, *values), inside=self.in_transaction)

        def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return killer.around(sql, partial(super().executemany, sql, *values), inside=self.in_transaction)

        def executescript(self, sql: str) -> sqlite3.Cursor:
            return killer.around(sql, partial(super().executescript, sql), inside=self.in_transaction)

    def watched(path: Path | str, **how: Any) -> sqlite3.Connection:
        own = not files or Path(path).name in files
        return connect(path, **how, factory=Watched) if own else connect(path, **how)

    sqlite3.connect = watched  # type: ignore[assignment]


async def node(folder: Path, door: socket.socket, *, held: bool = False) -> None:
    await serve(House(folder / "node", holds=held), door)


async def serve(house: House, door: socket.socket) -> None:
    """Whoever comes to the door, until killed."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(door))
    async with trio.open_nursery() as nursery:
        await trio.serve_listeners(house.serve, [listener], handler_nursery=nursery)


@asynccontextmanager
async def sitting(folder: Path, door: socket.socket) -> AsyncIterator[Desk]:
    """The client's desk: it has what a process before it left, and in the end all its vouchers are confirmed."""
    address = door.getsockname()
    door.close()

    async def dial() -> trio.SocketStream:
        return await trio.open_unix_socket(address)

    line = Line(dial)
    wallet = Wallet(folder / "wallet.db", CLIENT)
    desk = desk_of(wallet, line)
    for channel in await wallet.take_over(wall_ms()):
        desk.settler.add((), channel)
    yield desk
    await desk.settler.flush()
    await desk.settler.drain()
    wallet.close()


async def work(desk: Desk, node: Node, request: Request) -> bool:
    """One job, paid as it goes. Whether it came to its end."""
    try:
        async with execute(desk, node, request) as execution:
            async for event in execution.events:
                if isinstance(event, Receipted):
                    await execution.pay(event)
                    if event.receipt.record.end != "open":
                        return True
                if isinstance(event, Broken):
                    return False
    except FallowError:
        pass  # the node is being started again
    return False


async def client(folder: Path, door: socket.socket, *, held: bool = False, jobs: int = JOBS) -> None:
    async with sitting(folder, door) as desk:
        done = [await work(desk, HOLDING if held else SEEN, request_of(TOKENS)) for _ in range(jobs)]
        # One may be lost with the node, and the next find its channel spent: by what the node claims that nobody was told of.
        assert sum(done) >= jobs - 2, done


def run(folder: Path, victim: str, kill: Killer, node: Program, client: Program) -> bool:
    """Whether the victim came so far that it was killed. Whoever is killed is started again, once."""
    folder.mkdir(parents=True)
    door = socket.socket(socket.AF_UNIX)  # open all the time: whoever dials a node that is dead waits for the next one
    door.bind(str(folder / "door"))
    door.listen()
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


def in_a_process(work: Callable[[], None], killer: Killer | None = None, files: Collection[str] = ()) -> bool:
    """Whether it was killed."""
    code = os.waitstatus_to_exitcode(os.waitpid(_begin(work, killer, files), 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def _fork(program: Program, folder: Path, door: socket.socket, killer: Killer | None) -> int:
    return _begin(partial(trio.run, program, folder, door), killer)


def _begin(work: Callable[[], None], killer: Killer | None, files: Collection[str] = ()) -> int:
    """The id of a process that does this, and nothing else."""
    if pid := os.fork():
        return pid
    signal.alarm(PATIENCE_S)
    try:
        if killer is not None:
            watch_disk(killer, files)
        work()
    except BaseException:  # noqa: BLE001 - a forked child must not come back into its parent's code
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def kill_each(
    folder: Path, node: Program, client: Program, victims: Mapping[str, str] = EITHER, *, whole: bool = False
) -> None:
    """Each victim was killed at each of its writes, in a run of its own, from the first one on in which stands what is said of
    it; `whole`: before and after each of them that changes its disk."""
    for victim, since in victims.items():
        for name in ("before", "after"):
            for number in range(1, RUNS_MAX):
                kill = Killer(number, before=name == "before", since=since, whole=whole)
                if not run(folder / f"{victim}-{number}-{name}", victim, kill, node, client):
                    break
            else:
                raise AssertionError(f"the {victim} writes more than {RUNS_MAX} times")


if __name__ == "__main__":
    held, roll = sys.argv[2:] == ["held"], sys.argv[2:] == ["roll"]
    if roll:
        wallet_module.CREDIT_LIMIT_UCR = ONE_JOB_UCR
    serving, asking = partial(node, held=held), partial(client, held=held, jobs=JOBS + roll)
    kill_each(Path(sys.argv[1]), serving, asking, whole=roll)

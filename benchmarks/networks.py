"""The network beside hivemind's and Lattica's: joining, storing, finding, a round trip, bulk, and reading after kills.

    FALLOW_BENCH_HIVEMIND=ENVIRONMENT/bin/python FALLOW_BENCH_LATTICA=ENVIRONMENT/bin/python python benchmarks/networks.py

Neither is a dependency. Each environment is one of its own: `ENVIRONMENT/bin/pip install hivemind==1.1.12`, and in another
one `lattica==1.0.21`; without it, that column is missing. Each network has so many peers, a process each (hivemind's have
`p2pd` beside them), all joined by the first; one network runs at a time. What is stored has 2 KB, what is echoed 256 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any, Final

import hosts
import table
import trio

ELSEWHERE: Final = Path(__file__).parent / "elsewhere"
SCRIPTS: Final = {"Fallow": "fallow_peer.py", "hivemind": "hivemind_peer.py", "Lattica": "lattica_peer.py"}
VARIABLES: Final = {"hivemind": "FALLOW_BENCH_HIVEMIND", "Lattica": "FALLOW_BENCH_LATTICA"}
VALUE_BYTES: Final = 2000
KEYS: Final = 20
ECHOES: Final = 200
BULK_MIB: Final = 64
BULKS: Final = 3
START_S: Final = 120.0
ANSWER_S: Final = 60.0
SETTLED_S: Final = 3.0


class Peer:
    """One peer's process."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._unread = b""
        self.name = ""
        self.addresses: list[str] = []
        self.joined_s = 0.0
        self._others: list[int] = []
        """Processes that belong to it."""

    async def ready(self) -> None:
        with trio.fail_after(START_S):
            hello = await self._line()
        self.name, self.addresses, self.joined_s = hello["name"], hello["addresses"], hello["joined_s"]
        self._others = hello["pids"]

    async def call(self, *order: object) -> tuple[float, Any]:
        """Seconds that the peer took, as it says itself, and what it came to."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(order).encode() + b"\n")
        with trio.fail_after(ANSWER_S):
            answer = await self._line()
        return answer["took_s"], answer["answer"]

    async def _line(self) -> Any:
        assert self._process.stdout is not None
        while True:
            while b"\n" not in self._unread:
                more = await self._process.stdout.receive_some()
                if not more:
                    raise EOFError("the peer's process ended")
                self._unread += more
            line, _, self._unread = self._unread.partition(b"\n")
            with suppress(ValueError):  # some libraries greet on standard output
                return json.loads(line)

    async def kill(self) -> None:
        """It and what belongs to it have ended without a word."""
        self._process.kill()
        for pid in self._others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            await pipe.aclose()


@asynccontextmanager
async def running(python: str, script: str, count: int) -> AsyncIterator[list[Peer]]:
    """So many peers have joined, the others by the first; when the block ends, none is left."""
    peers: list[Peer] = []
    try:
        while len(peers) < count:
            bootstrap = peers[0].addresses if peers else []
            command = [python, str(ELSEWHERE / script), *bootstrap]
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            peers.append(Peer(process))
            await peers[-1].ready()
        yield peers
    finally:
        with trio.CancelScope(shield=True):
            for peer in peers:
                await peer.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=int, default=10)
    options = parser.parse_args()
    hosts.in_own_network()
    pythons = {"Fallow": sys.executable} | {
        name: os.environ[variable] for name, variable in VARIABLES.items() if variable in os.environ
    }
    columns = {}
    for name, python in pythons.items():
        columns[name] = trio.run(measure, python, SCRIPTS[name], options.peers)
    table.head("what", *columns)
    for row in columns["Fallow"]:
        table.cells(row, *(column[row] for column in columns.values()))


async def measure(python: str, script: str, count: int) -> dict[str, str]:
    """The rows of one network."""
    async with running(python, script, count) as peers:
        print(f"{script}: {count} peers are there", file=sys.stderr)
        rows = {"a peer joins": table.ms([peer.joined_s for peer in peers[1:]])}
        await trio.sleep(SETTLED_S)
        stored = [await peers[index % count].call("store", f"key {index}", VALUE_BYTES) for index in range(KEYS)]
        rows["store"] = spoken(stored, count_of=True)
        read = [await peers[(index + count // 2) % count].call("get", f"key {index}") for index in range(KEYS)]
        rows["get, by another peer"] = spoken(read, count_of=VALUE_BYTES)
        first, second = peers[1], peers[2].name
        rows["first round trip to a peer"] = table.ms([(await first.call("echo", second))[0]])
        rows["round trip"] = table.ms([(await first.call("echo", second))[0] for _ in range(ECHOES)])
        bulks = [(await first.call("bulk", second, BULK_MIB))[0] for _ in range(BULKS)]
        rows[f"{BULK_MIB} MiB one way"] = table.per_s([BULK_MIB / took for took in bulks], "MiB/s")
        for index in range(KEYS):
            await peers[index % count].call("store", f"later {index}", VALUE_BYTES)
        gone = peers[3 : 3 + count // 4]
        for peer in gone:
            await peer.kill()
        left = [peer for peer in peers if peer not in gone]
        peers[:] = left
        read = [await survivor(left, index).call("get", f"later {index}") for index in range(KEYS)]
        rows[f"get, just after {len(gone)} of {count} were killed"] = spoken(read, count_of=VALUE_BYTES)
        again = [await survivor(left, index + 1).call("get", f"later {index}") for index in range(KEYS)]
        rows["  and once more, by yet another peer"] = spoken(again, count_of=VALUE_BYTES)
        return rows


def survivor(left: Sequence[Peer], index: int) -> Peer:
    return left[(index + len(left) // 2) % len(left)]


def spoken(calls: Sequence[tuple[float, Any]], *, count_of: object) -> str:
    """Median and longest, and how many came to what they should."""
    good = sum(answer == count_of or (count_of is True and bool(answer)) for _, answer in calls)
    times = sorted(1e3 * took for took, _ in calls)
    return f"{median(times):.1f} ms, at most {times[-1]:.0f} ({good} of {len(calls)} good)"


if __name__ == "__main__":
    main()

"""Memory and descriptors of every process of a test network, as they go; and which nodes ended without being told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any, Final

import trio

from ..node.log import wall_ms
from . import record
from .processes import ProcessId
from .record import LocalNode

LOG: Final = "samples.jsonl"
EVERY_S: Final = 5.0
MIB: Final = 1024 * 1024
WARM: Final = 1 / 3
"""Of a process's life, in which caches fill: not looked at."""
LOADS_S: Final = {"worker_bytes": 300.0}
"""Nor is so much of it, at least: a worker rises by a GiB while it loads its programs, as they are asked for; with six of
them on two cores it still did after four minutes."""
WINDOWS: Final = 8
SAMPLES_MIN: Final = 3 * WINDOWS
"""In two minutes; a process that lived shorter says nothing about growth."""
SIGMAS: Final = 3.0
SLACK: Final = {"daemon_bytes": 8 * MIB, "worker_bytes": 16 * MIB, "descriptors": 16}
"""What a process may grow by before it is said: arenas are taken by the MiB, and connections come and go."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One node at one moment. Memory is the proportional share: a page that n processes map counts one n-th."""

    time_ms: int
    node: str
    pid: int
    daemon_bytes: int
    worker_bytes: int
    """Of the worker, its sandbox, and a spare one."""
    descriptors: int
    """Of the daemon."""
    worker_pid: int = 0
    """0: there is none."""

    def life(self, what: str) -> int:
        """The process that `what` is of."""
        return self.worker_pid if what == "worker_bytes" else self.pid


@dataclass(frozen=True, slots=True)
class Growth:
    """What one process took over its life, and whether it took ever more."""

    node: str
    what: str
    first: float
    last: float
    rise: float
    """Along the line through the least of each window."""
    grew: bool


def look(node: LocalNode) -> Sample | None:
    """The node as it is now; None if its process has ended."""
    process = node.process
    if not process.running or not (daemon_bytes := process.memory_bytes):
        return None
    workers = process.descendants()
    workers_bytes = sum(each.memory_bytes for each in workers)
    pid = workers[-1].pid if workers else 0
    return Sample(wall_ms(), node.name, node.pid, daemon_bytes, workers_bytes, _descriptors(process), pid)


async def watch(directory: Path, log: Path, ended: trio.MemorySendChannel[LocalNode]) -> None:
    """A sample of each node every `EVERY_S`, until cancelled; whose process has ended is said once."""
    said: set[ProcessId] = set()
    while True:
        nodes = await trio.to_thread.run_sync(record.read, directory)
        for node in nodes:
            sample = await trio.to_thread.run_sync(look, node)
            if sample:
                with log.open("a") as file:
                    file.write(json.dumps(asdict(sample)) + "\n")
            elif node.process not in said:
                said.add(node.process)
                await ended.send(node)
        await trio.sleep(EVERY_S)


def read(log: Path) -> list[Sample]:
    """Every sample of a run."""
    return [Sample(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def growth(samples: Iterable[Sample]) -> list[Growth]:
    """For each node, of the daemon and of the worker of it that lived longest: each thing that it takes, first and last."""
    lives: dict[tuple[str, str], dict[int, list[Sample]]] = {}
    for sample in samples:
        for what in SLACK:
            if pid := sample.life(what):
                lives.setdefault((sample.node, what), {}).setdefault(pid, []).append(sample)
    return [_grown(node, max(found.values(), key=len), what) for (node, what), found in sorted(lives.items())]


def _grown(node: str, life: Sequence[Sample], what: str) -> Growth:
    values: list[Any] = [getattr(sample, what) for sample in life]
    times = [sample.time_ms / 1000 for sample in life]
    loaded = sum(time - times[0] < LOADS_S.get(what, 0.0) for time in times)
    start = max(int(len(life) * WARM), loaded)
    if len(life) < SAMPLES_MIN or len(life) - start < WINDOWS:
        return Growth(node, what, values[0], values[-1], 0.0, False)
    points = _floors(list(zip(times[start:], values[start:], strict=True)))
    slope, error = _fitted(points)
    span = points[-1][0] - points[0][0]
    grew = slope > SIGMAS * error and slope * span > SLACK[what]
    return Growth(node, what, values[0], values[-1], slope * span, grew)


def _floors(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The least of each of `WINDOWS` spans: what is under way comes and goes with the load, and what leaks stays."""
    size = ceil(len(points) / WINDOWS)
    return [min(points[at : at + size], key=lambda point: point[1]) for at in range(0, len(points), size)]


def _fitted(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope of the least squares' line, and its standard error."""
    middle, level = mean(x for x, _ in points), mean(y for _, y in points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    slope = sum((x - middle) * (y - level) for x, y in points) / spread
    rest = sum((y - level - slope * (x - middle)) ** 2 for x, y in points)
    return slope, (rest / max(1, len(points) - 2) / spread) ** 0.5


def _descriptors(process: ProcessId) -> int:
    try:
        return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    except OSError:
        return 0

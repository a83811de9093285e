"""Processes known by more than their number: one that was given an old pid in the meantime is never touched."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of this machine since its boot, running or not."""

    pid: int
    started_ticks: int
    """Its start, in clock ticks since boot: no two processes share both numbers."""

    @property
    def running(self) -> bool:
        """It has not ended (one that its parent has not waited for has)."""
        return _stat(self.pid) == (self.started_ticks, True)

    @property
    def memory_bytes(self) -> int:
        """Its proportional share of memory: a page that n processes map counts one n-th. 0 if it has ended."""
        try:
            lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

    def children(self) -> list[ProcessId]:
        """The processes that it started and that have not ended."""
        found = []
        for tasks in Path(f"/proc/{self.pid}/task").glob("*/children"):
            try:
                pids = [int(pid) for pid in tasks.read_text().split()]
            except OSError:
                continue  # the thread has just ended
            found += [child for child in map(process_of, pids) if child]
        return found

    def descendants(self) -> list[ProcessId]:
        """The processes that it started, and theirs: a node's worker may stand in a sandbox, which is one between."""
        return [each for child in self.children() for each in (child, *child.descendants())]

    def send(self, number: signal.Signals) -> None:
        """The process has got the signal, or has ended."""
        with self._handle() as handle, suppress(ProcessLookupError):
            if handle is not None:
                signal.pidfd_send_signal(handle, number)

    async def freeze(self) -> None:
        """SIGSTOP has reached every thread of it, or it has ended. Not before then does the kernel count it as stopped."""
        self.send(signal.SIGSTOP)
        while self.running and set(self._thread_states()) != {"T"}:  # noqa: ASYNC110  # nobody tells who is no parent
            await trio.sleep(0.001)

    async def ended(self) -> None:
        """Returns once the process has ended."""
        with self._handle() as handle:
            if handle is not None:
                await trio.lowlevel.wait_readable(handle)

    def _thread_states(self) -> Iterator[str]:
        for stat in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(OSError):  # the thread has just ended
                yield stat.read_text().rpartition(")")[2].split()[0]

    @contextmanager
    def _handle(self) -> Iterator[int | None]:
        """A descriptor of this process and no other; None if nothing is left of it.

        One whose first thread has ended may have others that have not: they still hold its files. Of that one the descriptor
        is, and becomes readable with the last (pidfd_open(2)).
        """
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:  # checked after opening: from here on the number cannot change hands
            stat = _stat(self.pid)
            yield handle if stat and stat[0] == self.started_ticks else None
        finally:
            os.close(handle)


def process_of(pid: int) -> ProcessId | None:
    """The process that has this number now, if any."""
    stat = _stat(pid)
    return ProcessId(pid, stat[0]) if stat and stat[1] else None


def _stat(pid: int) -> tuple[int, bool] | None:
    """(start, whether it still runs), from proc_pid_stat(5): fields 22 and 3, counted after the name in parentheses."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19]), fields[0] not in "ZX"

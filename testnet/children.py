"""The node processes of a test network: started, heard once, ended or let go."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import trio

from ..node.keys import load_or_create
from ..protocol.errors import Code, EngineError
from . import record
from .plan import NodePlan
from .processes import ProcessId, process_of
from .record import LocalNode

READY_S = 180.0
"""From start to ready: six workers side by side on two cores take 15 s with a warm compile cache, minutes without."""
_READY_BYTES_MAX = 64 * 1024


class Children:
    """The processes that were started, ready or not."""

    def __init__(self, detached: bool) -> None:
        self.detached = detached
        self._started: list[tuple[subprocess.Popen[bytes], ProcessId]] = []

    async def start(self, plan: NodePlan, directory: Path, toml: str) -> LocalNode:
        """The node is ready. Raises `EngineError` with the code and the words that it ended with."""
        state = directory / plan.name
        state.mkdir(parents=True, exist_ok=True)
        config = state / "node.toml"
        config.write_text(toml)
        owner = load_or_create(state / "owner.key")
        process, popen = self._spawn(config, state / "stderr.log")
        line = await _first_line(popen)
        if not line:
            raise _failure(plan.name, state / "stderr.log")
        said = json.loads(line)
        return LocalNode(
            said["peer_id"], bytes(owner.verify_key).hex(), plan.kind, process.pid, process.started_ticks, str(state),
            tuple(said["addresses"]), plan.liar,
        )  # fmt: skip

    async def end(self, directory: Path) -> None:
        """None is left, nor its record. Bounded in time, so that it may finish while everything is being cancelled."""
        with trio.CancelScope(shield=True):
            await record.stop(process for _, process in self._started)
            for popen, _ in self._started:
                popen.wait(record.REAP_S)
                _close_pipes(popen)
            (directory / record.RECORD).unlink(missing_ok=True)

    def let_go(self) -> None:
        """They are nobody's children any more."""
        for popen, _ in self._started:
            _close_pipes(popen)
            popen.returncode = 0  # not ours to wait for: else its finalizer warns that it still runs

    def _spawn(self, config: Path, errors: Path) -> tuple[ProcessId, subprocess.Popen[bytes]]:
        with errors.open("wb") as log:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "fallow.node", "--config", str(config)],
                stdin=subprocess.DEVNULL if self.detached else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=self.detached,
                # Of the same session but another group: a terminal's Ctrl-C is ours to pass on, and when we die while
                # a node is frozen, its group is orphaned and the kernel thaws and ends it (credentials(7), setpgid(2)).
                process_group=None if self.detached else 0,
            )
        process = process_of(popen.pid)
        assert process is not None, "a child that was not waited for keeps its number"
        self._started.append((popen, process))
        return process, popen


async def _first_line(popen: subprocess.Popen[bytes]) -> bytes:
    """What the node says when it is ready; empty if it ended, or took too long."""
    assert popen.stdout is not None
    received = b""
    with trio.move_on_after(READY_S):
        while not received.endswith(b"\n") and len(received) < _READY_BYTES_MAX:
            await trio.lowlevel.wait_readable(popen.stdout.fileno())
            part = popen.stdout.read1(4096)  # type: ignore[attr-defined]  # typeshed: IO, in truth a BufferedReader
            if not part:
                return b""
            received += part
    return received if received.endswith(b"\n") else b""


def _failure(name: str, log: Path) -> EngineError:
    """Why the node did not start, with the code that it gave itself."""
    lines = log.read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else f"it said nothing in {READY_S:g} s, or ended without a word."
    said = re.fullmatch(r"error: (.*) \[([a-z_]+)\].*", last)
    if said and said[2] in set(Code):
        return EngineError(Code(said[2]), f"Node {name} did not start: {said[1]}")
    return EngineError(Code.WORKER_FAILED, f"Node {name} did not start: {last}")


def _close_pipes(popen: subprocess.Popen[bytes]) -> None:
    for pipe in (popen.stdin, popen.stdout):
        if pipe is not None:
            pipe.close()

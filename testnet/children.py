"""What a test network stands on, from its first process to its last: the zygote, the nodes, and their namespaces."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from ..protocol.errors import Code, EngineError
from . import natlab, record
from .natlab import Lab, Nat, Place
from .plan import NodePlan
from .processes import ProcessId, process_of
from .record import Ground

ZYGOTE_S = 60.0
"""A second of imports; much more on a machine with no time to spare."""


class Children:
    """The processes and namespaces that were made, ready or not."""

    def __init__(self, directory: Path, *, detached: bool) -> None:
        self.detached = detached
        self.ground = Ground()
        self._directory = directory
        self._popen: subprocess.Popen[bytes] | None = None
        self._lab: Lab | None = None

    async def raise_zygote(self) -> None:
        """The process that forks nodes is there. Raises `EngineError(worker_failed)`."""
        errors = self._directory / "zygote.log"
        command = [sys.executable, "-P", "-m", f"{__package__}.zygote", "--dir", str(self._directory)]
        with errors.open("wb") as log:
            self._popen = subprocess.Popen(  # noqa: ASYNC220  # a fork and an exec
                command if self.detached else [*command, "--lifeline"],
                stdin=subprocess.DEVNULL if self.detached else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=self.detached,
                process_group=None if self.detached else 0,  # a terminal's Ctrl-C is ours to pass on
            )
        process = process_of(self._popen.pid)
        assert process is not None, "a child that was not waited for keeps its number"
        self.ground = Ground(process)
        assert self._popen.stdout is not None
        with trio.move_on_after(ZYGOTE_S):
            await trio.lowlevel.wait_readable(self._popen.stdout.fileno())
            if self._popen.stdout.readline() == b"ready\n":
                return
        raise EngineError(Code.WORKER_FAILED, f"The nodes' parent did not start; {errors} says why.")

    def house(self, plans: Sequence[NodePlan]) -> dict[str, Place]:
        """Each of the nodes has a place of its own, and a client has one. Raises `EngineError(worker_failed)`."""
        self._lab = lab = natlab.new()
        lab.raise_switch()
        places = {plan.name: lab.public() if plan.nat is None else lab.home(Nat(plan.nat)) for plan in plans}
        client = lab.public()
        self.ground = Ground(self.ground.zygote, lab.namespaces, lab.wire, client)
        return places

    async def end(self) -> None:
        """None is left, nor a namespace, nor the record. Bounded in time, so that it may finish while everything is being
        cancelled."""
        with trio.CancelScope(shield=True):
            await record.stop(self._forked())
            await record.clear(self._directory, self.ground)
            if self._lab:
                await trio.to_thread.run_sync(self._lab.raze)
            if self._popen:
                self._popen.wait(record.REAP_S)
                _close_pipes(self._popen)

    def let_go(self) -> None:
        """They are nobody's children any more."""
        if self._popen:
            _close_pipes(self._popen)
            self._popen.returncode = 0  # not ours to wait for: else its finalizer warns that it still runs

    def _forked(self) -> list[ProcessId]:
        """The nodes, also those that are not ready yet, or were started by somebody else since."""
        return self.ground.zygote.children() if self.ground.zygote else []


def _close_pipes(popen: subprocess.Popen[bytes]) -> None:
    for pipe in (popen.stdin, popen.stdout):
        if pipe is not None:
            pipe.close()

"""A process is known by its start as well as by its number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import trio

from fallow.testnet.processes import ProcessId, process_of

WAITS = [sys.executable, "-c", "import sys; sys.stdin.read()"]


async def test_a_process_that_has_another_s_old_number_is_not_touched() -> None:
    with subprocess.Popen(WAITS, stdin=subprocess.PIPE) as popen:  # noqa: ASYNC220  # nothing else runs
        real = process_of(popen.pid)
        assert real is not None
        earlier = ProcessId(real.pid, real.started_ticks - 1)
        earlier.send(signal.SIGKILL)
        with trio.fail_after(10):
            await earlier.ended()  # at once: that one is long gone
        assert real.running
        assert not earlier.running
        real.send(signal.SIGKILL)
        with trio.fail_after(10):
            await real.ended()
        assert not real.running  # although its parent has not waited for it yet


async def test_ending_twice_is_no_error() -> None:
    with subprocess.Popen(WAITS, stdin=subprocess.PIPE) as popen:  # noqa: ASYNC220  # nothing else runs
        process = process_of(popen.pid)
    assert process is not None
    process.send(signal.SIGTERM)
    with trio.fail_after(10):
        await process.ended()


def test_a_process_s_memory_and_children_are_seen() -> None:
    own = process_of(os.getpid())
    assert own is not None
    assert own.memory_bytes > 1_000_000
    with subprocess.Popen(WAITS, stdin=subprocess.PIPE) as popen:
        assert popen.pid in [child.pid for child in own.children()]

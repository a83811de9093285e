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


async def test_a_process_has_ended_when_its_last_thread_has() -> None:
    """Until then its files are open, and its locks held: the first thread is a zombie meanwhile."""
    code = """
import ctypes, sys, threading
def last():
    sys.stdin.read()
threading.Thread(target=last).start()
print("two", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:  # noqa: ASYNC220
        assert popen.stdin and popen.stdout
        process = process_of(popen.pid)
        assert process is not None
        assert popen.stdout.readline() == b"two\n"
        with trio.fail_after(10):
            while process.running:  # the first thread's end
                await trio.lowlevel.checkpoint()
        with trio.move_on_after(0.2) as waited:
            await process.ended()
        assert waited.cancelled_caught
        popen.stdin.close()
        with trio.fail_after(10):
            await process.ended()

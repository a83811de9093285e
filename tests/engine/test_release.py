"""The memory of a process that was killed: given back by us where the kernel lets us, and never that of one that lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import trio

from fallow.node.engine.release import release, release_soon

HOLDS = "import mmap; held = mmap.mmap(-1, 64 << 20); held.write(bytes(64 << 20)); print('held', flush=True); input()"


def holder() -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process, os.pidfd_open(process.pid)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def test_a_process_that_lives_keeps_its_memory_and_of_a_dead_one_there_is_none() -> None:
    process, handle = holder()
    try:
        before = resident(process.pid)
        assert not release(handle)
        assert resident(process.pid) >= before
        process.kill()
        process.wait()
        assert not release(handle)
    finally:
        process.communicate()
        os.close(handle)


async def test_a_killed_process_ends_and_nothing_of_the_release_is_left() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    process, handle = holder()
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    release_soon(handle)
    with trio.fail_after(30):
        await trio.lowlevel.wait_readable(handle)
        process.communicate()
        os.close(handle)
        while len(os.listdir("/proc/self/fd")) > descriptors:  # noqa: PTH208
            await trio.lowlevel.checkpoint()
    assert process.returncode == -signal.SIGKILL

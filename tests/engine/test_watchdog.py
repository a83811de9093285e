"""The watchdog in processes of its own: what is in time is left alone, what is not ends the process, whatever holds it up."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from fallow.node.engine.messages import FrameBuffer, Message, Overrun
from fallow.node.engine.sandbox import Box

BUNDLE = b"\x07" * 32
START = f"""
import ctypes, socket, sys, time
from fallow.node.engine.watchdog import Watchdog
watchdog = Watchdog(socket.socket(fileno=int(sys.argv[1])))
bundle = {BUNDLE!r}
"""


def outcome(script: str, bwrap: str = "") -> tuple[int, list[Message]]:
    """How a process with a watchdog ends, and what it says until then; with `bwrap`, in a sandbox as workers are."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-c", START + script, str(theirs.fileno())]
        if bwrap:
            command = Box(bwrap).wrap(command)
        run = subprocess.run(command, pass_fds=[theirs.fileno()], timeout=60, check=False)
        theirs.close()
        received = b"".join(iter(lambda: ours.recv(65536), b""))
    return run.returncode, list(FrameBuffer().feed_untrusted(received))


def test_what_is_in_time_is_left_alone() -> None:
    script = """
for _ in range(100):
    with watchdog.limit(bundle, "a run", 30.0):
        pass
with watchdog.limit(bundle, "a run", 30.0):
    time.sleep(0.01)
with watchdog.limit(bundle, "a shorter run", 0.5):
    pass
time.sleep(1.0)  # longer than the last limit, which is over
"""
    assert outcome(script) == (0, [])


@pytest.mark.spec("B-19")
def test_what_takes_too_long_ends_the_process_by_name() -> None:
    script = """
with watchdog.limit(bundle, "a run", 60.0):
    pass
with watchdog.limit(bundle, "compiling it", 0.2):
    time.sleep(60)
"""
    assert outcome(script) == (1, [Overrun(BUNDLE, "compiling it took longer than the 0.2 s that it may")])


@pytest.mark.spec("B-19")
def test_what_computes_for_too_long_ends_the_process_too() -> None:
    script = """
with watchdog.limit(bundle, "a run", 0.2):
    while True:
        pass
"""
    assert outcome(script) == (1, [Overrun(BUNDLE, "a run took longer than the 0.2 s that it may")])


def test_what_has_not_had_its_share_of_the_processor_is_left_alone_for_a_while_unless_an_accelerator_works() -> None:
    script = """
with watchdog.limit(bundle, "a run", 2.0):
    time.sleep(4.0)  # as beside busy neighbours
"""
    assert outcome(script) == (0, [])
    script = script.replace("with watchdog", "watchdog._patience = 1.0\nwith watchdog")
    assert outcome(script)[0] == 1


NATIVE = """
with watchdog.limit(bundle, "reading it", 0.2):
    ctypes.PyDLL(None).sleep(60)  # keeps Python's lock
"""


@pytest.mark.spec("B-19")
def test_native_code_that_lets_no_thread_run_ends_too() -> None:
    assert outcome(NATIVE) == (signal.SIGALRM, [])


@pytest.mark.spec("B-19")
def test_so_does_the_first_process_of_a_sandbox_which_no_signal_ends_by_itself(bwrap: str) -> None:
    assert outcome(NATIVE, bwrap) == (signal.SIGALRM, [])

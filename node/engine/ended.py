"""How a worker has ended, told its owner in one place: what happened, what was kept, and what comes next."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from ...protocol.errors import Code

_BY: Final = {
    signal.SIGKILL: "which the kernel sends when memory runs out, and anybody with this user's rights may send",
    signal.SIGSEGV: "a fault in native code",
    signal.SIGBUS: "a fault in native code",
    signal.SIGILL: "a fault in native code",
    signal.SIGABRT: "native code gave up",
    signal.SIGSYS: "a system call that no worker may make",
}
"""Where a signal comes from, as far as that can be said."""

_SHELL: Final = 128
"""Who is ended by a signal has this and the signal's number as its status in a shell, and in bubblewrap."""


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """The end of one worker that nobody had asked for, or why it never got ready."""

    code: Code
    what: str
    """What happened."""
    jobs: int
    """Those that ended with it."""
    next: str
    """What is done now."""
    at_s: float
    """When, in trio's time."""

    @property
    def kept(self) -> str:
        """What is left of its work."""
        if not self.jobs:
            return "It had no job: nothing is lost."
        jobs = "1 job" if self.jobs == 1 else f"{self.jobs} jobs"
        return f"{jobs} ended with it: what their receipts say stays owed, and the clients go on elsewhere."

    def __str__(self) -> str:
        return f"{self.what} {self.kept} {self.next}"


def status_in_words(status: int | None, *, boxed: bool = False, out_of_memory: bool = False) -> str:
    """How a process ended: `status` is as `subprocess` gives it, of bubblewrap if the worker is `boxed`; None: not known."""
    if status is None:
        return "The worker ended, and how is not known."
    number = status - _SHELL if boxed and status > _SHELL else -status
    if out_of_memory:
        return "The worker was ended by the kernel: its control group had no more memory."
    if status == signal.SIGALRM:  # see `watchdog`
        return "The worker ended at its own alarm clock: one thing took much longer than it may."
    if number <= 0:
        return f"The worker ended by itself, with exit status {status}."
    try:
        name, by = signal.Signals(number).name, _BY.get(signal.Signals(number))
    except ValueError:  # a real-time one
        name, by = "a signal", None
    return f"The worker was ended by {name} (signal {number}{f': {by}' if by else ''})."

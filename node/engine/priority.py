"""The worker comes last: whatever else wants the processor has it first, the owner's programs and our own daemon.

Where sessions share the processor (autogroups, sched(7): most desktops), niceness counts within one of them alone, and a worker
has its own. It is left at that: at a tenth of every other session's share, a run beside a dozen busy ones takes longer than
its client waits.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

NICE: Final = 10
"""Below whatever the owner runs, and below our own daemon, whose answers are waited for; it costs no throughput."""


def come_last(pid: int = 0) -> None:
    """The process, 0 being this one, is nice, and what it starts from now on."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)

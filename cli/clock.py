"""Whether this machine's clock can be relied on: what the kernel says of it, and what peers have signed lately."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from statistics import median
from typing import Final

from ..node.presence import ANNOUNCE_S, JITTER
from ..protocol.limits import SKEW_MS

_TIMEX_BYTES: Final = 256
"""More than the kernel's `struct timex`; all zero, it asks and sets nothing."""
_TIME_ERROR: Final = 5
"""What `adjtimex` gives while no clock of others keeps this one."""


def kept_by_others() -> bool | None:
    """Whether the kernel knows of a clock (by NTP, say) that keeps this machine's; None if it does not tell."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (AttributeError, OSError):
        return None  # no Linux
    return None if state < 0 else state != _TIME_ERROR


def bounds_ms(ages_ms: Sequence[int]) -> tuple[int, int] | None:
    """At most so far behind (negative) and ahead of the peers' clocks this one is; None if nobody was heard.

    A node signs its profile anew every few minutes, so that what it signed last is between nothing and that old. Of
    several peers the middle one counts: one that lies moves nothing.
    """
    if not ages_ms:
        return None
    middle_ms = round(median(ages_ms))
    return middle_ms - round(ANNOUNCE_S * (1 + JITTER) * 1000), middle_ms


def judged(kept: bool | None, ages_ms: Sequence[int]) -> tuple[bool | None, str, str]:
    """Whether the clock will do (None: that cannot be said), what was found, and what to do."""
    kernel = {True: "kept by another clock (NTP)", False: "kept by no other clock", None: "not told by the kernel"}[
        kept
    ]
    bounds = bounds_ms(ages_ms)
    if bounds is None:
        return kept or None, f"{kernel}; no peer's time to compare it with", "" if kept else _ADVICE
    behind_ms, ahead_ms = -bounds[0], bounds[1]
    peers = f"by what {len(ages_ms)} peers signed last"
    if -ahead_ms > SKEW_MS:
        return False, f"{kernel}; {peers}, it is at least {-ahead_ms // 1000} s behind", _ADVICE
    if -behind_ms > SKEW_MS:
        return False, f"{kernel}; {peers}, it is at least {-behind_ms // 1000} s ahead", _ADVICE
    between = f"at most {max(0, ahead_ms) // 1000} s ahead and {max(0, behind_ms) // 1000} s behind"
    return kept or None, f"{kernel}; {peers}, it is {between}", "" if kept else _ADVICE


_ADVICE: Final = (
    f"Beyond {SKEW_MS // 1000} s, peers refuse what this machine signs. `timedatectl set-ntp true` has it kept."
)

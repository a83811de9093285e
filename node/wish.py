"""The owner's own word, kept over restarts: that the machine is paused until a time, or not to be lent at all."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from typing import Final

from ..protocol.errors import Code, StoreError
from .durable import put
from .rules.policy import Wish

WISH: Final = "wish.json"
PAUSE_S_MAX: Final = 366 * 86400
"""Who wants it for longer opts out."""


def load(state: Path, now_ms: int, wall_ms: int) -> Wish:
    """What the owner last said, on the clock of `now_ms`. A file that cannot be read is a machine that is not lent."""
    try:
        held = json.loads((state / WISH).read_text("utf-8"))
        opted_out, until_ms, lasts_ms = bool(held["opted_out"]), int(held["until_ms"]), int(held["lasts_ms"])
    except FileNotFoundError:
        return Wish()
    except (OSError, ValueError, KeyError, TypeError):
        return Wish(opted_out=True)
    # A clock that was set back meanwhile cannot make a pause longer than it was asked for.
    left_ms = min(until_ms - wall_ms, lasts_ms)
    return Wish(opted_out=opted_out, paused_until_ms=now_ms + left_ms if left_ms > 0 else -inf)


def save(state: Path, wish: Wish, now_ms: int, wall_ms: int) -> None:
    """It is on the disk. That the machine is driven is not: after a restart its sensors, or the owner, say so again.

    Raises `StoreError(store_full)` if it cannot be written; it counts for now all the same.
    """
    left_ms = max(0, int(wish.paused_until_ms - now_ms)) if wish.paused_until_ms > -inf else 0
    held = {"opted_out": wish.opted_out, "until_ms": wall_ms + left_ms, "lasts_ms": left_ms}
    try:
        put(state / WISH, json.dumps(held).encode())
    except OSError as error:
        raise StoreError(
            Code.STORE_FULL,
            f"It holds until the node ends, and not longer: {state / WISH} cannot be written: {error.strerror}.",
        ) from None

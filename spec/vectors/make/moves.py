"""The moves of one job in few words, for its vectors."""

from __future__ import annotations

from typing import Any

from .world import Fields

C, X = "client", "executor"
Move = list[Any]


def moves(text: str) -> list[Move]:
    """`0 c order, 100 x accept`: time, sender and event of each move."""
    parties = {"c": C, "x": X}
    words = [move.split() for move in text.split(",")]
    return [[int(now_ms), parties[sender], event] for now_ms, sender, event in words]


def played(role: str, text: str, *, first: int = 20_000, gap: int = 5_000, expire_at: int | None = None) -> Fields:
    """What a case is given: the moves as one side sees them, and the bounds of the order."""
    given = {"role": role, "first_chunk_ms_max": first, "gap_ms_max": gap, "moves": moves(text) if text else []}
    return given if expire_at is None else {**given, "expire_at_ms": expire_at}


RUN = "0 c order, 100 x accept"
UNPAID = f"{RUN}, 200 x chunk, 300 x receipt, 400 x chunk, 500 x receipt"
"""Two windows: as many as may be unpaid."""
PATHS = {
    "idle": "",
    "ordered": "0 c order",
    "withdrawn": "0 c order, 100 c cancel",
    "running": RUN,
    "stopping": f"{RUN}, 200 c cancel",
    "yielding": f"{RUN}, 200 x yield",
    "closing": f"{RUN}, 200 x final",
    "settled": f"{RUN}, 200 x final, 300 c settle",
    "unsettled": f"{RUN}, 200 x final, 300 c decline",
    "refused": "0 c order, 100 x refuse",
    "broken": f"{RUN}, 200 x failed",
}
"""The shortest way into each state."""

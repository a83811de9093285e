"""Invariants of the design, each in one function: what a run shows against it, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .simulation import Run


def check(run: Run) -> tuple[str, ...]:
    """What all checkers found."""
    return ()

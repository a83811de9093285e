"""A moment between two looks at what another process does: looking without one takes a core from whom it waits for."""

from __future__ import annotations

import time

import trio

MOMENT_S = 0.02


def pause() -> None:
    time.sleep(MOMENT_S)


async def look_again() -> None:
    """A moment later, of no clock that a test may hold."""
    await trio.to_thread.run_sync(pause)

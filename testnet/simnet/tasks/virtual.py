"""A run of trio that its seed decides: virtual time, and tasks in an order of their own choosing.

trio shuffles the tasks that can run at a moment, so that nobody relies on their order. It has a switch for tests, private to
it: with that, and its generator seeded, the order is the same in every process. This is the one place that touches it, and
`tests/simnet/test_virtual.py` fails if a new version does not keep to it any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio._core._run as core
from trio.testing import MockClock

T = TypeVar("T")


def run_virtual(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """What `main` returned. Time stands still while anybody runs, and jumps to the next deadline when nobody does.

    Nothing in it may wait for a thread or for the operating system.
    """
    with _ordered(seed):
        return trio.run(main, clock=MockClock(rate=0.0, autojump_threshold=0.0))


@contextmanager
def _ordered(seed: int) -> Iterator[None]:
    private: Any = core
    switched, state = private._ALLOW_DETERMINISTIC_SCHEDULING, private._r.getstate()
    private._ALLOW_DETERMINISTIC_SCHEDULING = True
    private._r.seed(seed)
    try:
        yield
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING = switched
        private._r.setstate(state)

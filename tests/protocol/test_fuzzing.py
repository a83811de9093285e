"""Several targets are fuzzed at once, each in a process of its own: how it ended is told of each."""

from __future__ import annotations

import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "fuzz")
    run = importlib.import_module("run")


def test_how_a_process_ended_is_told_whoever_begins_others_meanwhile() -> None:
    """Whoever begins one looks which have ended: without a lock, three of ten that ended well seem to have broken."""
    with ThreadPoolExecutor(8) as pool:
        statuses = list(
            pool.map(lambda status: run.ended(run.FORKED.Process(target=os._exit, args=(status,))), 40 * [0, 3])
        )
    assert statuses == 40 * [0, 3]

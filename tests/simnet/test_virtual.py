"""A run of trio that its seed decides. If a new trio breaks this, no simulation can be replayed any more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio._core._run as core

from fallow.testnet.simnet.tasks.virtual import run_virtual

RACERS = Path(__file__).parent / "racers.py"


def _raced(seed: int, hash_seed: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, str(RACERS), str(seed)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


def test_trio_still_has_the_switch_that_orders_tasks() -> None:
    assert isinstance(core._ALLOW_DETERMINISTIC_SCHEDULING, bool)
    assert callable(core._r.seed)
    assert "_counter" in {each.name for each in core.Task.__attrs_attrs__}  # type: ignore[attr-defined]


def test_tasks_take_turns_as_the_seed_says_in_every_process() -> None:
    one, same, other = _raced(1, 0), _raced(1, 7), _raced(2, 0)
    assert one == same
    assert one != other
    assert one.count("five") == 4


async def _hour() -> float:
    await trio.sleep(3600)
    return trio.current_time()


def test_an_hour_takes_no_time_and_the_switch_is_put_back() -> None:
    before = core._ALLOW_DETERMINISTIC_SCHEDULING, core._r.getstate()
    assert run_virtual(_hour, 1) == pytest.approx(3600)
    assert before == (core._ALLOW_DETERMINISTIC_SCHEDULING, core._r.getstate())


async def _looks_until_it_is_late_enough() -> int:
    looks = 0
    while int(trio.current_time() * 1000) < 65_359:  # 65.359 * 1000 is a little less than that
        await trio.sleep_until(65.359)
        looks += 1
    return looks


def test_whoever_looks_at_the_clock_again_and_again_does_not_look_for_ever() -> None:
    assert 1 <= run_virtual(_looks_until_it_is_late_enough, 1) < 10


async def _wait_for_nobody() -> None:
    await trio.Event().wait()


def test_a_simulation_in_which_all_wait_for_one_another_says_so() -> None:
    with pytest.raises(RuntimeError, match="never go on"):
        run_virtual(_wait_for_nobody, 1)

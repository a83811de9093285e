"""Rates and allowances, in virtual time: no socket, no clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fallow.node.pace import BURST_S, DAY_S, Meter, Pace, Traffic


async def test_no_stretch_of_time_has_more_than_the_rate_and_a_burst(autojump_clock: MockClock) -> None:
    pace, sizes = Pace(1000), [100, 900, 2500, 1, 400] * 6
    taken: list[tuple[float, int]] = []

    async def take(size: int) -> None:
        await pace.take(size)
        taken.append((trio.current_time(), size))

    await trio.sleep(50)  # time that was not used is not saved up
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for size in sizes:
            nursery.start_soon(take, size)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            span_s = taken[last][0] - taken[first][0]
            total = sum(size for _, size in taken[first : last + 1])
            assert total <= 1000 * (span_s + BURST_S) + max(sizes) + 1e-6
    assert trio.current_time() - began == pytest.approx(sum(sizes) / 1000 - BURST_S, abs=max(sizes) / 1000 + 1e-6)


async def test_without_a_rate_nobody_waits(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    await Pace(0).take(10**12)
    assert trio.current_time() == began


async def test_what_a_cancelled_taker_waited_for_is_given_back(autojump_clock: MockClock) -> None:
    pace = Pace(1000)
    await pace.take(2000)
    with trio.move_on_after(0.5) as scope:
        await pace.take(10**6)
    assert scope.cancelled_caught
    began = trio.current_time()
    await pace.take(1)
    assert trio.current_time() - began == pytest.approx(0.5)


def test_the_days_allowance_survives_a_restart_and_comes_back_with_the_days(tmp_path: Path) -> None:
    day = 20_000.0

    def opened() -> Traffic:
        return Traffic(tmp_path / "traffic.json", 1000, 2, lambda: day * DAY_S)

    assert opened().try_take(600)
    traffic = opened()
    assert traffic.left_bytes == 400
    assert not traffic.try_take(401)
    day += 1
    assert not traffic.try_take(401)
    assert traffic.try_take(300)
    day += 1
    assert opened().left_bytes == 700
    assert opened().try_take(700)
    day += 5
    assert opened().left_bytes == 1000


def test_what_was_not_moved_is_given_back_to_the_days_it_was_taken_from(tmp_path: Path) -> None:
    day = 20_000.0
    traffic = Traffic(tmp_path / "traffic.json", 1000, 2, lambda: day * DAY_S)
    assert traffic.try_take(300)
    day += 1
    assert traffic.try_take(100)
    traffic.give_back(150)
    assert traffic.left_bytes == 750
    traffic.give_back(1000)
    assert Traffic(tmp_path / "traffic.json", 1000, 2, lambda: day * DAY_S).left_bytes == 1000


def test_of_what_was_taken_no_more_counts_than_was_moved(tmp_path: Path) -> None:
    traffic, moved = Traffic(tmp_path / "traffic.json", 1000, 1, lambda: 0.0), 50
    meter = Meter(traffic, lambda: moved)
    assert meter.try_take(600)
    assert not Meter(traffic, lambda: 0).try_take(500)
    moved += 200
    assert meter.try_take(800)  # the first is over, by whatever end
    assert traffic.left_bytes == 0
    moved += 900  # with what goes along on the wire
    meter.settle()
    meter.settle()
    assert traffic.left_bytes == 0
    assert Meter(None, lambda: 0).try_take(10**12)


async def test_a_transfer_waits_for_the_day_that_has_room(autojump_clock: MockClock, tmp_path: Path) -> None:
    traffic = Traffic(tmp_path / "traffic.json", 1000, 1, trio.current_time)
    await traffic.take(800)
    await traffic.take(800)
    assert trio.current_time() // DAY_S >= 1
    await traffic.take(5000)  # more than the limit: all of it
    assert traffic.left_bytes == 0


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"1": "x"}', "null"])
def test_a_damaged_account_counts_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "traffic.json").write_text(text)
    assert Traffic(tmp_path / "traffic.json", 10, 1, lambda: 0.0).left_bytes == 10


def test_without_a_limit_nothing_is_written(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path / "traffic.json", 0, 1, lambda: 0.0)
    trio.run(traffic.take, 10**15)
    assert not list(tmp_path.iterdir())

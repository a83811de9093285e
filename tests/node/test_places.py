"""Whose turn it is, in virtual time."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from fallow.node.places import Places, Turns


async def test_askers_take_turns_however_much_one_of_them_asks(autojump_clock: MockClock) -> None:
    turns, order = Turns(1), list[bytes]()

    async def ask(asker: bytes) -> None:
        async with turns.turn(asker):
            order.append(asker)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for asker in (b"greedy",) * 6 + (b"modest",) * 2:
            nursery.start_soon(ask, asker)
            await trio.testing.wait_all_tasks_blocked()
    assert order[1:5].count(b"modest") == 2
    assert len(order) == 8


async def test_whoever_leaves_the_queue_takes_no_turn_along(autojump_clock: MockClock) -> None:
    turns = Turns(1)
    async with turns.turn(b"a"):
        with trio.move_on_after(1):
            async with turns.turn(b"b"):
                pytest.fail("it is not b's turn")
    with trio.fail_after(1):
        async with turns.turn(b"c"):
            pass


async def test_a_place_is_given_up_after_a_turn_for_whoever_had_none(autojump_clock: MockClock) -> None:
    places = Places(2, 1, turn_s=30, again_s=5)
    had: dict[bytes, list[float]] = {b"a": [], b"b": [], b"c": []}

    async def ask_on(asker: bytes) -> None:
        while trio.current_time() < 300:
            async with places.place(asker) as given:
                if given:
                    had[asker].append(trio.current_time())
                    await trio.sleep(1)
            if not given:
                await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        for asker in 2 * list(had):  # the next question is there before the last is answered, as a fetch has it
            nursery.start_soon(ask_on, asker)
    for times in had.values():
        assert max(later - earlier for earlier, later in pairwise([0.0, *times, 300.0])) < 60
        assert len(times) > 120


async def test_without_anybody_turned_away_a_place_is_kept(autojump_clock: MockClock) -> None:
    places = Places(1, 1, turn_s=30, again_s=5)
    for _ in range(100):
        async with places.place(b"a") as given:
            assert given
            await trio.sleep(1)


async def test_everybody_in_the_line_has_a_turn_in_time_whatever_a_few_with_many_streams_do(
    autojump_clock: MockClock,
) -> None:
    """Some have all places, hundreds of questions waiting in them, and take each answer as late as they may."""
    at_once, turn_s, slow_s = 4, 30.0, 25.0
    places, had = Places(at_once, 4, turn_s, again_s=5), dict[bytes, float]()

    async def hog(asker: bytes) -> None:
        while True:
            async with places.place(asker) as given:
                if given:
                    await trio.sleep(slow_s)
                else:
                    await trio.sleep(1)  # it takes its refusals late, too

    async def ask_on(asker: bytes) -> None:
        while trio.current_time() < 600:
            async with places.place(asker) as given:
                if given:
                    had.setdefault(asker, trio.current_time())
                    await trio.sleep(1)
            if not given:
                await trio.sleep(5)

    modest = [bytes([100 + number]) for number in range(2 * at_once + 1)]
    with trio.move_on_after(600):
        async with trio.open_nursery() as nursery:
            for number in range(at_once):
                for _ in range(200):
                    nursery.start_soon(hog, bytes([number]))
            await trio.testing.wait_all_tasks_blocked()
            for asker in modest:
                nursery.start_soon(ask_on, asker)
    rounds = -(-len(modest) // at_once)
    assert had.keys() == set(modest)
    assert max(had.values()) <= rounds * (turn_s + slow_s + 2 * 5)


async def test_a_place_is_kept_for_whoever_is_first_in_the_line_and_not_for_ever(autojump_clock: MockClock) -> None:
    places = Places(1, 1, turn_s=30, again_s=5)

    async def asked(asker: bytes) -> bool:
        async with places.place(asker) as given:
            return given

    async with places.place(b"a"):
        assert not await asked(b"b")
        assert not await asked(b"c")
    assert not await asked(b"c")
    assert not await asked(b"a")
    assert await asked(b"b")
    assert await asked(b"c")
    assert not await asked(b"d"), "the place is kept for a"
    await trio.sleep(11)
    assert await asked(b"d")

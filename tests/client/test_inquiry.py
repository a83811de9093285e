"""Whom a search asks, in which order, and when it stops asking."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import trio
from trio.testing import MockClock

from fallow.client.inquiry import LATE_FACTOR, LATE_S, NEAR_MAX, SOUGHT_AT_ONCE, WAVE, Inquiry
from fallow.node.network.seam import Provider

ANSWER_S, ASK_S = 0.05, 2.0


class Nodes:
    """Made-up nodes: the dead refuse at once, the frozen say nothing until the asker gives up, the others answer."""

    def __init__(self, nursery: trio.Nursery, count: int, dead: int = 0, frozen: int = 0) -> None:
        names = [b"%d" % number for number in range(count)]
        self.all = [Provider(name, ()) for name in names]
        self.dead, self.frozen = set(names[:dead]), set(names[dead : dead + frozen])
        self.asked: list[bytes] = []
        self.sought: list[bytes] = []
        self.found: list[bytes] = []
        self.seeking = self.seeking_most = 0
        self.news = trio.Event()
        self.connected: set[bytes] = set()
        self.answer_s = ANSWER_S
        self.inquiry = Inquiry(nursery, self.ask, self.seek, self.told, Random(1), lambda: self.connected)

    async def ask(self, provider: Provider) -> bool:
        self.asked.append(provider.peer)
        if provider.peer in self.dead:
            return False
        answer_s = 0.01 if provider.peer in self.connected else self.answer_s
        await trio.sleep(ASK_S if provider.peer in self.frozen else answer_s)
        if provider.peer in self.frozen:
            return False
        self.found.append(provider.peer)
        return True

    async def seek(self, provider: Provider) -> bool:
        self.sought.append(provider.peer)
        self.seeking += 1
        self.seeking_most = max(self.seeking, self.seeking_most)
        await trio.sleep(ANSWER_S)
        self.seeking -= 1
        return False

    def told(self) -> None:
        self.news.set()
        self.news = trio.Event()

    async def look(self, enough: Callable[[], bool]) -> float:
        """How long it took."""
        began = trio.current_time()
        with self.inquiry.looking(enough):
            for provider in self.all:
                self.inquiry.add(provider)
            while self.inquiry.busy and not enough():
                await self.news.wait()
        return trio.current_time() - began


@pytest.fixture
def start(nursery: trio.Nursery) -> Callable[..., Nodes]:
    return lambda *counts: Nodes(nursery, *counts)


async def test_ten_nodes_cost_one_wave_however_many_are_named(
    start: Callable[..., Nodes], autojump_clock: MockClock
) -> None:
    nodes = start(400)
    assert await nodes.look(lambda: len(nodes.found) >= 10) == pytest.approx(ANSWER_S)
    await trio.sleep(10 * ASK_S)
    assert len(nodes.asked) == WAVE  # and nobody goes on once nobody looks


async def test_the_dead_are_replaced_at_once_and_looked_for_by_nobody_while_others_answer(
    start: Callable[..., Nodes], autojump_clock: MockClock
) -> None:
    nodes = start(400, 200)
    assert await nodes.look(lambda: len(nodes.found) >= 10) == pytest.approx(ANSWER_S)
    assert len(set(nodes.asked) - nodes.dead) == WAVE
    assert not nodes.sought


async def test_the_frozen_are_replaced_once_they_are_late(
    start: Callable[..., Nodes], autojump_clock: MockClock
) -> None:
    nodes = start(60, 0, 40)
    took_s = await nodes.look(lambda: len(nodes.found) >= 10)
    assert took_s <= 5 * (LATE_S + ANSWER_S)
    assert len(nodes.asked) < len(nodes.all)


async def test_where_answers_come_fast_who_is_silent_is_late_soon(
    start: Callable[..., Nodes], autojump_clock: MockClock
) -> None:
    nodes = start(60, 0, 4)
    took_s = await nodes.look(lambda: len(nodes.found) >= 10)
    assert LATE_FACTOR * ANSWER_S <= took_s < LATE_S
    assert len(nodes.asked) == WAVE + 2 * len(nodes.frozen)  # named first, so all of them in the first wave


async def test_who_is_connected_answers_sooner_and_makes_nobody_else_late(
    start: Callable[..., Nodes], autojump_clock: MockClock
) -> None:
    nodes = start(60)
    nodes.answer_s = 0.25
    nodes.connected = {provider.peer for provider in nodes.all[:NEAR_MAX]}
    await nodes.look(lambda: len(nodes.found) >= 10)
    assert len(nodes.asked) <= WAVE + NEAR_MAX


async def test_who_answers_is_looked_for_by_nobody_connected_or_not(
    start: Callable[..., Nodes], autojump_clock: MockClock
) -> None:
    nodes = start(12, 1)
    nodes.connected = {provider.peer for provider in nodes.all[6:]}
    await nodes.look(lambda: False)
    assert nodes.sought == list(nodes.dead)


async def test_where_answers_take_long_they_are_waited_for(
    start: Callable[..., Nodes], autojump_clock: MockClock
) -> None:
    nodes = start(60)
    nodes.answer_s = 0.4
    await nodes.look(lambda: len(nodes.found) >= 10)
    first = len(nodes.asked)
    nodes.found.clear()
    with nodes.inquiry.looking(lambda: len(nodes.found) >= 10):
        while len(nodes.found) < 10:
            await nodes.news.wait()
    assert len(nodes.asked) - first <= WAVE  # though each takes longer than `LATE_S`


async def test_whoever_is_never_content_gets_everybody_and_the_lost_are_looked_for_at_the_end(
    start: Callable[..., Nodes], autojump_clock: MockClock
) -> None:
    nodes = start(60, 15, 15)
    await nodes.look(lambda: False)
    assert sorted(nodes.asked) == sorted(provider.peer for provider in nodes.all)
    assert sorted(nodes.found) == sorted(set(nodes.asked) - nodes.dead - nodes.frozen)
    assert sorted(nodes.sought) == sorted(nodes.dead | nodes.frozen)
    assert nodes.seeking_most == SOUGHT_AT_ONCE


async def test_who_has_answered_is_not_asked_for_being_named_again(
    start: Callable[..., Nodes], autojump_clock: MockClock
) -> None:
    nodes = start(5)
    await nodes.look(lambda: False)
    await nodes.look(lambda: False)
    assert len(nodes.asked) == 5
    with nodes.inquiry.looking(lambda: False):
        nodes.inquiry.again(nodes.all[0], at_once=True)
        nodes.inquiry.again(nodes.all[0])
        while nodes.inquiry.busy:
            await nodes.news.wait()
    assert len(nodes.asked) == 6
    nodes.inquiry.begin()
    await nodes.look(lambda: False)
    assert len(nodes.asked) == 11


async def test_those_who_are_connected_are_asked_first_up_to_half_of_a_wave(
    start: Callable[..., Nodes], autojump_clock: MockClock
) -> None:
    nodes = start(60)
    nodes.connected = {provider.peer for provider in nodes.all[30:50]}
    await nodes.look(lambda: len(nodes.found) >= 10)
    near = [peer for peer in nodes.asked if peer in nodes.connected]
    assert len(near) >= NEAR_MAX
    assert set(nodes.asked[: WAVE + NEAR_MAX]) >= set(near[:NEAR_MAX])
    assert len(nodes.asked) <= WAVE + NEAR_MAX

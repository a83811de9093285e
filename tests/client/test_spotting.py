"""Traps for checkers: an honest one never falls into them, one that confirms everything always does."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from fallow.client.auditing import Auditor
from fallow.client.discovery import Node
from fallow.client.spotting import Sample, Spots, Trap, caught, changed
from fallow.protocol.bundle import Tolerance
from fallow.protocol.checks import TEACHER_FORCED, Attestation
from fallow.protocol.work import Parameters

from .test_hostile_executor import MANIFEST

TOLERANCE = Tolerance(1_000, 1_000, 500, 0, 0, (), "-")
H = bytes(32)


def sample(tokens: tuple[int, ...], claimed: int) -> Sample:
    return Sample(H, MANIFEST, Parameters(8), tokens, tuple(-100 * n for n in range(claimed)), frozenset())


def found(values: tuple[int, ...], gaps: tuple[int, ...]) -> Attestation:
    return Attestation(H, H, TEACHER_FORCED, values, gaps, (0,) * len(gaps), "class")


@given(st.lists(st.integers(0, 50), min_size=2, max_size=60).map(tuple), st.integers(1, 59), st.integers())
def test_one_claimed_token_is_changed_for_another_of_the_text(tokens: tuple[int, ...], claimed: int, seed: int) -> None:
    claimed = min(claimed, len(tokens) - 1)
    trap = changed(sample(tokens, claimed), Random(seed))
    if trap is None:
        assert len(set(tokens)) == 1
        return
    differ = [place for place, (a, b) in enumerate(zip(tokens, trap.tokens, strict=True)) if a != b]
    assert differ == [len(tokens) - claimed + trap.changed]
    assert set(trap.tokens) <= set(tokens)
    assert trap.changed <= (claimed - 1) // 2
    request = trap.request
    assert (request.work.claimed, request.entry, request.planned_tokens) == (claimed, "score", claimed)
    assert request.checks != trap.request.checks


def test_who_falls_into_it() -> None:
    trap = Trap(sample((5, 6, 7, 8, 9), 4), (5, 6, 9, 8, 9), 1)
    values = trap.sample.values
    honest = found((values[0], -9_000_000, -7_000_000, -100), (0, 8_000_000, 0, 3_000_000))
    assert caught(trap, honest, TOLERANCE) is None
    everything = found(values, (0, 0, 0, 0))
    assert "confirmed" in str(caught(trap, everything, TOLERANCE))
    assert "confirmed" in str(caught(trap, found(honest.values_micro, (0, 0, 0, 0)), TOLERANCE))
    made_up = found((-5_000, -9_000_000, -7_000_000, -100), (0, 8_000_000, 0, 0))
    assert "other figures" in str(caught(trap, made_up, TOLERANCE))
    outside = Attestation(H, H, TEACHER_FORCED, honest.values_micro, (0, 0, 0, 0), (0, 1_000_501, 0, 0), "class")
    assert caught(trap, outside, TOLERANCE) is None  # it objects by the nucleus


class _Waiting(Spots):
    """Each trial waits until it is let go: so two of them can be begun at once."""

    def __init__(self) -> None:
        super().__init__(cast(Auditor, None), Random(0))
        self.begun: list[bytes] = []
        self.go = trio.Event()

    async def _try(self, node: Node, sample: Sample) -> None:
        self.begun.append(node.key)
        await self.go.wait()


async def test_who_is_due_is_tried_once_though_two_ask_for_it() -> None:
    """A client that leaves drains while its own task does so, too."""
    spots, owner = _Waiting(), H
    nodes = [cast(Any, type("Checker", (), {"key": bytes([n]) * 32, "owner": owner})()) for n in range(3)]
    spots._samples.append(sample((1, 2, 3), 2))
    spots._due.extend((node, H) for node in nodes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spots.drain)
        nursery.start_soon(spots.drain)
        await trio.testing.wait_all_tasks_blocked()
        spots.go.set()
    assert spots.begun == [node.key for node in nodes]

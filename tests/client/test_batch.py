"""A batch of many calls: in parts, each done once, whoever leaves and however the process ends."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from fallow.client.arrays import rows_of, work_of
from fallow.client.batch import AT_ONCE, TRIES_MAX, UNMEASURED, Done, identity_of, parts_of, run_batch
from fallow.protocol.bundle import Manifest
from fallow.protocol.errors import Code, ConfigError, FallowError, Refused, StoreError
from fallow.protocol.limits import CALL_INPUTS_MAX
from fallow.protocol.work import Piece, Work

from .test_arrays import one

DOUBLE = one("float32", 2)
"""Takes two numbers, gives one: here, their sum."""
COUNT = 40


def inputs(manifest: Manifest = DOUBLE, count: int = COUNT) -> list[Work]:
    return [work_of(manifest, [{"x": [float(number), 1.0]}]) for number in range(count)]


def done(path: Path | None, works: list[Work]) -> Done:
    return Done(path, identity_of(bytes(32), "none", works))


@dataclass
class Nodes:
    """Whoever computes; `leaves` says at which of the orders so far the owner comes back, or what else goes wrong."""

    wrong: dict[int, FallowError] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    """Inputs of each order."""
    at_once: int = 0
    most_at_once: int = 0

    async def ask(self, work: Work) -> Piece:
        self.asked.append(work.calls)
        number = len(self.asked)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await trio.sleep(1.0)
        self.at_once -= 1
        if number in self.wrong:
            raise self.wrong[number]
        sums = [sum(struct.unpack("<2f", each)) for each in work.arrays]
        return Piece(tensor=struct.pack(f"<{len(sums)}f", *sums), shape=(len(sums), 1))


def check(pieces: list[Piece]) -> None:
    rows = [row["y"][()] for piece in pieces for row in rows_of(DOUBLE, piece)]
    assert rows == [number + 1.0 for number in range(COUNT)]


async def test_nodes_that_leave_cost_their_part_alone(autojump_clock: trio.abc.Clock) -> None:
    away = Refused(Code.NO_EXECUTOR, "Everybody is on the road.")
    nodes, works = Nodes({2: away, 5: Refused(Code.BUSY, "Full."), 6: away}), inputs()
    check(await run_batch(DOUBLE, works, done(None, works), nodes.ask, 4.0))
    assert sum(nodes.asked) == COUNT + 3 * 8 and set(nodes.asked) == {8}
    assert nodes.most_at_once == AT_ONCE


async def test_the_next_process_goes_on_where_this_one_ended(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    path, works = tmp_path / "batch", inputs()
    wrong = Refused(Code.PRICE_TOO_HIGH, "Too dear.")
    first = Nodes({3: wrong})
    with pytest.raises(Refused, match=r"(16|24) of 40 inputs are done") as caught:
        await run_batch(DOUBLE, works, done(path, works), first.ask, 4.0)
    assert str(path) in caught.value.message and path.stat().st_mode & 0o777 == 0o600
    before = done(path, works)
    before.open()
    finished = sum(piece.shape[0] for piece in before.pieces.values())
    assert finished in (16, 24)
    second = Nodes()
    check(await run_batch(DOUBLE, works, done(path, works), second.ask, 1.5))  # in other parts: slower nodes
    assert sum(second.asked) == COUNT - finished and max(second.asked) == 3
    third = Nodes()
    check(await run_batch(DOUBLE, works, done(path, works), third.ask, 4.0))
    assert third.asked == []


async def test_a_process_that_is_cut_off_loses_what_was_under_way(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    path, works, again = tmp_path / "batch", inputs(), Nodes()

    async def cut_off(work: Work) -> Piece:
        if len(nodes.asked) == AT_ONCE + 1:
            scope.cancel()
        return await nodes.ask(work)

    nodes = Nodes()
    with trio.CancelScope() as scope:
        await run_batch(DOUBLE, works, done(path, works), cut_off, 2.0)
    kept = done(path, works)
    kept.open()
    check(await run_batch(DOUBLE, works, done(path, works), again.ask, 2.0))
    assert 4 <= COUNT - sum(again.asked) == sum(piece.shape[0] for piece in kept.pieces.values())


async def test_a_part_that_nobody_takes_ends_the_batch_after_its_tries(autojump_clock: trio.abc.Clock) -> None:
    nobody = Refused(Code.NO_EXECUTOR, "Nobody is there.")
    nodes, works = Nodes(dict.fromkeys(range(1, 1000), nobody)), inputs(count=3)
    with pytest.raises(Refused, match=r"Nobody is there\. 0 of 3 inputs are done"):
        await run_batch(DOUBLE, works, done(None, works), nodes.ask, 4.0)
    assert len(nodes.asked) == TRIES_MAX


async def test_a_checkpoint_of_other_work_or_a_damaged_one_is_kept(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    path, works, nodes = tmp_path / "batch", inputs(), Nodes()
    await run_batch(DOUBLE, works, done(path, works), nodes.ask, 4.0)
    kept = path.read_bytes()
    for other in (Done(path, identity_of(bytes(32), "quorum:2/3", works)), done(path, inputs(count=39))):
        with pytest.raises(ConfigError, match="Name another file"):
            await run_batch(DOUBLE, works, other, nodes.ask, 4.0)
    assert path.read_bytes() == kept
    (tmp_path / "damaged").write_bytes(b"nothing of ours" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        await run_batch(DOUBLE, works, done(tmp_path / "damaged", works), nodes.ask, 4.0)


def test_parts_are_what_one_order_carries() -> None:
    large = one("float32", 200_000)
    works = [work_of(large, [{"x": bytes(800_000)}]) for _ in range(5)]
    assert [(part.first, part.after) for part in parts_of(large, works, 0, 5, 1e9)] == [(0, 2), (2, 4), (4, 5)]
    many = inputs(count=200)
    assert [part.work.calls for part in parts_of(DOUBLE, many, 10, 200, 1e9)] == [CALL_INPUTS_MAX] * 2 + [62]
    assert [part.work.calls for part in parts_of(DOUBLE, many, 0, 20, 0.0)] == [UNMEASURED, UNMEASURED, 4]

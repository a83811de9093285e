"""Who is eligible, and who is chosen."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from nacl.signing import SigningKey

from fallow.client.nodes import Node, Shown
from fallow.client.scheduler import (
    BATCH_COST_S,
    EXPLORE,
    FAILURE_COST_S,
    SPREAD,
    Experience,
    Need,
    choose,
    expected_s,
    ineligible,
    why_nobody,
)
from fallow.node.book import BOOK, Book, Met, Profile
from fallow.protocol.envelope import sign
from fallow.protocol.identity import CHECKER, Mandate, WorkerKey
from fallow.protocol.prices import Price
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile, ServedBundle
from fallow.protocol.witness import Witness

BUNDLE = b"\x09" * 32
NEED = Need(BUNDLE, "generate", 1, 40, 100, 10_000)


def node(number: int, rtt_ms: float = 5.0, running: int = 0, state: str = "ready", price_ucr: int = 4) -> Node:
    key, owner = SigningKey(bytes([number]) * 32), SigningKey(bytes([number, 1]) * 16)
    public = bytes(key.verify_key)
    served = ServedBundle(BUNDLE, ("generate", "score"), "class", 400_000, 30_000, 0)
    prices = (Price(BUNDLE, "generate", 0, 1, price_ucr, 0), Price(BUNDLE, "score", 0, 1, 0, 1))
    return Node(
        public,
        sign(Mandate(public, bytes(owner.verify_key), ("executor",), 1, 0, 1, None), owner),
        CapabilityProfile(public, BUNDLE, 1, 0, 1, "host", "", ("executor",), (), (served,), prices, 4, 0, 0, ()),
        ConnectivityProfile(public, 1, 0, 1, (), (), None, 0, None, None, None, None, None, None),
        sign(WorkerKey(public, BUNDLE, 0, 1), key),
        state, (), running, (), rtt_ms, 0.0,
    )  # fmt: skip


GOOD = node(1)


@pytest.mark.spec("G-4")
@pytest.mark.parametrize(
    ("candidate", "need", "distrusted", "why"),
    [
        (GOOD, NEED, set(), None),
        (GOOD, NEED, {GOOD.key}, "at fault"),
        (GOOD, replace(NEED, avoid_nodes=frozenset({GOOD.key})), set(), "already tried"),
        (GOOD, replace(NEED, avoid_owners=frozenset({GOOD.owner})), set(), "already part"),
        (GOOD, replace(NEED, bundle=b"\x00" * 32), set(), "without this entry"),
        (GOOD, replace(NEED, entry="call"), set(), "without this entry"),
        (GOOD, replace(NEED, role=CHECKER), set(), "not mandated"),
        (GOOD, replace(NEED, amount_ucr_max=10), set(), "dearer"),
        (node(1, state="yielding"), NEED, set(), "yielding"),
        (node(1, state="not-eligible"), NEED, set(), "not-eligible"),
        (replace(GOOD, worker_key=None), NEED, set(), "ready"),
        (replace(GOOD, capability=replace(GOOD.capability, prices=())), NEED, set(), "without a price"),
    ],
)
def test_why_a_node_does_not_get_the_work(candidate: Node, need: Need, distrusted: set[bytes], why: str | None) -> None:
    reason = ineligible(candidate, need, distrusted)
    assert reason is None if why is None else reason and why in reason
    if why:
        assert why in why_nobody([candidate], need, distrusted)


def test_the_faster_of_two_is_taken_and_sometimes_another_is_tried() -> None:
    near, far = node(1, rtt_ms=1), node(2, rtt_ms=4_000)
    picks = [choose([near, far], NEED, Experience(), set(), (), 0.0, Random(seed)) for seed in range(1000)]
    share = sum(pick is far for pick in picks) / len(picks)
    assert 0 < share < EXPLORE


def test_load_and_failures_cost_and_are_forgotten() -> None:
    experience = Experience()
    quiet, busy = node(1), node(2, running=3)
    assert expected_s(quiet, NEED, experience, 0) < expected_s(busy, NEED, experience, 0)
    experience.failed(quiet.key, 0)
    assert expected_s(quiet, NEED, experience, 0) > expected_s(quiet, NEED, experience, 3_000)


def test_what_a_node_did_before_counts_and_newcomers_get_their_chance() -> None:
    def waits(met: Met | None) -> float:
        return expected_s(GOOD, NEED, Experience(met=lambda key: met if key == GOOD.key else None), 0)

    newcomer, seen = waits(None), waits(Met(GOOD.key, tries=8, answers=8))
    steady = waits(Met(GOOD.key, tries=40, answers=40, jobs_done=90))
    leaving = waits(Met(GOOD.key, tries=40, answers=20, jobs_done=90))
    failing = waits(Met(GOOD.key, tries=40, answers=40, jobs_done=45, jobs_failed=45))
    assert steady < leaving < newcomer < failing < newcomer + FAILURE_COST_S
    assert steady < seen < newcomer
    assert waits(Met(GOOD.key)) == newcomer


def test_a_node_that_fails_often_gets_work_seldom(tmp_path: Path) -> None:
    """From the book's file, by another process than the one in which it failed."""
    good, bad = node(1), node(2, rtt_ms=1.0)
    with closing(Book(tmp_path / BOOK, lambda: 1)) as book:
        for each in (good, bad):
            book.answered(each.key, (), (BUNDLE,), 1000, Profile(b"", b"", b""))
            for _ in range(8):
                book.worked(each.key, well=each is good)
    with closing(Book(tmp_path / BOOK, lambda: 2)) as book:
        picks = [choose([good, bad], NEED, Experience(met=book.get), set(), (), 0, Random(seed)) for seed in range(500)]
        assert 0 < sum(pick is bad for pick in picks) < 500 * EXPLORE


def test_what_was_measured_outweighs_what_is_advertised() -> None:
    experience = Experience()
    experience.measured(GOOD.key, BUNDLE, 1.0)
    assert expected_s(GOOD, NEED, experience, 0) > 10 * expected_s(GOOD, NEED, Experience(), 0)


def test_the_preferred_come_first_if_they_can() -> None:
    wanted, other = node(1, rtt_ms=9_999), node(2)
    assert choose([wanted, other], NEED, Experience(), set(), (wanted.key,), 0, Random(1)) is wanted
    assert choose([wanted, other], NEED, Experience(), {wanted.key}, (wanted.key,), 0, Random(1)) is other
    assert choose([], NEED, Experience(), set(), (), 0, Random(1)) is None


def test_where_somebody_waits_an_interactive_node_is_taken_and_what_was_not_measured_is_batch() -> None:
    batch = node(1)
    figures = replace(node(2).connectivity, rtt_p95_us=150_000, jitter_us=50_000, loss_ppm=20_000)
    interactive = replace(node(2), connectivity=figures)
    assert interactive.interactive and not batch.interactive
    for need, costs in ((NEED, True), (replace(NEED, role=CHECKER), False), (replace(NEED, entry="call"), False)):
        least, most = (expected_s(each, need, Experience(), 0) for each in (interactive, batch))
        assert (most - least == BATCH_COST_S) is costs
    assert choose([batch, interactive], NEED, Experience(), set(), (), 0, Random(1)) is interactive
    assert choose([batch], NEED, Experience(), set(), (), 0, Random(1)) is batch


@pytest.mark.spec("D-27")
def test_what_the_client_measured_comes_before_witnesses_and_they_before_the_nodes_word() -> None:
    said = replace(node(2).connectivity, rtt_p95_us=1_000, jitter_us=1_000, loss_ppm=0)
    claimed = replace(node(2), connectivity=said)
    far = Witness(b"\x01" * 32, claimed.key, b"mandate", 0, 1, 20, 300_000, 400_000, 1_000, 0)
    witnessed = replace(claimed, shown=Shown(lambda: (far, replace(far, witness=b"\x02" * 32))))
    assert claimed.interactive and replace(claimed, shown=Shown(lambda: (far,))).interactive
    assert not witnessed.interactive
    assert replace(witnessed, own_rtts_us=(900_000, 9_000, 9_000)).interactive
    assert not replace(claimed, own_rtts_us=(900_000, 1_000, 900_000)).interactive
    assert replace(claimed, own_rtts_us=(900_000, 900_000)).interactive


SEEDS = 1000


def share(wanted: Node, nodes: list[Node], need: Need) -> float:
    """Of how many choices it is chosen."""
    picks = [choose(nodes, need, Experience(), set(), (), 0.0, Random(seed)) for seed in range(SEEDS)]
    return sum(pick is wanted for pick in picks) / SEEDS


def test_another_region_is_looked_for_and_who_names_a_rare_one_does_not_always_win() -> None:
    near = [replace(each, capability=replace(each.capability, region="here")) for each in map(node, range(1, 9))]
    rare = replace(node(9), capability=replace(node(9).capability, region="there"))
    nowhere = node(10)  # it names no region: that is not another one
    spread = replace(NEED, spread_from=frozenset({"here"}))
    among = [*near, rare, nowhere]
    assert SPREAD < share(rare, among, spread) < 0.8
    assert share(nowhere, among, spread) < 0.2
    assert share(rare, among, NEED) < 0.25
    assert choose(near, spread, Experience(), set(), (), 0, Random(1)) in near, "where there is no other, one of these"


def test_those_who_are_wished_for_come_first_if_they_can() -> None:
    near, anchor = [node(number, rtt_ms=1) for number in range(1, 9)], node(9, rtt_ms=4_000)
    wished = replace(NEED, wished_owners=frozenset({anchor.owner}))
    assert share(anchor, [*near, anchor], wished) == 1
    assert share(anchor, [*near, anchor], NEED) < EXPLORE
    busy = replace(anchor, state="yielding")
    assert choose([*near, busy], wished, Experience(), set(), (), 0, Random(1)) in near


def test_proven_nodes_are_preferred_and_an_idle_newcomer_still_beats_a_queue() -> None:
    newcomers, proven = [node(number) for number in range(1, 9)], node(9)
    need = replace(NEED, proven=frozenset({proven.key}))
    # Without the record it is one of nine; with it it is in every draw, and what is the same otherwise is better there.
    assert share(proven, [*newcomers, proven], NEED) < 0.25
    assert share(proven, [*newcomers, proven], need) > 1 - 2 * EXPLORE
    queue = replace(proven, jobs_running=3)
    assert share(queue, [*newcomers, queue], need) < 0.1
    assert expected_s(proven, need, Experience(), 0) < expected_s(newcomers[0], need, Experience(), 0)
    assert expected_s(newcomers[0], need, Experience(), 0) < expected_s(queue, need, Experience(), 0)


def test_nobody_there_is_said_plainly() -> None:
    assert "No node" in why_nobody([], NEED, set())

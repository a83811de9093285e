"""Who has read a text's beginning, and what that counts for in a choice."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from fallow.client.affinity import BLOCK_TOKENS, BLOCKS_MAX, NODES_MAX, Affinity
from fallow.client.nodes import Node
from fallow.client.scheduler import EXPLORE, REDRAWN, Experience, Need, choose
from fallow.protocol.identity import CHECKER

from .test_scheduler import BUNDLE, NEED, node

A, B = b"a" * 32, b"b" * 32
TEXT = tuple(range(100, 100 + 10 * BLOCK_TOKENS))


def test_a_beginning_is_found_as_far_as_it_is_the_same() -> None:
    kept = Affinity()
    kept.note(A, BUNDLE, TEXT)
    kept.note(B, BUNDLE, TEXT[: 3 * BLOCK_TOKENS + 1])
    assert kept.find(BUNDLE, TEXT) == {A: 10 * BLOCK_TOKENS, B: 3 * BLOCK_TOKENS}
    assert kept.find(BUNDLE, (*TEXT, 1, 2)) == {A: 10 * BLOCK_TOKENS, B: 3 * BLOCK_TOKENS}
    assert kept.find(BUNDLE, (*TEXT[: 2 * BLOCK_TOKENS], *TEXT)) == {A: 2 * BLOCK_TOKENS, B: 2 * BLOCK_TOKENS}
    for other in (TEXT[: BLOCK_TOKENS - 1], (0, *TEXT), ()):
        assert kept.find(BUNDLE, other) == {}
    assert kept.find(b"another bundle" * 2, TEXT) == {}


def test_the_latest_are_remembered_and_the_oldest_text_is_forgotten() -> None:
    kept = Affinity()
    nodes = [bytes([number]) * 32 for number in range(NODES_MAX + 1)]
    for each in (*nodes, nodes[1]):
        kept.note(each, BUNDLE, TEXT)
    assert set(kept.find(BUNDLE, TEXT)) == set(nodes[1:])
    for first in range(BLOCKS_MAX // 1_000 + 1):
        kept.note(A, BUNDLE, range(first, first + 1_000 * BLOCK_TOKENS))
    assert kept.find(BUNDLE, TEXT) == {}
    assert kept.find(BUNDLE, range(first, first + 1_000 * BLOCK_TOKENS)) == {A: 1_000 * BLOCK_TOKENS}


ROUNDS = 2_000
CONVERSATION = replace(NEED, tokens=(*TEXT, *range(40)), input_tokens=len(TEXT) + 40)
"""Its next turn: 40 tokens more than what the holder has read."""


def share_of(holder: Node, need: Need, experience: Experience) -> float:
    """How often it is chosen among twenty nodes that are else alike."""
    nodes = [holder, *(node(number) for number in range(1, 21) if node(number).key != holder.key)]
    if need.role == CHECKER:
        nodes = [mandated(each) for each in nodes]
    chosen = (choose(nodes, need, experience, set(), (), 0.0, Random(seed)) for seed in range(ROUNDS))
    return sum(each is not None and each.key == holder.key for each in chosen) / ROUNDS


def mandated(each: Node) -> Node:
    """The node, for checks as well."""
    return replace(each, mandate=replace(each.mandate, record=replace(each.mandate.record, roles=(CHECKER,))))


def holding(tokens: tuple[int, ...]) -> tuple[Node, Experience]:
    """A node, and the experience that it has read these tokens."""
    holder, experience = node(7), Experience()
    experience.kept.note(holder.key, BUNDLE, tokens)
    return holder, experience


def test_the_next_turn_goes_to_who_has_the_conversation_but_for_exploration() -> None:
    holder, experience = holding(TEXT)
    assert 1 - 2 * EXPLORE < share_of(holder, CONVERSATION, experience) < 1
    assert share_of(holder, NEED, experience) < 0.2


def test_a_holder_that_is_busy_or_has_failed_is_one_of_many() -> None:
    holder, experience = holding(TEXT)
    assert share_of(replace(holder, jobs_running=3), CONVERSATION, experience) < 0.2
    experience.failed(holder.key, 0.0)
    assert share_of(holder, CONVERSATION, experience) < 0.2


def test_the_words_that_every_chat_begins_with_are_no_reason() -> None:
    holder, experience = holding(TEXT[: 4 * BLOCK_TOKENS])
    assert share_of(holder, CONVERSATION, experience) < 0.2


def test_who_checks_the_next_window_cannot_be_foretold() -> None:
    holder, experience = holding(TEXT)
    check = replace(CONVERSATION, entry="score", role=CHECKER)
    assert (1 - REDRAWN) * 0.8 < share_of(holder, check, experience) < (1 - REDRAWN) * 1.4


@pytest.mark.parametrize("avoid", ["avoid_nodes", "avoid_owners"])
def test_having_read_it_makes_nobody_eligible(avoid: str) -> None:
    holder, experience = holding(TEXT)
    keys = frozenset({holder.key, holder.owner})
    assert share_of(holder, replace(CONVERSATION, **{avoid: keys}), experience) == 0

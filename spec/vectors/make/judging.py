"""Kind `agreement`: how far results lie apart, and whether enough owners came to the same."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import world
from .cose import Signer
from .notation import Case
from .world import CLIENT, NODE, OTHER, TOLERANCE, Fields

CHECKERS = tuple(map(Signer, range(21, 27)))
"""Each is its own owner, unless a case says otherwise."""


def agreement() -> Iterator[Case]:
    yield from _distances()
    yield from _windows()
    yield from _results()


def tensor(*rows: Sequence[float]) -> Fields:
    """A piece with these rows of float32."""
    flat = [number for row in rows for number in row]
    return piece(struct.pack(f"<{len(flat)}f", *flat), [len(rows), len(rows[0])])


def piece(encoded: bytes, shape: list[int]) -> Fields:
    """A piece with this tensor."""
    return {"tokens": [], "values_micro": [], "gaps_micro": [], "masses_ppm": [], "tensor": encoded, "shape": shape}


def _distances() -> Iterator[Case]:
    inf, nan, least, most = float("inf"), float("nan"), 2.0**-149, (2.0 - 2.0**-23) * 2.0**127
    along = tensor([1, 0])
    for words, about, one, other, distance in (
        ("same", "The same row.", along, along, 0),
        ("orthogonal", "Cosine 0.", along, tensor([0, 1]), 1_000_000),
        ("opposite", "Cosine -1, and exact.", along, tensor([-1, 0]), 2_000_000),
        ("stretched", "Twice as long: 1 - 1/2.", along, tensor([2, 0]), 500_000),
        ("rational", "24 / 25.", tensor([3, 4]), tensor([4, 3]), 40_000),
        ("rounded", "sqrt(1/2) is 0.707106781...: rounded down, the distance up.", tensor([1, 1]), along, 292_894),
        ("rounded-below-nothing", "-0.707106781... rounds to -0.707107.", tensor([1, 1]), tensor([-1, 0]), 1_707_107),
        ("worst-row", "The row that is farthest.", tensor([1, 0], [3, 4]), tensor([1, 0], [4, 3]), 40_000),
        ("smallest-numbers", "The least that a float32 can say.", tensor([least, 0]), tensor([least, 0]), 0),
        ("smallest-stretched", "Three times the least.", tensor([least, 0]), tensor([3 * least, 0]), 666_667),
        ("largest-numbers", "The most that a float32 can say.", tensor([most, most]), tensor([most, most]), 0),
        ("smallest-and-largest", "All of float32 between them.", tensor([least, 0]), tensor([most, 0]), 1_000_000),
        ("negative-zero", "-0 is 0.", tensor([-0.0, 1]), tensor([0, 1]), 0),
        ("nearly-the-same", "A last bit: the distance rounds up to a millionth.", along, tensor([1, 2.0**-23]), 1),
        ("a-last-bit-longer", "A last bit longer.", along, tensor([1 + 2.0**-23, 0]), 1),
        ("more-rows", "Results of different shapes have no distance.", along, tensor([1, 0], [1, 0]), None),
        ("wider", "Results of different shapes have no distance.", along, tensor([1, 0, 0]), None),
        ("infinite", "Not finite.", along, tensor([inf, 0]), None),
        ("not-a-number", "Not finite.", tensor([nan, 0]), along, None),
        ("zero-row", "Zeros, and what is none.", tensor([1, 0], [0, 0]), tensor([1, 0], [1, 0]), 1_000_000),
        ("zero-rows", "Zeros and zeros.", tensor([1, 0], [0, 0]), tensor([1, 0], [-0.0, 0]), 0),
        ("zero-row-before-worse", "The row after it is farther.", tensor([0], [1]), tensor([1], [-1]), 2_000_000),
        ("one-dimension", "One dimension.", piece(along["tensor"], [2]), along, None),
        ("three-dimensions", "Three dimensions.", piece(along["tensor"], [1, 1, 2]), along, None),
        ("too-few-bytes", "A byte is missing.", piece(along["tensor"][:-1], [1, 2]), along, None),
        ("no-columns", "A dimension of 0.", piece(b"", [1, 0]), along, None),
        ("no-rows", "A dimension of 0.", piece(b"", [0, 2]), along, None),
        ("huge-shape", "A shape whose product is beyond 64 bits.", piece(b"", [2**62, 4]), along, None),
    ):
        yield Case(f"distance-{words}", about, {"one": one, "other": other}, {"distance_ppm": distance})


_VALUES = [-1_000, -2_000, -3_000]
_RECEIPT = NODE.sign("receipt", world.receipt(values_micro=_VALUES))


def _check(number: int, owner: Signer | None = None, *, carried: int = 0, silent: bool = False, **found: Any) -> Fields:
    """A checker who finds what the executor claims, unless `found` says otherwise."""
    node, claimed = CHECKERS[number], len(_VALUES) + carried
    check = {"node": node.key, "owner": (owner or node).key, "claimed": claimed}
    if silent:
        return check
    figures = {"values_micro": [-7] * carried + _VALUES, "gaps_micro": [0] * claimed, "masses_ppm": [0] * claimed}
    fields = world.attestation(**{"subject": _RECEIPT.id, **figures, **found})
    return {**check, "attestation": node.sign("attestation", fields).whole}


def _window(policy: str, *checks: Fields, anchors: Sequence[Signer] = (), **changes: Any) -> Fields:
    return {
        "policy": policy, "tolerance": TOLERANCE, "executor": {"node": NODE.key, "owner": NODE.key},
        "receipt": _RECEIPT.whole, "top_p_ppm": 900_000, "checks": list(checks), "parties": [CLIENT.key],
        "anchors": [anchor.key for anchor in anchors], **changes,
    }  # fmt: skip


def _windows() -> Iterator[Case]:
    for words, about, given, outcome, against in _judged_windows():
        expect = {"outcome": outcome, "against": _keys(against), "carried_good": True}
        yield Case(f"window-{words}", about, given, expect)
    yield from _carried()


def _keys(numbers: Sequence[int]) -> list[bytes]:
    """Keys of checkers, and of the executor (-1), ascending."""
    return sorted(NODE.key if number < 0 else CHECKERS[number].key for number in numbers)


def _judged_windows() -> Iterator[tuple[str, str, Fields, str, list[int]]]:
    accepted, rejected, open_ = "accepted", "rejected", "inconclusive"
    off: Fields = {"values_micro": [-1_000, -2_000, -3_101]}
    yield "agreed", "One checker agrees.", _window("quorum:2/2", _check(0)), accepted, []
    at_edge: Fields = {
        "values_micro": [-900, -2_100, -3_000],
        "gaps_micro": [1_000, 0, 0],
        "masses_ppm": [900_500, 0, 0],
    }
    yield "at-the-tolerance", "All figures at their bounds.", _window("quorum:2/2", _check(0, **at_edge)), accepted, []
    yield "value-beyond", "A value one micro-nat beyond.", _window("quorum:2/2", _check(0, **off)), open_, []
    gap: Fields = {"gaps_micro": [0, 1_001, 0]}
    yield "gap-beyond", "A gap one beyond.", _window("quorum:2/2", _check(0, **gap)), open_, []
    mass: Fields = {"masses_ppm": [0, 0, 900_501]}
    yield "mass-beyond", "A mass one beyond.", _window("quorum:2/2", _check(0, **mass)), open_, []
    yield "one-objects", "One of two objects.", _window("quorum:2/3", _check(0), _check(1, **off)), accepted, [1]
    both = _window("quorum:2/3", _check(0, **off), _check(1, **off))
    yield "outvoted", "Two agree on other values.", both, rejected, [-1]
    apart = _window("quorum:2/3", _check(0, **off), _check(1, values_micro=[-500, -2_000, -3_000]))
    yield "each-another", "Two object, and not to the same.", apart, open_, []
    near = _window("quorum:2/3", _check(0, **off), _check(1, values_micro=[-1_000, -2_000, -3_201]))
    yield "objectors-near", "Two object, with values near to each other.", near, rejected, [-1]
    three = _window("quorum:3/4", _check(0, **off), _check(1, **off), _check(2))
    yield "three-of-four", "Two against two.", three, open_, []
    five = _window("quorum:3/5", *(_check(n, **off) for n in (0, 1, 2)), _check(3))
    yield "confirmed-what-is-rejected", "Who confirmed it belongs not to the majority.", five, rejected, [-1, 3]
    tokens = _window("quorum:2/3", *(_check(n, gaps_micro=[0, 0, 5_000]) for n in (0, 1)))
    yield "tokens-not-chosen", "The values are right, the tokens are not.", tokens, rejected, [-1]
    silent = _window("quorum:2/3", _check(0, silent=True), _check(1))
    yield "one-silent", "Who says nothing has not agreed.", silent, accepted, [0]
    silent = _window("quorum:2/3", _check(0, silent=True), _check(1, silent=True))
    yield "all-silent", "Silence is no majority.", silent, open_, []
    few = _window("quorum:2/2", _check(0, values_micro=_VALUES[:2], gaps_micro=[0, 0], masses_ppm=[0, 0]))
    yield "too-few-values", "Not one value for each token.", few, open_, []
    nothing: Fields = {"values_micro": [], "gaps_micro": [], "masses_ppm": []}
    empty = _window("quorum:2/3", *(_check(n, **nothing) for n in (0, 1)))
    yield "no-values", "Two who give no values agree on nothing.", empty, open_, []
    beside = _window("quorum:2/3", *(_check(n, subject=world.name("another receipt"), **off) for n in (0, 1)))
    yield "about-another", "Findings about another window.", beside, open_, []
    one_owner = _window("quorum:3/3", _check(0, OTHER), _check(1, OTHER))
    yield "one-owner", "Two nodes of one owner are one.", one_owner, open_, []
    one_owner = _window("quorum:2/3", _check(0, OTHER, **off), _check(1, OTHER, **off))
    yield "one-owner-objects", "Two nodes of one owner are one, and no majority.", one_owner, open_, []
    yield "executors-owner", "The executor's owner does not check.", _window("quorum:2/2", _check(0, NODE)), open_, []
    yield "client-checks", "Nor does the client.", _window("quorum:2/2", _check(0, CLIENT)), open_, []
    party = _window("quorum:2/3", _check(0, CLIENT, **off), _check(1, **off))
    yield "party-objects", "A party does not count among those who object.", party, open_, []
    again = _window("quorum:2/3", _check(0, silent=True), _check(0), _check(1, silent=True))
    yield "asked-again", "Of a node's checks the one with a finding counts.", again, accepted, [1]
    twice = _window("quorum:2/3", _check(0, **off), _check(0, **off), _check(1, silent=True))
    yield "objects-twice", "A node that objects twice objects once.", twice, open_, []
    yield "nobody", "Nobody was asked.", _window("quorum:2/2"), open_, []
    yield "audited", "An audit asks for two owners.", _window("audit:500000", _check(0)), accepted, []
    yield "anchored", "An anchor agrees.", _window("quorum:2/2+anchor", _check(0), anchors=[CHECKERS[0]]), accepted, []
    own = _window("quorum:2/2+anchor", _check(0), anchors=[NODE])
    yield "executor-is-anchor", "The executor's owner is the anchor.", own, accepted, []
    anchor = _window("quorum:2/3+anchor", _check(0), _check(1), anchors=[OTHER])
    yield "anchor-missing", "All agree, and none is an anchor.", anchor, open_, []
    anchor = _window("quorum:2/3+anchor", _check(0, **off), _check(1, **off))
    yield "anchor-missing-against", "Two object, and none is an anchor.", anchor, open_, []
    yield "committee", "Two who were drawn agree.", _window("committee:2/2", _check(0), _check(1)), accepted, []
    alone = _window("committee:2/2", _check(0))
    yield "committee-without-executor", "The executor is none of the committee.", alone, open_, []
    against = _window("committee:2/3", _check(0, **off), _check(1, **off), _check(2))
    yield "committee-against", "Two of three agree on other values.", against, rejected, [-1, 2]


def _carried() -> Iterator[Case]:
    """Checkers were asked about two tokens before the window, too."""
    bad: Fields = {"gaps_micro": [0, 2_000, 0, 0, 0]}
    known: Fields = {"carried_values": [-7, -7]}
    two = _check(0, carried=2)
    off = _window("quorum:2/2", two, carried_values=[-7, -108])
    half = _window("quorum:2/3", two, _check(1, carried=2, **bad))
    for words, about, given, good in (
        ("good", "They confirm what was carried.", _window("quorum:2/2", two), True),
        ("bad", "A carried token is not chosen.", _window("quorum:2/2", _check(0, carried=2, **bad)), False),
        ("known", "Its values are known, and right.", _window("quorum:2/2", two, **known), True),
        ("known-and-off", "Its values are known, and wrong.", off, False),
        ("one-of-two", "One of two confirms it.", half, False),
    ):
        expect = {"outcome": "accepted", "against": [], "carried_good": good}
        yield Case(f"carried-{words}", about, given, expect)


def _function(
    policy: str, pieces: Mapping[int, Fields | None], *, owner: Signer | None = None, owned: Sequence[int] = (),
    anchors: Sequence[int] = (),
) -> Fields:  # fmt: skip
    """What each of these checkers came to; those `owned` are of one owner. Results agree up to 300000 ppm."""
    results = [
        {"node": CHECKERS[number].key, "owner": (owner if owner and number in owned else CHECKERS[number]).key}
        | ({} if found is None else {"piece": found})
        for number, found in pieces.items()
    ]
    return {
        "policy": policy, "tolerance": {**TOLERANCE, "value_micro": 300_000}, "results": results,
        "parties": [CLIENT.key], "anchors": [CHECKERS[number].key for number in anchors],
    }  # fmt: skip


def _results() -> Iterator[Case]:
    for words, about, given, use, against in _accepted():
        expect = {"outcome": "accepted", "against": _keys(against), "use": CHECKERS[use].key}
        yield Case(f"results-{words}", about, given, expect)
    along, across, two = tensor([1, 0]), tensor([0, 1]), "quorum:2/2"
    one_owner = _function(two, {0: along, 1: along}, owner=OTHER, owned=(0, 1))
    for words, about, given in (
        ("apart", "They came to different results.", _function(two, {0: along, 1: across})),
        ("alone", "One result.", _function(two, {0: along})),
        ("none", "No result.", _function(two, {0: None, 1: None})),
        ("nobody", "Nobody was asked.", _function(two, {})),
        ("one-owner", "Two nodes of one owner.", one_owner),
        ("anchor-missing", "None is an anchor.", _function(two + "+anchor", {0: along, 1: along})),
        ("three-of-four", "Two against two.", _function("quorum:3/4", {0: along, 1: along, 2: across, 3: across})),
    ):
        yield Case(f"results-{words}", about, given, {"outcome": "inconclusive", "against": []})


def _accepted() -> Iterator[tuple[str, str, Fields, int, list[int]]]:
    """[1, 0] and [1, 1] are 292894 ppm apart, [1, 0] and [0, 1] a million. Checkers are taken by their keys."""
    along, between, across = tensor([1, 0]), tensor([1, 1]), tensor([0, 1])
    first, second, third, fourth, fifth = sorted(range(5), key=lambda number: CHECKERS[number].key)
    two, some = "quorum:2/2", "quorum:2/3"
    about = "Both came to the same: of equals the lower node key's."
    yield "same", about, _function(two, {second: along, first: along}), first, []
    yield "near", "Near enough.", _function(two, {first: along, second: between}), first, []
    middle = _function("quorum:3/3", {first: tensor([25, 0]), second: tensor([24, 7]), third: tensor([20, 15])})
    yield "in-the-middle", "The one that is closest to all is used.", middle, second, []
    for words, about, found in (
        ("outsider", "One is too far from the two.", across),
        ("silent", "One gave nothing.", None),
        ("malformed", "One has a number that is none.", tensor([float("nan"), 0])),
        ("nothing", "One has zeros only.", tensor([0, 0])),
        ("another-shape", "One has another shape.", tensor([1, 0, 0])),
    ):
        yield words, about, _function(some, {first: found, second: along, third: along}), second, [first]
    three = {first: along, second: along, third: along}
    party = _function(some, three, owner=CLIENT, owned=(first,))
    yield "party", "The client's result does not count.", party, second, [first]
    about = "Both ends agree with the middle, not with each other: the group of the lowest node key."
    yield "chain", about, _function(some, {first: along, second: between, third: across}), first, [third]
    five = {first: across, second: across, third: across, fourth: along, fifth: along}
    owners = _function(some, five, owner=OTHER, owned=(first, second, third))
    about = "Two owners outweigh three nodes of one."
    yield "owners-before-nodes", about, owners, fourth, [first, second, third]
    anchored = _function(some + "+anchor", five, anchors=[fifth])
    about = "The group with the anchor is enough, the larger one is not."
    yield "anchored", about, anchored, fourth, [first, second, third]

"""Kind `witness`: which statements about a node's connection count, and what a client goes by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cose import Signer
from .notation import Case, refused
from .world import CLIENT, DAY_MS, ISSUER, NODE, NOW_MS, OTHER, OWNER, SKEW_MS, Fields


def witness() -> Iterator[Case]:
    ends = NOW_MS + 600_000 + SKEW_MS
    for words, about, given in (
        ("holds", "A statement of this hour.", _asked()),
        ("early", "As early as clocks may differ.", _asked(now_ms=NOW_MS - SKEW_MS)),
        ("late", "As late as clocks may differ.", _asked(now_ms=ends)),
    ):
        yield Case(words, about, given, {"owner": OWNER.key})
    by_issuer = world.mandate(issuer=OWNER.sign("issuer", world.issuer()).whole)
    issued = _statement(mandate=ISSUER.sign("mandate", by_issuer).whole)
    yield Case("mandate-by-issuer", "The witness's mandate is by an issuer.", _asked(issued), {"owner": OWNER.key})
    for words, about, code, given in (
        ("too-early", "A millisecond earlier.", "expired", _asked(now_ms=NOW_MS - SKEW_MS - 1)),
        ("too-late", "A millisecond later.", "expired", _asked(now_ms=ends + 1)),
        ("about-another", "About another node.", "bad_signature", _asked(node=CLIENT.key)),
        ("by-another", "Signed by the one that it is about.", "bad_signature", _asked(_statement(OTHER))),
        ("mandate-of-another", "Another node's mandate.", "bad_mandate", _asked(_statement(mandate=_mandate(OTHER)))),
        ("mandate-self-made", "A mandate of its own.", "bad_mandate", _asked(_statement(mandate=_mandate(NODE, NODE)))),
        ("mandate-garbled", "Bytes that are no mandate.", "bad_encoding", _asked(_statement(mandate=b"mandate"))),
        ("mandate-over", "A mandate that is over.", "expired", _asked(_statement(mandate=_mandate(NODE, late=True)))),
    ):
        yield refused(words, about, given, code)
    yield from _beliefs()


def _statement(signer: Signer = NODE, **changes: Any) -> bytes:
    return signer.sign("witness", world.witness(**changes)).whole


def _mandate(node: Signer, signer: Signer = OWNER, *, late: bool = False) -> bytes:
    times = {"not_before_ms": NOW_MS - DAY_MS, "expires_ms": NOW_MS - SKEW_MS - 1} if late else {}
    return signer.sign("mandate", world.mandate(node=node.key, owner=OWNER.key, **times)).whole


def _asked(statement: bytes | None = None, **changes: Any) -> Fields:
    return {"witness": statement or _statement(), "node": OTHER.key, "now_ms": NOW_MS, **changes}


def _by(node: Signer, owner: Signer, rtt_us: int) -> bytes:
    """A statement of a node of that owner; all its figures follow from one."""
    mandate = owner.sign("mandate", world.mandate(node=node.key, owner=owner.key)).whole
    figures = {"rtt_p50_us": rtt_us, "rtt_p95_us": 2 * rtt_us, "jitter_us": rtt_us // 10, "loss_ppm": rtt_us // 100}
    return _statement(node, witness=node.key, mandate=mandate, **figures)


def _beliefs() -> Iterator[Case]:
    """Statements about OTHER, who belongs to CLIENT and says of itself what the example says."""
    own = {"rtt_p50_us": 20_000, "rtt_p95_us": 90_000, "jitter_us": 5_000, "loss_ppm": 0}
    near, far, farther = _by(NODE, OWNER, 30_000), _by(ISSUER, ISSUER, 200_000), _by(world.GRID, world.GRID, 300_000)
    same_owner, own_owner = _by(ISSUER, OWNER, 200_000), _by(ISSUER, CLIENT, 200_000)
    of_far = {"rtt_p50_us": 200_000, "rtt_p95_us": 400_000, "jitter_us": 20_000, "loss_ppm": 2_000}
    over = _statement(ISSUER, witness=ISSUER.key, issued_ms=1, expires_ms=2)
    for words, about, statements, expected, own_rtt_us in (
        ("none", "The node's own word.", [], own, None),
        ("one", "One owner alone may be a friend.", [far], own, None),
        ("two", "Of two the worse.", [near, far], of_far, None),
        ("three", "The median of three.", [farther, near, far], of_far, None),
        ("of-one-owner", "Two of one owner count as one.", [near, same_owner], own, None),
        ("of-the-nodes-owner", "An owner is no witness of itself.", [near, own_owner], own, None),
        ("of-yesterday", "One that does not hold says nothing.", [near, over], own, None),
        ("noise", "Nor does noise.", [b"noise", near], own, None),
        ("own", "What was measured comes first.", [near, far], {**of_far, **_round(7_000)}, 7_000),
        ("own-alone", "Also before the node's own word.", [], {**own, **_round(400_000)}, 400_000),
    ):
        given: Fields = {
            "profile": world.connectivity(node=OTHER.key), "witnesses": statements, "node": OTHER.key,
            "owner": CLIENT.key, "now_ms": NOW_MS,
        }  # fmt: skip
        if own_rtt_us is not None:
            given["own_rtt_us"] = own_rtt_us
        interactive = expected["rtt_p95_us"] <= 150_000
        yield Case(f"believed-{words}", about, given, {"figures": expected, "interactive": interactive})


def _round(own_rtt_us: int) -> Fields:
    return {"rtt_p50_us": own_rtt_us, "rtt_p95_us": own_rtt_us}

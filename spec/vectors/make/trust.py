"""Kinds `mandate`, `profile` and `order`: whom to believe what, and what a node takes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cose import Envelope
from .notation import Case, refused
from .world import CLIENT, DAY_MS, HASH, HOLD_MS_MAX, ISSUER, NODE, NOW_MS, OTHER, OWNER, SKEW_MS, Fields, name


def mandate() -> Iterator[Case]:
    own = OWNER.sign("mandate", world.mandate())
    issuer = OWNER.sign("issuer", world.issuer()).whole
    issued = ISSUER.sign("mandate", world.mandate(issuer=issuer))
    names = {"owner": OWNER.key, "epoch": 3}
    ends = NOW_MS + DAY_MS + SKEW_MS
    for words, about, given in (
        ("by-owner", "Signed by the owner.", _asked(own)),
        ("by-issuer", "Signed by the owner's issuer.", _asked(issued)),
        ("as-checker", "Its second role.", _asked(own, role="checker")),
        ("early", "As early as clocks may differ.", _asked(own, now_ms=NOW_MS - SKEW_MS)),
        ("late", "As late as clocks may differ.", _asked(own, now_ms=ends)),
        ("lower-epoch-seen", "An earlier one was seen.", _asked(own, seen_epoch=2)),
        ("same-epoch-seen", "This one was seen.", _asked(own, seen_epoch=3)),
    ):
        yield Case(words, about, given, names)
    for words, about, code, given in (
        ("too-early", "A millisecond earlier.", "expired", _asked(own, now_ms=NOW_MS - SKEW_MS - 1)),
        ("too-late", "A millisecond later.", "expired", _asked(own, now_ms=ends + 1)),
        ("another-node", "The mandate of another node.", "bad_mandate", _asked(own, node=OTHER.key)),
        ("another-role", "A role that it does not give.", "bad_mandate", _asked(own, role="relay")),
        ("replaced", "One of a higher epoch was seen.", "bad_mandate", _asked(own, seen_epoch=4)),
        ("by-the-node", "Signed by the node.", "bad_mandate", _asked(NODE.sign("mandate", world.mandate()))),
        ("issuer-alone", "Signed by an issuer that is not in it.", "bad_mandate", _asked(_by_issuer())),
        ("not-a-mandate", "Signed as an issuer.", "bad_signature", _asked(OWNER.sign("issuer", world.mandate()))),
    ):
        yield refused(words, about, given, code)
    yield from _issuers(issuer, ends)
    yield from _judges()


def _judges() -> Iterator[Case]:
    """Whether who signed a ground could judge, though its mandate may have lapsed since."""
    judge = world.mandate(roles=["verifier"])
    own = OWNER.sign("mandate", judge)
    short = OWNER.sign("issuer", world.issuer(expires_ms=NOW_MS + 1)).whole
    issued = ISSUER.sign("mandate", {**judge, "issuer": short})
    ends, issuers = NOW_MS + DAY_MS + SKEW_MS, NOW_MS + 1 + SKEW_MS
    last = ends + HOLD_MS_MAX
    for words, about, holds, given in (
        ("now", "A verifier's mandate that holds.", True, _judging(own, NOW_MS)),
        ("to-come", "It does not hold yet.", False, _judging(own, NOW_MS - SKEW_MS - 1)),
        ("lapsed", "As long ago as anything may be held.", True, _judging(own, last)),
        ("long-lapsed", "A millisecond longer.", False, _judging(own, last + 1)),
        ("since-the-order", "The order was made as it ended.", True, _judging(own, last, ends + SKEW_MS)),
        ("before-the-order", "It had ended before the order.", False, _judging(own, last, ends + SKEW_MS + 1)),
        ("issuer-lapsed", "Its issuer's end is its own.", True, _judging(issued, issuers + HOLD_MS_MAX)),
        ("issuer-long-lapsed", "A millisecond later.", False, _judging(issued, issuers + HOLD_MS_MAX + 1)),
        ("no-verifier", "A checker.", False, _judging(OWNER.sign("mandate", world.mandate()), NOW_MS)),
        ("self-made", "Signed by the node.", False, _judging(NODE.sign("mandate", judge), NOW_MS)),
        ("another-node", "Another node's.", False, {**_judging(own, NOW_MS), "node": OTHER.key}),
    ):
        yield Case(f"judge-{words}", about, given, {"could_judge": holds})


def _judging(mandate: Envelope, now_ms: int, created_ms: int = NOW_MS) -> Fields:
    return {"mandate": mandate.whole, "node": NODE.key, "created_ms": created_ms, "now_ms": now_ms}


def _by_issuer(**changes: Any) -> Envelope:
    return ISSUER.sign("mandate", world.mandate(**changes))


def _issuers(issuer: bytes, ends: int) -> Iterator[Case]:
    """Mandates whose issuer's record is not what it should be."""
    another = OWNER.sign("issuer", world.issuer(issuer=OTHER.key)).whole
    self_made = ISSUER.sign("issuer", world.issuer()).whole
    for_another = OWNER.sign("issuer", world.issuer(owner=OTHER.key)).whole
    short = OWNER.sign("issuer", world.issuer(expires_ms=NOW_MS + 1)).whole
    later = OWNER.sign("issuer", world.issuer(not_before_ms=NOW_MS + 2 * SKEW_MS)).whole
    disguised = OWNER.sign("mandate", world.mandate()).whole
    for words, about, code, mandate, now_ms in (
        ("issuer-of-another-key", "The issuer is another key.", "bad_mandate", _by_issuer(issuer=another), NOW_MS),
        ("issuer-self-made", "The issuer signed itself.", "bad_signature", _by_issuer(issuer=self_made), NOW_MS),
        ("issuer-for-another", "It names another owner.", "bad_mandate", _by_issuer(issuer=for_another), NOW_MS),
        ("issuer-over", "The issuer's time is over.", "expired", _by_issuer(issuer=short), NOW_MS + SKEW_MS + 2),
        ("issuer-to-come", "The issuer's time is to come.", "expired", _by_issuer(issuer=later), NOW_MS),
        ("issuer-disguised", "A mandate instead of an issuer.", "bad_signature", _by_issuer(issuer=disguised), NOW_MS),
        ("issuer-garbled", "Bytes that are no envelope.", "bad_encoding", _by_issuer(issuer=b"issuer"), NOW_MS),
        ("issued-too-late", "The mandate's time is over.", "expired", _by_issuer(issuer=issuer), ends + 1),
    ):
        yield refused(words, about, _asked(mandate, now_ms=now_ms), code)
    about = "The owner signs with an issuer in it who did not."
    own = OWNER.sign("mandate", world.mandate(issuer=issuer))
    yield refused("by-owner-with-issuer", about, _asked(own), "bad_mandate")
    about = "The issuer's last millisecond, as clocks may differ."
    given = _asked(_by_issuer(issuer=short), now_ms=NOW_MS + 1 + SKEW_MS)
    yield Case("issuer-just-over", about, given, {"owner": OWNER.key, "epoch": 3})


def _asked(mandate: Envelope, **changes: Any) -> Fields:
    given = {"mandate": mandate.whole, "node": NODE.key, "role": "executor", "now_ms": NOW_MS}
    return {**given, **changes}


def profile() -> Iterator[Case]:
    def asked(record: str, profile: Envelope, now_ms: int = NOW_MS, node: bytes = NODE.key) -> Fields:
        return {"profile": profile.whole, "record": record, "node": node, "now_ms": now_ms}

    able, linked = "capability-profile", "connectivity-profile"
    good = NODE.sign(able, world.capability())
    ends = NOW_MS + 600_000 + SKEW_MS
    longest = NODE.sign(able, world.capability(expires_ms=NOW_MS + 1_800_000))
    for words, about, given in (
        ("now", "What a node says of itself now.", asked(able, good)),
        ("early", "As early as clocks may differ.", asked(able, good, NOW_MS - SKEW_MS)),
        ("late", "As late as clocks may differ.", asked(able, good, ends)),
        ("longest", "Valid for half an hour.", asked(able, longest)),
    ):
        yield Case(words, about, given, {})
    about_other = NODE.sign(able, world.capability(node=OTHER.key))
    too_long = NODE.sign(able, world.capability(expires_ms=NOW_MS + 1_800_001))
    for words, about, code, given in (
        ("too-early", "A millisecond earlier.", "expired", asked(able, good, NOW_MS - SKEW_MS - 1)),
        ("too-late", "A millisecond later.", "expired", asked(able, good, ends + 1)),
        ("too-long", "Valid for more than half an hour.", "bad_record", asked(able, too_long)),
        ("about-another", "A node about another one.", "bad_signature", asked(able, about_other)),
        ("asked-for-another", "Another node's profile.", "bad_signature", asked(able, good, node=OTHER.key)),
        ("as-the-other-kind", "One kind of profile as the other.", "bad_signature", asked(linked, good)),
    ):
        yield refused(words, about, given, code)
    for words, about, interactive, changes in _links():
        fields = {key: value for key, value in world.connectivity(**changes).items() if value is not None}
        given = asked(linked, NODE.sign(linked, fields))
        yield Case(f"link-{words}", about, given, {"interactive": interactive})


def _links() -> Iterator[tuple[str, str, bool, Fields]]:
    edge = {"rtt_p95_us": 150_000, "jitter_us": 50_000, "loss_ppm": 20_000}
    yield "good", "A person can wait for it.", True, {}
    yield "at-the-edge", "All three figures at their bounds.", True, edge
    for field, value in edge.items():
        words = field.partition("_")[0]
        yield f"{words}-beyond", f"{field} one beyond its bound.", False, {**edge, field: value + 1}
        yield f"{words}-unmeasured", f"{field} was not measured.", False, {field: None}
    yield "median-does-not-count", "Only the 95th percentile counts.", True, {"rtt_p50_us": 10**6}


def order() -> Iterator[Case]:
    other_bundle = name("another bundle")
    terms: Fields = {
        "node": NODE.key, "worker_key": HASH,
        "prices": [world.price(), world.price(entry="score"), world.price(bundle=other_bundle, entry="call")],
        "bundles": [[HASH, "generate"], [HASH, "score"], [other_bundle, "call"]],
    }  # fmt: skip
    generous = {**terms, "held_ppm_max": 300_000, "hold_ms_max": DAY_MS, "arbiters": [OWNER.key, OTHER.key]}

    def asked(terms: Fields = terms, now_ms: int = NOW_MS, **changes: Any) -> Fields:
        return {"order": world.order(**changes), "terms": terms, "now_ms": now_ms}

    held = {"held_ppm": 300_000, "hold_ms": DAY_MS}
    for words, about, given in (
        ("taken", "An order on the node's terms.", asked()),
        ("early", "As early as clocks may differ.", asked(now_ms=NOW_MS - SKEW_MS)),
        ("late", "As late as clocks may differ.", asked(now_ms=NOW_MS + SKEW_MS)),
        ("another-entry", "Another entry on offer.", asked(entry="score")),
        ("holding", "It holds back as much as the node allows.", asked(generous, **held)),
        ("committee", "All candidates are agreed to.", asked(generous, candidates=[OTHER.key])),
    ):
        yield Case(words, about, given, {})
    for words, about, code, given in (
        ("other-executor", "For another executor.", "wrong_executor", asked(executor=OTHER.key)),
        ("too-early", "A millisecond earlier.", "expired", asked(now_ms=NOW_MS - SKEW_MS - 1)),
        ("too-late", "A millisecond later.", "expired", asked(now_ms=NOW_MS + SKEW_MS + 1)),
        ("unknown-bundle", "A bundle that is not served.", "unknown_bundle", asked(bundle=name("no bundle"))),
        ("unknown-entry", "An entry that the bundle has not on offer.", "unknown_entry", asked(entry="call")),
        ("entry-of-another", "An entry of another bundle.", "unknown_entry", asked(bundle=other_bundle)),
        ("old-prices", "Another price.", "stale_prices", asked(price=world.price(call_ucr=9))),
        (
            "price-of-another-entry",
            "The price of another entry.",
            "stale_prices",
            asked(price=world.price(entry="score")),
        ),
        ("old-worker", "Sealed to another worker.", "stale_worker_key", asked(worker_key=name("old worker"))),
        ("held", "It holds back, and the node allows nothing.", "bad_terms", asked(held_ppm=1)),
        ("held-for-a-time", "It holds nothing for a time.", "bad_terms", asked(hold_ms=1)),
        ("held-too-much", "It holds back too much.", "bad_terms", asked(generous, **{**held, "held_ppm": 300_001})),
        ("held-too-long", "It holds back too long.", "bad_terms", asked(generous, **{**held, "hold_ms": DAY_MS + 1})),
        ("no-arbiters", "Candidates, and the node agrees to none.", "bad_terms", asked(candidates=[OTHER.key])),
        (
            "strange-candidate",
            "One candidate of two is not agreed to.",
            "bad_terms",
            asked(generous, candidates=[OTHER.key, CLIENT.key]),
        ),
        (
            "first-of-two",
            "For another executor, and too late: the first check speaks.",
            "wrong_executor",
            asked(executor=OTHER.key, now_ms=NOW_MS + DAY_MS),
        ),
    ):
        yield refused(words, about, given, code)

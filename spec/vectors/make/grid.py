"""Kind `grid`: orders to shed load, rosters of a feeder, and leases between its members."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cose import Envelope, Signer
from .notation import Case, refused
from .world import CLIENT, DAY_MS, GRID, HOUR_MS, NODE, NOW_MS, OTHER, SKEW_MS, Fields, name

_ENDS_MS = NOW_MS + HOUR_MS
_ROSTER = GRID.sign("feeder-roster", world.roster())
"""Of 9000 W, NODE has 4000 and OTHER 5000, for a day."""


def grid() -> Iterator[Case]:
    yield from _orders()
    yield from _zones()
    yield from _rosters()
    yield from _leases()
    yield from _allowances()
    yield from _proofs()


def _orders() -> Iterator[Case]:
    def asked(now_ms: int, *keys: bytes, **changes: Any) -> Fields:
        order = GRID.sign("shed-order", world.shed_order(**changes))
        return {"order": order.whole, "grid_keys": list(keys) or [GRID.key], "now_ms": now_ms}

    kept = NOW_MS - 60_000 + 8 * DAY_MS + SKEW_MS
    for words, about, given in (
        ("now", "By a key that the owner trusts.", asked(NOW_MS)),
        ("of-two-keys", "By one of two.", asked(NOW_MS, OTHER.key, GRID.key)),
        ("over", "It is over, and kept on: it may have replaced others.", asked(NOW_MS + DAY_MS)),
        ("last", "The last millisecond.", asked(kept)),
        ("issued-ahead", "Issued as far ahead as clocks may differ.", asked(NOW_MS - 60_000 - SKEW_MS)),
    ):
        yield Case(f"order-{words}", about, given, {"kept_until_ms": kept})
    for words, about, code, given in (
        ("by-another", "By a key that is not trusted.", "bad_signature", asked(NOW_MS, OTHER.key)),
        ("forgotten", "A millisecond after the last.", "expired", asked(kept + 1)),
        ("of-the-future", "Issued in the future.", "expired", asked(NOW_MS - 60_000 - SKEW_MS - 1)),
    ):
        yield refused(f"order-{words}", about, given, code)


def _order(signer: Signer = GRID, **changes: Any) -> bytes:
    return signer.sign("shed-order", world.shed_order(**changes)).whole


def _zones() -> Iterator[Case]:
    half = NOW_MS + HOUR_MS // 2

    def capped(words: str, about: str, cap_w: int | None, now_ms: int, *orders: bytes, zone: str = "depot") -> Case:
        given = {"orders": list(orders), "zone": zone, "now_ms": now_ms}
        return Case(f"zone-{words}", about, given, {"cap_w": cap_w})

    one = _order()
    yield capped("capped", "In the middle of its time.", 5_000, half, one)
    yield capped("free", "No order.", None, half)
    yield capped("another", "An order for another zone.", None, half, one, zone="roof")
    yield capped("as-early-as-may-be", "Some clock may be right.", 5_000, NOW_MS - SKEW_MS, one)
    yield capped("too-early", "No clock can be right.", None, NOW_MS - SKEW_MS - 1, one)
    yield capped("as-late-as-may-be", "Some clock may be right.", 5_000, _ENDS_MS + SKEW_MS - 1, one)
    yield capped("too-late", "No clock can be right.", None, _ENDS_MS + SKEW_MS, one)
    yield capped("to-nothing", "Nothing may be drawn.", 0, half, _order(cap_w=0))
    urgent = _order(event="fault", priority=1, cap_w=8_000)
    yield capped("urgent-first", "The most urgent decides alone.", 8_000, half, one, urgent)
    equal = _order(event="evening", cap_w=4_000)
    yield capped("strictest-of-equals", "Of equals the lowest cap.", 4_000, half, one, equal)
    following: Fields = {"event": "night", "start_ms": _ENDS_MS, "end_ms": _ENDS_MS + HOUR_MS}
    lower, higher = _order(**following, cap_w=3_000), _order(**following, cap_w=8_000)
    before = _ENDS_MS - SKEW_MS
    yield capped("before-a-lower-one", "The next cannot hold yet.", 5_000, before - 1, one, lower)
    yield capped("into-a-lower-one", "The next may hold already.", 3_000, before, one, lower)
    yield capped("out-of-a-lower-one", "The former may still hold.", 5_000, _ENDS_MS + SKEW_MS - 1, one, higher)
    yield capped("after-a-lower-one", "The former can hold no more.", 8_000, _ENDS_MS + SKEW_MS, one, higher)
    urgent_later = _order(event="fault", priority=1, cap_w=8_000, start_ms=half, end_ms=_ENDS_MS)
    about = "The more urgent one allows more, but may not hold yet."
    yield capped("urgent-perhaps", about, 5_000, half, one, urgent_later)
    second = _order(sequence=2, cap_w=7_000)
    yield capped("replaced", "A higher sequence replaces.", 7_000, half, one, second)
    yield capped("replaced-in-any-order", "However they arrive.", 7_000, half, second, one, second)
    yield capped("cancelled", "Nothing is asked any more.", None, half, one, _order(sequence=2, cancelled=True))
    again = _order(sequence=3, cap_w=6_000)
    yield capped("asked-again", "After a cancellation.", 6_000, half, _order(sequence=2, cancelled=True), again, one)
    about = "Another grid key with the same name for the cause."
    yield capped("beside-another-key", about, 2_000, half, second, _order(OTHER, cap_w=2_000))
    about = "Two of one sequence, which no honest key signs: both stand."
    yield capped("both-of-one-sequence", about, 4_500, half, one, _order(cap_w=4_500))
    about = "A replacement for another zone."
    yield capped("replaced-elsewhere", about, 5_000, half, one, _order(zone="roof", sequence=2, cap_w=1))
    moved = _order(sequence=2, start_ms=_ENDS_MS, end_ms=_ENDS_MS + HOUR_MS)
    yield capped("put-off", "The replacement begins later.", None, half, one, moved)


def _rosters() -> Iterator[Case]:
    def asked(now_ms: int = NOW_MS, grid_key: bytes = GRID.key, feeder: str = "t-17") -> Fields:
        return {"roster": _ROSTER.whole, "grid_key": grid_key, "feeder": feeder, "now_ms": now_ms}

    over = NOW_MS + DAY_MS + SKEW_MS
    yield Case("roster-now", "The feeder's roster.", asked(), {})
    yield Case("roster-to-come", "The next one, before it begins.", asked(NOW_MS - DAY_MS), {})
    yield Case("roster-last", "The last millisecond.", asked(over - 1), {})
    yield refused("roster-over", "It is over on every clock.", asked(over), "expired")
    yield refused("roster-by-another", "By another key.", asked(grid_key=OTHER.key), "bad_signature")
    yield refused("roster-of-another-feeder", "Of another feeder.", asked(feeder="t-18"), "unknown_roster")


def _lease(signer: Signer | None = None, **changes: Any) -> Envelope:
    fields = world.lease(**{"roster": _ROSTER.id, **changes})
    lenders = {who.key: who for who in (NODE, OTHER, CLIENT)}
    return (signer or lenders[fields["lender"]]).sign("feeder-lease", fields)


def _leases() -> Iterator[Case]:
    def asked(lease: Envelope, *known: Envelope, now_ms: int = NOW_MS) -> Fields:
        listed = [other.whole for other in known]
        return {"lease": lease.whole, "roster": _ROSTER.whole, "known": listed, "now_ms": now_ms}

    one = _lease()
    second: Fields = {"nonce": b"another nonce it"}
    apart = _lease(lent_w=4_000, not_before_ms=_ENDS_MS, expires_ms=_ENDS_MS + HOUR_MS)
    late = NOW_MS + DAY_MS - HOUR_MS
    for words, about, given in (
        ("alone", "1500 of 4000 W.", asked(one)),
        ("all", "All of the share.", asked(_lease(lent_w=4_000))),
        ("beside-another", "1500 and 2500 W.", asked(one, _lease(**second, lent_w=2_500))),
        ("after-another", "All of the share, twice, at different times.", asked(_lease(lent_w=4_000), apart)),
        ("known-already", "The same lease is one lease.", asked(_lease(lent_w=4_000), _lease(lent_w=4_000))),
        (
            "others-lend",
            "What others lend does not count.",
            asked(one, _lease(lender=OTHER.key, borrower=NODE.key, lent_w=5_000)),
        ),
        ("to-come", "Long before it begins.", asked(one, now_ms=NOW_MS - DAY_MS)),
        ("last", "The last millisecond.", asked(one, now_ms=_ENDS_MS + SKEW_MS - 1)),
        ("until-the-end", "As long as its roster.", asked(_lease(not_before_ms=late, expires_ms=late + HOUR_MS))),
        (
            "known-of-another-roster",
            "Leases of another roster do not count.",
            asked(one, _lease(roster=name("x"), lent_w=4_000)),
        ),
    ):
        yield Case(f"lease-{words}", about, given, {})
    twelve = [_lease(lent_w=1, nonce=bytes([number]) * 16) for number in range(13)]
    for words, about, code, given in (
        ("by-the-borrower", "Signed by the borrower.", "bad_signature", asked(_lease(OTHER))),
        ("of-another-roster", "Of another roster.", "unknown_roster", asked(_lease(roster=name("a roster")))),
        ("to-a-stranger", "The borrower is no member.", "bad_record", asked(_lease(borrower=CLIENT.key))),
        ("by-a-stranger", "The lender is no member.", "bad_record", asked(_lease(lender=CLIENT.key))),
        (
            "before-its-roster",
            "It begins before its roster.",
            "bad_record",
            asked(_lease(not_before_ms=NOW_MS - 1, expires_ms=NOW_MS + 1)),
        ),
        (
            "beyond-its-roster",
            "It ends after its roster.",
            "bad_record",
            asked(_lease(not_before_ms=late + 1, expires_ms=late + HOUR_MS + 1)),
        ),
        ("over", "It is over on every clock.", "expired", asked(one, now_ms=_ENDS_MS + SKEW_MS)),
        ("too-much", "More than the share.", "over_lent", asked(_lease(lent_w=4_001))),
        ("too-much-with-another", "1500 and 2501 W.", "over_lent", asked(one, _lease(**second, lent_w=2_501))),
        (
            "too-much-for-a-moment",
            "They meet for a millisecond.",
            "over_lent",
            asked(_lease(lent_w=4_000), _lease(lent_w=1, not_before_ms=_ENDS_MS - 1, expires_ms=_ENDS_MS + 1)),
        ),
        (
            "borrowed-on",
            "What was borrowed is not lent on.",
            "over_lent",
            asked(_lease(lent_w=4_500), _lease(lender=OTHER.key, borrower=NODE.key, lent_w=1_000)),
        ),
        ("thirteenth", "Twelve of one lender at a time.", "over_lent", asked(*twelve)),
    ):
        yield refused(f"lease-{words}", about, given, code)
    yield Case("lease-twelfth", "Twelve of one lender at a time.", asked(*twelve[1:]), {})


def _allowances() -> Iterator[Case]:
    noon, later = NOW_MS + 2 * HOUR_MS, NOW_MS + 3 * HOUR_MS
    lent = _lease(not_before_ms=noon, expires_ms=later)
    lied = _lease(not_before_ms=noon, expires_ms=later, lent_w=3_000)
    middle = noon + HOUR_MS // 2
    after = GRID.sign("feeder-roster", world.roster(
        epoch=4, members=world.members((NODE, 3_000), (OTHER, 6_000)),
        not_before_ms=NOW_MS + DAY_MS, expires_ms=NOW_MS + 2 * DAY_MS,
    ))  # fmt: skip
    change = NOW_MS + DAY_MS

    def may(
        words: str,
        about: str,
        watts: int,
        member: Signer,
        now_ms: int,
        *leases: Envelope,
        rosters: tuple[Envelope, ...] = (_ROSTER,),
    ) -> Case:
        given = {
            "rosters": [roster.whole for roster in rosters], "leases": [lease.whole for lease in leases],
            "member": member.key, "now_ms": now_ms,
        }  # fmt: skip
        return Case(f"allowance-{words}", about, given, {"allowance_w": watts})

    yield may("guaranteed", "Its share.", 4_000, NODE, middle)
    yield may("no-member", "Who is no member may draw nothing.", 0, CLIENT, middle)
    yield may("no-roster", "Without a roster, nothing.", 0, NODE, middle, rosters=())
    yield may("roster-surely-begun", "It has begun on every clock.", 4_000, NODE, NOW_MS + SKEW_MS)
    yield may("roster-perhaps-begun", "It may not have begun.", 0, NODE, NOW_MS + SKEW_MS - 1)
    yield may("roster-not-over", "It cannot be over.", 4_000, NODE, change - SKEW_MS - 1)
    yield may("roster-perhaps-over", "It may be over.", 0, NODE, change - SKEW_MS)
    yield may("lent", "4000 - 1500.", 2_500, NODE, middle, lent)
    yield may("lent-soon", "The lease may hold already.", 2_500, NODE, noon - SKEW_MS, lent)
    yield may("not-lent-yet", "The lease cannot hold yet.", 4_000, NODE, noon - SKEW_MS - 1, lent)
    yield may("still-lent", "The lease may still hold.", 2_500, NODE, later + SKEW_MS - 1, lent)
    yield may("lent-no-more", "The lease can hold no more.", 4_000, NODE, later + SKEW_MS, lent)
    yield may("borrowed", "5000 + 1500.", 6_500, OTHER, middle, lent)
    yield may("surely-borrowed", "The lease holds on every clock.", 6_500, OTHER, noon + SKEW_MS, lent)
    yield may("perhaps-borrowed", "The lease may not hold yet.", 5_000, OTHER, noon + SKEW_MS - 1, lent)
    yield may("borrowed-to-the-end", "The lease cannot be over.", 6_500, OTHER, later - SKEW_MS - 1, lent)
    yield may("perhaps-over", "The lease may be over.", 5_000, OTHER, later - SKEW_MS, lent)
    yield may("known-twice", "The same lease twice is one.", 6_500, OTHER, middle, lent, lent)
    yield may("from-a-liar", "Who lent too much lent nothing.", 5_000, OTHER, middle, lent, lied)
    yield may("liar", "The liar is bound by all that it signed.", 0, NODE, middle, lent, lied)
    both = _lease(lender=OTHER.key, borrower=NODE.key, lent_w=500, not_before_ms=noon, expires_ms=later)
    yield may("lent-and-borrowed", "4000 - 1500 + 500.", 3_000, NODE, middle, lent, both)
    strange = _lease(OTHER, not_before_ms=noon, expires_ms=later)
    yield may("not-the-lenders-word", "A lease that its lender did not sign.", 5_000, OTHER, middle, strange)
    elsewhere = _lease(roster=name("a roster"), not_before_ms=noon, expires_ms=later)
    yield may("another-roster", "A lease of another roster.", 4_000, NODE, middle, elsewhere)
    pair = (_ROSTER, after)
    yield may("roster-follows", "One ends as the next begins: the smaller share.", 3_000, NODE, change, rosters=pair)
    yield may("roster-follows-for-other", "The share grows once the first is over.", 5_000, OTHER, change, rosters=pair)
    yield may("roster-replaced", "The first is over on every clock.", 6_000, OTHER, change + SKEW_MS, rosters=pair)
    overlap = GRID.sign("feeder-roster", world.roster(epoch=4, members=world.members((NODE, 1_000), (OTHER, 1_000))))
    about = "Two rosters at one time, which no honest key signs: the strictest."
    yield may("rosters-overlap", about, 1_000, NODE, middle, rosters=(_ROSTER, overlap))


def _proofs() -> Iterator[Case]:
    def proven(words: str, about: str, leases: list[Envelope], proof: list[Envelope], lender: Signer = NODE) -> Case:
        given = {"leases": [lease.whole for lease in leases], "roster": _ROSTER.whole, "lender": lender.key}
        return Case(f"proof-{words}", about, given, {"proof": [lease.id for lease in proof]})

    large, middle, small = (_lease(lent_w=watts) for watts in (3_000, 1_500, 500))
    yield proven("none", "4000 of 4000 W.", [large, small, _lease(lent_w=500, nonce=b"n" * 16)], [])
    yield proven("fewest", "The two largest are enough.", [small, large, middle], [large, middle])
    yield proven("one", "One alone is too much.", [_lease(lent_w=4_001), small], [_lease(lent_w=4_001)])
    yield proven("of-another", "Of another lender they prove nothing.", [large, middle], [], OTHER)
    alike = sorted((_lease(lent_w=2_001, nonce=bytes([n]) * 16) for n in range(3)), key=lambda lease: lease.id)
    yield proven("ties", "Of equals those whose ids come first.", alike[::-1], alike[:2])
    soon = _lease(lent_w=3_500, not_before_ms=NOW_MS + 1_000)
    late = _lease(lent_w=3_900, not_before_ms=NOW_MS + 2_000)
    first = _lease(lent_w=1_000)
    yield proven("first-time", "At the first time at which they are too much.", [late, soon, first], [soon, first])
    apart = _lease(lent_w=4_000, not_before_ms=_ENDS_MS, expires_ms=_ENDS_MS + HOUR_MS)
    yield proven("never-together", "They never meet.", [large, apart], [])
    many = sorted((_lease(lent_w=1, nonce=bytes([n]) * 16) for n in range(14)), key=lambda lease: lease.id)
    yield proven("too-many", "Thirteen are too many whatever they lend.", many, many[:13])

"""Kinds `verdict` and `opening`: what evidence supports, and what was asked and answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import functions, resumptions, texts, world
from .cbor import encode
from .judging import tensor
from .notation import Case, refused
from .texts import ACCEPTED, INCONCLUSIVE, REFUTED, UNDECIDED, UPHELD, text
from .work import BUNDLE, NODES, OWNERS, PROMPT, Part, Told, Work, checker, executor, opening_of, told, value
from .world import CLIENT, DAY_MS, NOW_MS, OTHER, Fields, name


def verdict() -> Iterator[Case]:
    for tell in (
        texts.checked, texts.members, texts.audited, texts.ends, texts.beside, resumptions.resumed, functions.quorums,
        functions.audits, functions.committees, _owners, _sorted_out,
    ):  # fmt: skip
        for case in tell():
            yield Case(case.words, case.about, case.work.given(), {"fields": case.fields})
    yield from _shuffled()
    yield from _left_out()
    yield from _not_judged()


def _owners() -> Iterator[Told]:
    """Acceptances name mandates: quorums count owners."""

    def owned(policy: str, *owners: int) -> tuple[Work, list[Any]]:
        """A text by node 1, its checks by the next ones, all accepted under mandates of these owners."""
        work, part, window = text(policy)
        parts = [part, *(work.check(number, window, 3, 3) for number in range(2, len(owners) + 1))]
        for accepted, owner in zip(parts, owners, strict=True):
            if owner:
                work.accept(accepted, owner)
            else:
                work.disown(accepted)
        return work, parts

    def findings(parts: list[Any], owners: tuple[int, ...], standing: str = UPHELD) -> list[Fields]:
        due = standing == UPHELD
        keys = [OWNERS[owner].key if owner else None for owner in owners]
        return [
            make(part, standing, amount if due else 0, 0 if due else amount, owner=key)
            for part, key, make, amount in zip(parts, keys, [executor, checker, checker], (27, 12, 12), strict=False)
        ]

    def nobodys(words: str, about: str, work: Work, parts: list[Any], owners: tuple[int, ...]) -> Told:
        """A member without owner counts for nobody: nothing is decided."""
        return told(words, about, work, parts[0], INCONCLUSIVE, *findings(parts, owners, UNDECIDED))

    for words, about, policy, owners, outcome in (
        ("owners", "Two owners agree.", "quorum:2/2", (1, 2), ACCEPTED),
        ("two-of-one-owner", "Two checkers of one owner are one.", "quorum:3/3", (1, 2, 2), INCONCLUSIVE),
        ("checker-of-the-executors-owner", "The executor's owner does not check.", "quorum:2/2", (1, 1), INCONCLUSIVE),
        ("three-owners", "Three owners agree.", "quorum:3/3", (1, 2, 3), ACCEPTED),
    ):
        work, parts = owned(policy, *owners)
        standing = UPHELD if outcome == ACCEPTED else UNDECIDED
        yield told(words, about, work, parts[0], outcome, *findings(parts, owners, standing))
    over = {"not_before_ms": NOW_MS - 2 * DAY_MS, "expires_ms": NOW_MS - DAY_MS}
    for words, about, changes in (
        ("mandate-for-another-role", "The mandate is not for checkers.", {"roles": ["executor"]}),
        ("mandate-over", "The mandate was over by then.", over),
        ("mandate-of-another-node", "The mandate is another node's.", {"node": OTHER.key}),
        ("mandate-of-a-stranger", "The mandate names an owner who did not sign it.", {"issuer": b"nothing"}),
    ):
        work, parts = owned("quorum:2/2", 1, 0)
        work.accept(parts[1], 2, **changes)
        yield nobodys(words, about, work, parts, (1, 0))
    work, parts = owned("quorum:2/2", 1, 2)
    work.accept(parts[1], 3)
    yield nobodys("two-acceptances", "Two acceptances name two owners.", work, parts, (1, 0))
    work, parts = owned("quorum:2/2", 1, 2)
    del work.records[-2]
    yield nobodys("mandate-missing", "The mandate that it names is not there.", work, parts, (1, 0))
    work, parts = owned("quorum:2/2", 1, 0)
    work.records.append(OWNERS[2].sign("mandate", world.mandate(node=NODES[2].key, owner=OWNERS[2].key)))
    yield nobodys("mandate-not-named", "A mandate that the node did not name.", work, parts, (1, 0))
    work, parts = owned("quorum:2/2", 1, 0)
    yield nobodys("mandate-of-nobody", "The checker named no mandate.", work, parts, (1, 0))
    work, parts = owned("quorum:2/2", 0, 2)
    about = "The executor named no mandate: nor does its own voice count."
    yield nobodys("mandate-of-no-executor", about, work, parts, (0, 2))
    work, part, window = text("quorum:2/3", shift=500)
    one, two = work.check(2, window, 3, 3), work.check(3, window, 3, 3)
    work.disown(two)
    work.open(part, one, two)
    about = "Two object, and one of them named no mandate: that is one owner."
    yield nobodys("mandate-of-no-objector", about, work, [part, one, two], (0, 0, 0))


def _sorted_out() -> Iterator[Told]:
    """Records that belong to other work, or are not by whom they should be."""
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3)
    other = Work("quorum:2/3")
    stray = other.text(3)
    other.window(stray, 0, 3, "final", 27)
    work.records += other.records[1:]
    foreign = OTHER.sign_payload("job-order", part.order.payload)
    elsewhere = work.order(4, range(5), bundle=name("another bundle"))
    work.records += [foreign, NODES[4].sign("receipt", world.receipt(order=elsewhere.order.id))]
    by_others = [
        OTHER.sign("receipt", world.receipt(order=part.order.id)),
        OTHER.sign("attestation", world.attestation(order=check.order.id, subject=window.id)),
        CLIENT.sign("voucher", world.voucher()),
        OTHER.sign("verdict", world.verdict()),
    ]
    work.records += by_others
    findings = [executor(part, UPHELD, 27), checker(check, UPHELD, 12)]
    about = "Orders of another client, commitment and bundle, and records by others, do not count."
    yield told("other-work-beside", about, work, part, ACCEPTED, *findings)
    for words, about, changes in (
        ("chain-with-a-gap", "The second receipt's sequence skips one.", {"sequence": 2}),
        ("chain-with-another-beginning", "It begins at another token.", {"first_token": 2}),
        ("chain-that-falls", "Its amount is lower.", {"amount_ucr": 11}),
        ("chain-for-more", "A micro-credit more than the order's price gives.", {"amount_ucr": 36}),
        ("chain-for-less", "A micro-credit less.", {"amount_ucr": 34}),
        ("chain-of-another", "It names another receipt before it.", {"previous": name("another receipt")}),
    ):
        work = Work("none")
        part = work.text(1)
        first = work.window(part, 0, 3, "open", 12)
        work.window(part, 3, 2, "final", 35, **changes)
        own = executor(part, UPHELD, 12, due_for=[first], evidence=[first])
        yield told(words, about, work, part, INCONCLUSIVE, own)
    for words, about, end, amounts, call_ucr, planned in (
        ("chain-after-its-end", "It follows a receipt that ends the work.", "final", (27, 35), 10, 80),
        (
            "chain-beyond-the-amount",
            "It asks for a micro-credit more than the order allows.",
            "open",
            (30, 501),
            476,
            80,
        ),
        ("chain-beyond-the-tokens", "It is for a token more than the order plans.", "open", (23, 35), 10, 4),
    ):
        work = Work("none")
        part = work.text(1, planned_tokens=planned, price=world.price(call_ucr=call_ucr))
        first = work.window(part, 0, 3, end, amounts[0])
        work.window(part, 3, 2, "final", amounts[1])
        own = executor(part, UPHELD, amounts[0], due_for=[first], evidence=[first])
        yield told(words, about, work, part, ACCEPTED if end == "final" else INCONCLUSIVE, own)
    work = Work("none")
    part = work.text(1)
    first = work.window(part, 0, 0, "open", 0)
    work.window(part, 0, 5, "final", 35)
    own = executor(part, UPHELD, 0, due_for=[first], evidence=[first])
    yield told("chain-after-an-empty-window", "It follows one without tokens.", work, part, INCONCLUSIVE, own)
    work = Work("none")
    part = work.text(1, planned_tokens=5, price=world.price(call_ucr=475))
    work.window(part, 0, 3, "open", 300)
    work.window(part, 3, 2, "final", 500)
    about = "All tokens that were planned, for all that the order allows."
    yield told("chain-to-the-bounds", about, work, part, ACCEPTED, executor(part, UPHELD, 500))
    work, part, window = text("none")
    again = work.text(2)
    lonely = work.window(again, 0, 3, "final", 27, sequence=1, previous=name("another receipt"))
    findings = [executor(part, UPHELD, 27), executor(again, "silent", evidence=[])]
    assert lonely in work.records
    yield told("chain-without-its-first", "The first receipt is missing.", work, part, ACCEPTED, *findings)


def _shuffled() -> Iterator[Case]:
    work, part, window = text("quorum:2/3")
    good, bad = work.check(2, window, 3, 3), work.check(3, window, 3, 3, shift=500)
    work.accept(good, 2)
    own = checker(good, UPHELD, 12, owner=OWNERS[2].key)
    findings = [executor(part, UPHELD, 27), own, checker(bad, REFUTED, 0, 12)]
    expect = {"fields": told("", "", work, part, ACCEPTED, *findings).fields}
    records = [record.whole for record in work.records]
    for words, about, listed in (
        ("in-order", "The evidence as it came.", records),
        ("reversed", "The same, the other way round.", records[::-1]),
        ("doubled", "The same, some of it twice.", records[::2] + records + records[1::3]),
    ):
        yield Case(words, about, work.given(records=listed), expect)


def _not_judged() -> Iterator[Case]:
    work, part, window = text("quorum:2/2")
    work.check(2, window, 3, 3)
    records = [record.whole for record in work.records]
    no_manifest = [envelope for envelope in records if envelope != BUNDLE.whole]
    stranger = OTHER.sign_payload("manifest", BUNDLE.payload).whole
    only_checks = [envelope for envelope in records if envelope != part.order.whole]
    for words, about, code, changes in (
        ("manifest-missing", "The tolerance is not known.", "unknown_bundle", {"records": no_manifest}),
        ("manifest-of-another", "Another envelope has another id.", "unknown_bundle", {"records": [*no_manifest, stranger]}),
        ("no-order", "Nothing was ordered.", "bad_record", {"records": [BUNDLE.whole]}),
        ("no-work", "Only checks were ordered.", "bad_record", {"records": only_checks}),
        ("another-client", "No order of this client.", "bad_record", {"client": OTHER.key}),
        ("another-nonce", "No order under this commitment.", "bad_record", {"nonce": name("another nonce")}),
        ("another-policy", "No order under this policy.", "bad_record", {"policy": "quorum:2/3"}),
        ("no-policy", "A policy that cannot be held.", "unsatisfiable_assurance", {"policy": "quorum:1/2"}),
    ):  # fmt: skip
        yield refused(words, about, work.given(**changes), code)
    work = Work("none")
    for _ in range(4 * 16 + 1):
        work.disown(work.call(1, None))
    yield refused("function-too-many-results", "A call more than a verdict compares.", work.given(), "too_large")


def _left_out() -> Iterator[Case]:
    """What shows nothing, and refuses nothing."""
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3)
    findings = [executor(part, UPHELD, 27), checker(check, UPHELD, 12)]
    expect = {"fields": told("", "", work, part, ACCEPTED, *findings).fields}
    fits = opening_of(part)
    misfit = opening_of(part, salt=name("salt"))
    for words, about, openings in (
        ("opening-that-does-not-fit", "What does not fit shows nothing.", [misfit]),
        ("opening-with-bad-pieces", "Pieces that are none.", [opening_of(part, pieces=[b"\xff"])]),
        ("opening-that-is-none", "Its last byte is missing: it is no opening.", [fits[:-1]]),
        ("opening-for-no-order", "It names no order of this work.", [opening_of(part, order=name("an order"))]),
        ("opening-and-a-misfit", "One of two fits.", [misfit, fits]),
    ):
        yield Case(words, about, work.given(openings=openings), expect)
    only_found = [executor(part, UPHELD, 27), checker(check, UPHELD, evidence=[check.attestation])]
    expect = {"fields": told("", "", work, part, ACCEPTED, *only_found).fields}
    records = [record.whole for record in work.records]
    assert records[-1] == check.receipts[0].whole
    for words, about, last in (
        ("record-changed", "A record whose signature does not hold is no record.", [records[-1][:-1] + b"\0"]),
        ("record-garbled", "Nor are bytes that are no envelope.", [b"receipt"]),
    ):
        yield Case(words, about, work.given(records=[*records[:-1], *last]), expect)


def opening() -> Iterator[Case]:
    """One opening, held against its order and the receipts under it."""
    _, part, _ = text("none")
    two_windows = Work("none")
    two = two_windows.text(1)
    two_windows.window(two, 0, 3, "open", 12)
    two_windows.window(two, 3, 2, "final", 35)
    short = two_windows.text(2)
    for words, about, opened, pieces in (
        ("one-window", "All pieces of one window.", part, 3),
        ("two-windows", "All pieces of two windows.", two, 5),
        ("no-receipt", "Nobody signed for any piece.", short, 0),
    ):
        shown = [_tokens(PROMPT + n, value(n)) for n in range(pieces)]
        expect = {"work": {"sequences": [list(range(PROMPT))], "claimed": 0, "arrays": []}, "pieces": shown}
        yield Case(words, about, _opened(opened, opening_of(opened)), expect)
    arrays = Work("none").call(1, tensor([1, 2], [3, 4]), arrays=[b"\x00\x01", b"\x02\x03"], calls=2)
    expect = {
        "work": {"sequences": [], "claimed": 0, "arrays": [b"\x00\x01", b"\x02\x03"]},
        "pieces": [tensor([1, 2], [3, 4])],
    }
    yield Case("of-arrays", "The one piece of a function of arrays.", _opened(arrays, opening_of(arrays)), expect)
    more = opening_of(part, pieces=[*part.pieces, part.pieces[0]])
    shown = [_tokens(PROMPT + n, value(n)) for n in range(3)]
    expect = {"work": {"sequences": [list(range(PROMPT))], "claimed": 0, "arrays": []}, "pieces": shown}
    yield Case("beyond-the-receipt", "A piece for which nobody signed is left out.", _opened(part, more), expect)
    for words, about, code, changes in (
        ("another-order", "It names another order.", "input_mismatch", {"order": name("an order")}),
        ("another-salt", "The salt is not the order's.", "input_mismatch", {"salt": name("salt")}),
        (
            "another-work",
            "Nor is the work.",
            "input_mismatch",
            {"work": encode({"sequences": [[1]], "claimed": 0, "arrays": []})},
        ),
        ("piece-missing", "A piece is missing.", "input_mismatch", {"pieces": part.pieces[:-1]}),
        ("pieces-turned", "The pieces stand in another order.", "input_mismatch", {"pieces": part.pieces[::-1]}),
        ("bad-pieces", "Pieces that are none.", "bad_encoding", {"pieces": [b"\xff"]}),
        ("short-salt", "A salt of 31 bytes.", "bad_record", {"salt": part.salt[:31]}),
        ("unknown-field", "A field that it does not have.", "bad_record", {"colour": 1}),
    ):
        yield refused(words, about, _opened(part, opening_of(part, **changes)), code)
    yield refused("cut-short", "Its last byte is missing.", _opened(part, opening_of(part)[:-1]), "bad_encoding")


def _opened(part: Part, encoded: bytes) -> Fields:
    return {"order": part.order.whole, "receipts": [one.whole for one in part.receipts], "opening": encoded}


def _tokens(token: int, found: int) -> Fields:
    figures = {"tokens": [token], "values_micro": [found], "gaps_micro": [], "masses_ppm": []}
    return {**figures, "tensor": b"", "shape": []}

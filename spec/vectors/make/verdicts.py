"""Kinds `verdict` and `settlement`: what evidence supports, and what is owed for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import functions, resumptions, texts, world
from .cbor import encode
from .notation import Case, refused
from .texts import ACCEPTED, INCONCLUSIVE, REFUTED, UNDECIDED, UPHELD, text
from .work import BUNDLE, NODES, OWNERS, Told, Work, checker, executor, told
from .world import CLIENT, DAY_MS, NOW_MS, OTHER, Fields, name


def verdict() -> Iterator[Case]:
    for tell in (
        texts.checked, texts.members, texts.audited, texts.ends, texts.beside, resumptions.resumed, functions.quorums,
        functions.audits, functions.committees, _owners, _sorted_out,
    ):  # fmt: skip
        for case in tell():
            yield Case(case.words, case.about, case.work.given(), {"fields": case.fields})
    yield from _shuffled()
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
        return work, parts

    def findings(parts: list[Any], owners: tuple[int, ...], standing: str = UPHELD) -> list[Fields]:
        due = standing == UPHELD
        keys = [OWNERS[owner].key if owner else None for owner in owners]
        return [
            make(part, standing, amount if due else 0, 0 if due else amount, owner=key)
            for part, key, make, amount in zip(parts, keys, [executor, checker, checker], (27, 12, 12), strict=False)
        ]

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
        yield told(words, about, work, parts[0], ACCEPTED, *findings(parts, (1, 0)))
    work, parts = owned("quorum:2/2", 1, 2)
    work.accept(parts[1], 3)
    about = "Two acceptances name two owners: the node stands for itself."
    yield told("two-acceptances", about, work, parts[0], ACCEPTED, *findings(parts, (1, 0)))
    work, parts = owned("quorum:2/2", 1, 2)
    del work.records[-2]
    about = "The mandate that it names is not there: the node stands for itself."
    yield told("mandate-missing", about, work, parts[0], ACCEPTED, *findings(parts, (1, 0)))
    work, parts = owned("quorum:2/2", 1, 0)
    work.records.append(OWNERS[2].sign("mandate", world.mandate(node=NODES[2].key, owner=OWNERS[2].key)))
    about = "A mandate that the node did not name: the node stands for itself."
    yield told("mandate-not-named", about, work, parts[0], ACCEPTED, *findings(parts, (1, 0)))


def _sorted_out() -> Iterator[Told]:
    """Records that belong to other work, or are not by whom they should be."""
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3)
    other = Work("quorum:2/3")
    stray = other.text(3)
    other.window(stray, 0, 3, "final", 20)
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
        ("chain-that-falls", "Its amount is lower.", {"amount_ucr": 19}),
        ("chain-of-another", "It names another receipt before it.", {"previous": name("another receipt")}),
    ):
        work = Work("none")
        part = work.text(1)
        first = work.window(part, 0, 3, "open", 20)
        work.window(part, 3, 2, "final", 35, **changes)
        own = executor(part, UPHELD, 20, due_for=[first], evidence=[first])
        yield told(words, about, work, part, INCONCLUSIVE, own)
    work, part, window = text("none")
    again = work.text(2)
    lonely = work.window(again, 0, 3, "final", 20, sequence=1, previous=name("another receipt"))
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
    check = work.check(2, window, 3, 3)
    records = [record.whole for record in work.records]
    no_manifest = [envelope for envelope in records if envelope != BUNDLE.whole]
    stranger = OTHER.sign_payload("manifest", BUNDLE.payload).whole
    only_checks = [envelope for envelope in records if envelope != part.order.whole]
    changed = [*records[:-1], records[-1][:-1] + bytes([records[-1][-1] ^ 1])]
    for words, about, code, changes in (
        ("manifest-missing", "The tolerance is not known.", "unknown_bundle", {"records": no_manifest}),
        ("manifest-of-another", "Another envelope has another id.", "unknown_bundle", {"records": [*no_manifest, stranger]}),
        ("no-order", "Nothing was ordered.", "bad_record", {"records": [BUNDLE.whole]}),
        ("no-work", "Only checks were ordered.", "bad_record", {"records": only_checks}),
        ("another-client", "No order of this client.", "bad_record", {"client": OTHER.key}),
        ("another-nonce", "No order under this commitment.", "bad_record", {"nonce": name("another nonce")}),
        ("another-policy", "No order under this policy.", "bad_record", {"policy": "quorum:2/3"}),
        ("no-policy", "A policy that cannot be held.", "unsatisfiable_assurance", {"policy": "quorum:1/2"}),
        ("record-changed", "One of the records was changed.", "bad_signature", {"records": changed}),
    ):  # fmt: skip
        yield refused(words, about, work.given(**changes), code)
    opening = {"order": part.order.id, "salt": part.salt, "work": part.work, "pieces": part.pieces}
    damages: list[tuple[str, str, str, Fields]] = [
        ("opening-with-another-salt", "The salt is not the order's.", "input_mismatch", {"salt": name("salt")}),
        ("opening-with-another-work", "Nor is the work.", "input_mismatch", {"work": check.work}),
        ("opening-with-a-piece-missing", "A piece is missing.", "input_mismatch", {"pieces": part.pieces[:-1]}),
        (
            "opening-with-another-piece",
            "The pieces stand in another order.",
            "input_mismatch",
            {"pieces": part.pieces[::-1]},
        ),
        ("opening-with-bad-pieces", "Pieces that are none.", "bad_encoding", {"pieces": [b"\xff"]}),
        ("opening-with-short-salt", "A salt of 31 bytes.", "bad_record", {"salt": part.salt[:31]}),
        ("opening-unknown-field", "A field that it does not have.", "bad_record", {"colour": 1}),
    ]
    for words, about, code, changes in damages:
        yield refused(words, about, work.given(openings=[encode({**opening, **changes})]), code)
    given = work.given(openings=[encode(opening)[:-1]])
    yield refused("opening-cut-short", "Its last byte is missing.", given, "bad_encoding")

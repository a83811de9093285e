"""Verdicts on texts, window by window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .chance import audit_number
from .cose import Envelope
from .work import NODES, NONCE, PROMPT, Part, Told, Work, checker, executor, told

UPHELD, REFUTED, UNDECIDED, SILENT = "upheld", "refuted", "undecided", "silent"
ACCEPTED, REJECTED, INCONCLUSIVE = "accepted", "rejected", "inconclusive"


def text(policy: str, shift: int = 0, **changes: Any) -> tuple[Work, Part, Envelope]:
    """Node 1 writes three tokens in one window, for 27 micro-credits."""
    work = Work(policy, **changes)
    part = work.text(1)
    return work, part, work.window(part, 0, 3, "final", 27, shift=shift)


def checked() -> Iterator[Told]:
    work, part, window = text("none")
    yield told("unchecked", "Nobody looks at it.", work, part, ACCEPTED, executor(part, UPHELD, 27))
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3)
    findings = [executor(part, UPHELD, 27), checker(check, UPHELD, 12)]
    yield told("agreed", "One checker agrees.", work, part, ACCEPTED, *findings)
    work, part, window = text("quorum:2/3")
    good, bad = work.check(2, window, 3, 3), work.check(3, window, 3, 3, shift=500)
    findings = [executor(part, UPHELD, 27), checker(good, UPHELD, 12), checker(bad, REFUTED, 0, 12)]
    yield told("one-objects", "One of two objects.", work, part, ACCEPTED, *findings)
    work, part, window = text("quorum:2/3", shift=500)
    one, two = work.check(2, window, 3, 3), work.check(3, window, 3, 3)
    work.open(part, one, two)
    findings = [executor(part, REFUTED, 0, 27), checker(one, UPHELD, 12), checker(two, UPHELD, 12)]
    yield told("outvoted", "Two agree on other values.", work, part, REJECTED, *findings)
    yield from _not_shown()
    work, part, window = text("quorum:3/3", shift=500)
    one, two = work.check(2, window, 3, 3), work.check(3, window, 3, 3)
    findings = [executor(part, UNDECIDED, 0, 27), checker(one, UNDECIDED, 0, 12), checker(two, UNDECIDED, 0, 12)]
    yield told("not-enough", "Two object, and three are needed.", work, part, INCONCLUSIVE, *findings)
    work, part, window = text("quorum:2/2")
    yield told("nobody-asked", "Nobody was asked.", work, part, INCONCLUSIVE, executor(part, UNDECIDED, 0, 27))
    yield from _two_windows()


def _not_shown() -> Iterator[Told]:
    for words, about, opened in (
        ("nothing", "Two agree on other values, of what tokens is not shown.", ()),
        ("the-work-alone", "What the two were given is not shown.", (0,)),
        ("one-of-two", "What one of the two was given is not shown.", (0, 1)),
        ("the-checks-alone", "What the executor wrote is not shown.", (1, 2)),
    ):
        work, part, window = text("quorum:2/3", shift=500)
        parts = [part, work.check(2, window, 3, 3), work.check(3, window, 3, 3)]
        work.open(*(parts[index] for index in opened))
        findings = [executor(part, UNDECIDED, 0, 27), *(checker(check, UNDECIDED, 0, 12) for check in parts[1:])]
        yield told(f"outvoted-opened-{words}", about, work, part, INCONCLUSIVE, *findings)
    work, part, window = text("quorum:3/4", shift=500)
    accusers = [work.check(number, window, 3, 3) for number in (2, 3, 4)]
    ally = work.check(5, window, 3, 3, shift=500)
    work.open(part, *accusers)
    findings = [
        executor(part, REFUTED, 0, 27), *(checker(check, UPHELD, 12) for check in accusers), checker(ally, REFUTED, 0, 12),
    ]  # fmt: skip
    about = "Three agree on other values, and are opened; one confirms, and is not."
    yield told("outvoted-opened-but-one-who-confirms", about, work, part, REJECTED, *findings)


def _two_windows() -> Iterator[Told]:
    work = Work("quorum:2/2")
    part = work.text(1)
    first, last = work.window(part, 0, 3, "open", 12), work.window(part, 3, 2, "final", 35, shift=500)
    good, one, two = work.check(2, first, 3, 3), work.check(3, last, 5, 2), work.check(4, last, 5, 2)
    work.open(part, one, two)
    wrong = executor(part, REFUTED, 12, 23, due_for=[first])
    findings = [wrong, checker(good, UPHELD, 12), checker(one, UPHELD, 12), checker(two, UPHELD, 12)]
    about = "The first window is due, the second is not."
    yield told("second-window-false", about, work, part, REJECTED, *findings)
    work = Work("quorum:2/2")
    part = work.text(1)
    first, last = work.window(part, 0, 3, "open", 12), work.window(part, 3, 2, "final", 35)
    one, two = work.check(2, first, 3, 3), work.check(2, last, 5, 2)
    both = checker(one, UPHELD, 24, due_for=one.receipts + two.receipts, evidence=one.evidence + two.evidence)
    about = "One checker of two windows has one finding."
    yield told("one-checker-of-two-windows", about, work, part, ACCEPTED, executor(part, UPHELD, 35), both)


def members() -> Iterator[Told]:
    for words, about, paid, withheld in (
        ("silent", "A checker says nothing.", False, 0),
        ("silent-with-receipt", "A checker has a receipt and no finding.", True, 12),
    ):
        work, part, window = text("quorum:2/3")
        good, bad = work.check(2, window, 3, 3), work.check(3, window, 3, 3, silent=True, paid=paid)
        findings = [executor(part, UPHELD, 27), checker(good, UPHELD, 12), checker(bad, SILENT, 0, withheld)]
        yield told(words, about, work, part, ACCEPTED, *findings)
    work, part, window = text("quorum:2/2")
    few = {"values_micro": [-1_000], "gaps_micro": [0], "masses_ppm": [0]}
    bad = work.check(2, window, 3, 3, found=few)
    findings = [executor(part, UNDECIDED, 0, 27), checker(bad, UNDECIDED, 0, 12)]
    yield told("too-few-values", "One value for three tokens.", work, part, INCONCLUSIVE, *findings)
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3)
    other = NODES[2].sign("attestation", world.attestation(subject=window.id, order=check.order.id))
    work.records.append(other)
    two_faced = checker(check, REFUTED, 0, 12, evidence=[*check.evidence, other])
    findings = [executor(part, UNDECIDED, 0, 27), two_faced]
    about = "A checker who says two things under one order contradicts itself, and neither counts."
    yield told("two-attestations", about, work, part, INCONCLUSIVE, *findings)
    work, part, window = text("quorum:2/2")
    check = work.check(0, window, 3, 3)
    findings = [executor(part, UNDECIDED, 0, 27), checker(check, UNDECIDED, 0, 12)]
    yield told("client-checks", "The client checks for itself.", work, part, INCONCLUSIVE, *findings)
    work, part, window = text("quorum:2/3")
    own, good = work.check(0, window, 3, 3, shift=500), work.check(2, window, 3, 3)
    findings = [executor(part, UPHELD, 27), checker(own, UNDECIDED, 0, 12), checker(good, UPHELD, 12)]
    about = "The client objects: that it is a party is held against nobody."
    yield told("client-objects", about, work, part, ACCEPTED, *findings)
    yield from _signed_again()
    yield from _equivocal()
    yield from _anchored()


def _signed_again() -> Iterator[Told]:
    """What is signed twice is said once: in the envelope that the client's orders name, or in that of the lowest id."""
    for words, about, named in (
        ("receipt-again-lowest-named", "The check names the lower id.", 0),
        ("receipt-again-highest-named", "The check names the higher id.", 1),
    ):
        work, part, window = text("quorum:2/2")
        twin = work.again(part, "receipt", window)
        taken = sorted((window, twin), key=lambda one: one.id)[named]
        check = work.check(2, taken, 3, 3)
        findings = [executor(part, UPHELD, 27, due_for=[taken], evidence=[taken]), checker(check, UPHELD, 12)]
        yield told(words, about, work, part, ACCEPTED, *findings)
    work, part, window = text("none")
    lowest = min(window, work.again(part, "receipt", window), key=lambda one: one.id)
    own = executor(part, UPHELD, 27, due_for=[lowest], evidence=[lowest])
    yield told("receipt-again-not-named", "No order names either.", work, part, ACCEPTED, own)
    for words, about, of_lowest in (
        ("receipt-again-and-on", "The next receipt names the one that is taken.", True),
        ("receipt-again-and-on-from-the-other", "The next receipt names the one that is not taken.", False),
    ):
        work = Work("none")
        part = work.text(1)
        first = work.window(part, 0, 3, "open", 12)
        lowest, highest = sorted((first, work.again(part, "receipt", first)), key=lambda one: one.id)
        last = work.window(part, 3, 2, "final", 35, previous=(lowest if of_lowest else highest).id)
        own = executor(part, UPHELD, 35, due_for=[lowest, last], evidence=[lowest, last])
        yield told(words, about, work, part, ACCEPTED, own)
    work = Work("quorum:2/2")
    part = work.text(1)
    first = work.window(part, 0, 3, "yielded", 12)
    taken = max(first, work.again(part, "receipt", first), key=lambda one: one.id)
    other = work.text(2, 3, after=taken)
    last = work.window(other, 3, 2, "final", 26)
    check = work.check(3, last, 5, 2)
    findings = [
        executor(part, UNDECIDED, 0, 12, evidence=[taken]), executor(other, UPHELD, 26), checker(check, UPHELD, 12)
    ]  # fmt: skip
    about = "The order that goes on from it names the higher id."
    yield told("receipt-again-gone-on-from", about, work, part, INCONCLUSIVE, *findings)
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3)
    assert check.attestation is not None
    lowest = min(check.attestation, work.again(check, "attestation", check.attestation), key=lambda one: one.id)
    findings = [executor(part, UPHELD, 27), checker(check, UPHELD, 12, evidence=[*check.receipts, lowest])]
    about = "A checker signs its finding twice: that is no contradiction."
    yield told("attestation-again", about, work, part, ACCEPTED, *findings)


def _equivocal() -> Iterator[Told]:
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3)
    two_faced = [*part.receipts, _other(work, part, window, amount_ucr=28)]
    findings = [executor(part, REFUTED, evidence=two_faced), checker(check, UNDECIDED, 0, 12)]
    yield told("equivocates", "Two receipts for one window: neither counts.", work, part, INCONCLUSIVE, *findings)
    work, part, window = text("none")
    three = [window, *(_other(work, part, window, amount_ucr=amount) for amount in (28, 29))]
    own = executor(part, REFUTED, evidence=sorted(three, key=lambda one: one.id)[:2])
    yield told("equivocates-thrice", "Of three, the lowest two are evidence enough.", work, part, INCONCLUSIVE, own)
    work = Work("quorum:2/2")
    part = work.text(1)
    first, last = work.window(part, 0, 3, "open", 12), work.window(part, 3, 2, "final", 35)
    check = work.check(2, first, 3, 3)
    changes = {"sequence": 1, "previous": first.id, "first_token": 3, "tokens": 2, "values_micro": [-5, -6]}
    two_faced = [*part.receipts, _other(work, part, last, **changes, amount_ucr=36)]
    findings = [executor(part, REFUTED, 12, due_for=[first], evidence=two_faced), checker(check, UPHELD, 12)]
    about = "Two receipts for the second window: the first one stands."
    yield told("equivocates-later", about, work, part, INCONCLUSIVE, *findings)


def _other(work: Work, part: Part, receipt: Envelope, **changes: Any) -> Envelope:
    """Another receipt by the same node for the window of this one."""
    other = part.node.sign("receipt", world.receipt(order=part.order.id, **changes))
    assert other.id != receipt.id
    work.records.append(other)
    return other


def _anchored() -> Iterator[Told]:
    for words, about, anchors, outcome in (
        ("anchor-checks", "The checker is an anchor.", [2], ACCEPTED),
        ("anchor-executes", "The executor is an anchor.", [1], ACCEPTED),
        ("anchor-missing", "Neither is an anchor.", [], INCONCLUSIVE),
        ("anchor-elsewhere", "The anchor has no part in it.", [3], INCONCLUSIVE),
    ):
        work, part, window = text("quorum:2/2+anchor", anchors=[NODES[number].key for number in anchors])
        check = work.check(2, window, 3, 3)
        named = [NODES[number].key for number in anchors if number < 3]
        if outcome == ACCEPTED:
            findings = [executor(part, UPHELD, 27), checker(check, UPHELD, 12)]
        else:
            findings = [executor(part, UNDECIDED, 0, 27), checker(check, UNDECIDED, 0, 12)]
        yield told(words, about, work, part, outcome, *findings, anchors=named)


def audited() -> Iterator[Told]:
    work, part, window = text("audit:1")
    assert audit_number(NONCE, window.id) * 1_000_000 >= 2**64, "the window is not drawn"
    yield told("audit-passed-over", "The window is not drawn.", work, part, ACCEPTED, executor(part, UPHELD, 27))
    work, part, window = text("audit:999999")
    assert audit_number(NONCE, window.id) * 1_000_000 < 999_999 * 2**64, "the window is drawn"
    undecided = executor(part, UNDECIDED, 0, 27)
    yield told("audit-not-made", "It is drawn, and nobody was asked.", work, part, INCONCLUSIVE, undecided)
    work, part, window = text("audit:999999")
    check = work.check(2, window, 3, 3)
    findings = [executor(part, UPHELD, 27), checker(check, UPHELD, 12)]
    yield told("audited", "It is drawn, and checked.", work, part, ACCEPTED, *findings)
    yield from _adaptive()


def _adaptive() -> Iterator[Told]:
    work, part, window = text("adaptive:1")
    assert audit_number(NONCE, window.id) * 1_000_000 >= 2**64, "the window is not drawn"
    about = "The window is not drawn, and nobody was asked."
    yield told("adaptive-passed-over", about, work, part, ACCEPTED, executor(part, UPHELD, 27))
    for words, about, shifts, outcome in (
        ("asked", "It is not drawn, and the client had it checked all the same.", (0,), ACCEPTED),
        (
            "objection",
            "One who was asked beyond the draw objects: the executor's word is not enough.",
            (500,),
            INCONCLUSIVE,
        ),
        ("majority", "One objects, and two confirm.", (500, 0, 0), ACCEPTED),
        ("two-and-two", "Two confirm and two object: nobody is in the majority.", (500, 500, 0, 0), INCONCLUSIVE),
        ("three-against-two", "Three confirm, and two object.", (500, 500, 0, 0, 0), ACCEPTED),
    ):
        work, part, window = text("adaptive:1")
        checks = [work.check(number, window, 3, 3, shift=shift) for number, shift in enumerate(shifts, 2)]
        if outcome == ACCEPTED:
            told_of = [
                checker(c, REFUTED, 0, 12) if s else checker(c, UPHELD, 12) for c, s in zip(checks, shifts, strict=True)
            ]
            findings = [executor(part, UPHELD, 27), *told_of]
        else:
            findings = [executor(part, UNDECIDED, 0, 27), *(checker(check, UNDECIDED, 0, 12) for check in checks)]
        yield told(f"adaptive-{words}", about, work, part, outcome, *findings)
    work, part, window = text("adaptive:1", shift=500)
    friend, *others = (work.check(number, window, 3, 3, shift=500 * (number == 2)) for number in (2, 3, 4))
    work.open(part, *others)
    findings = [
        executor(part, REFUTED, 0, 27),
        checker(friend, REFUTED, 0, 12),
        *(checker(o, UPHELD, 12) for o in others),
    ]
    yield told("adaptive-outvoted", "A friend confirms, and two object: the executor does not count for itself.", work, part,
               REJECTED, *findings)  # fmt: skip
    work = Work("adaptive:1")
    part = work.text(1)
    first = work.window(part, 0, 3, "open", 12, shift=500)
    work.window(part, 3, 2, "final", 35)
    checks = [work.check(number, first, 3, 3) for number in (2, 3)]
    work.open(part, *checks)
    findings = [executor(part, REFUTED, 0, 35), *(checker(check, UPHELD, 12) for check in checks)]
    about = "What follows a refuted window, and nobody was asked about, is not taken as it is."
    yield told("adaptive-after-a-lie", about, work, part, REJECTED, *findings)


def ends() -> Iterator[Told]:
    for words, about, end, amount, outcome in (
        ("no-end", "More should follow.", "open", 12, INCONCLUSIVE),
        ("yielded", "The executor left.", "yielded", 12, INCONCLUSIVE),
        ("cancelled", "The client had enough.", "cancelled", 27, ACCEPTED),
    ):
        work = Work("none")
        part = work.text(1)
        work.window(part, 0, 3, end, amount)
        yield told(words, about, work, part, outcome, executor(part, UPHELD, amount))
    work = Work("quorum:2/2")
    part = work.text(1)
    work.window(part, 0, 0, "cancelled", 15)
    about = "Nothing came: there is no text."
    yield told("cancelled-at-once", about, work, part, INCONCLUSIVE, executor(part, UPHELD, 15))
    work = Work("none")
    part = work.text(1)
    work.window(part, 0, 3, "open", 12)
    work.window(part, 3, 0, "cancelled", 12)
    about = "The client had enough after a window."
    yield told("cancelled-after-a-window", about, work, part, ACCEPTED, executor(part, UPHELD, 12))
    work = Work("none")
    part = work.text(1)
    yield told("nothing-came", "An order that brought nothing.", work, part, INCONCLUSIVE, executor(part, SILENT))


def beside() -> Iterator[Told]:
    """Checks of something else."""
    work, part, window = text("none")
    stray = work.check(2, window, 3, 3, checks=world.name("a receipt of nobody's"), silent=True)
    findings = [executor(part, UPHELD, 27), checker(stray, UNDECIDED, 0, 12)]
    yield told("check-of-no-window", "A check of no window.", work, part, ACCEPTED, *findings)
    for words, about, changes in (
        ("check-with-other-seed", "Other parameters.", {"parameters": {**world.PARAMETERS, "seed": 8}}),
        ("check-of-another-entry", "What names the receipt and is no check.", {"entry": "generate"}),
    ):
        work, part, window = text("quorum:2/2")
        check = work.check(2, window, 3, 3, **changes)
        findings = [executor(part, UNDECIDED, 0, 27), checker(check, UNDECIDED, 0, 12)]
        yield told(words, about, work, part, INCONCLUSIVE, *findings)
    for words, about, end, tokens in (
        ("check-of-fewer-tokens", "It was asked about two of the window's three tokens.", 3, 2),
        ("check-of-a-later-end", "What it was given ends after the window.", 4, 3),
        ("check-of-an-earlier-end", "What it was given ends before the window does.", 2, 3),
    ):
        work, part, window = text("quorum:2/2")
        check = work.check(2, window, end, tokens)
        findings = [executor(part, UNDECIDED, 0, 27), checker(check, UNDECIDED, 0, 12)]
        yield told(words, about, work, part, INCONCLUSIVE, *findings)
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3, parameters={**world.PARAMETERS, "max_tokens": 0})
    findings = [executor(part, UPHELD, 27), checker(check, UPHELD, 12)]
    about = "How many tokens were asked for makes no difference."
    yield told("check-of-another-length", about, work, part, ACCEPTED, *findings)
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3)
    work.open(part, check)
    findings = [executor(part, UPHELD, 27), checker(check, UPHELD, 12)]
    yield told("opened", "Both are opened: the checker had the text's tokens.", work, part, ACCEPTED, *findings)
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3, sequence=[99, *range(1, PROMPT + 3)])
    work.open(part, check)
    findings = [executor(part, UNDECIDED, 0, 27), checker(check, UNDECIDED, 0, 12)]
    yield told("opened-and-other", "The checker was given other tokens.", work, part, INCONCLUSIVE, *findings)
    work, part, window = text("none")
    part.pieces.append(part.pieces[0])
    work.open(part)
    about = "Pieces after the last receipt are left out."
    yield told("opened-beyond-the-receipt", about, work, part, ACCEPTED, executor(part, UPHELD, 27))

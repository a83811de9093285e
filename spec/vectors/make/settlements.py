"""Kind `settlement`: credits that follow from a verdict, to the micro-credit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .cose import Envelope
from .judging import tensor
from .notation import Case, refused
from .texts import ACCEPTED, INCONCLUSIVE, REFUTED, REJECTED, UNDECIDED, UPHELD, text
from .work import NODES, OWNERS, Part, Work, checker, executor, told
from .world import CLIENT, Fields, name


def settlement() -> Iterator[Case]:
    yield from _settled()
    yield from _with_fee()
    yield from _tampered()


def _given(work: Work, subject: Part, outcome: str, *findings: Fields, receipts: Sequence[Envelope]) -> Fields:
    fields = told("", "", work, subject, outcome, *findings).fields
    fields["findings"] = [{**found, "reason": ""} for found in fields["findings"]]
    signed = CLIENT.sign("verdict", fields)
    return {"verdict": signed.whole, "receipts": [receipt.whole for receipt in receipts]}


def _credit(part: Part, receipt: Envelope, due: int, withheld: int, owner: bytes | None = None) -> Fields:
    node = part.node.key
    return {"node": node, "owner": owner or node, "receipt": receipt.id, "due_ucr": due, "withheld_ucr": withheld}


def _expect(*credits: Fields, fee: int = 0, bearer: bytes | None = None) -> Fields:
    sums = {name: sum(credit[name] for credit in credits) for name in ("due_ucr", "withheld_ucr")}
    expect = {"credits": list(credits), **sums, "fee_ucr": fee}
    return expect if bearer is None else {**expect, "fee_bearer": bearer}


def _settled() -> Iterator[Case]:
    work, part, window = text("quorum:2/2")
    check = work.check(2, window, 3, 3)
    findings = [executor(part, UPHELD, 27), checker(check, UPHELD, 12)]
    both = [window, *check.receipts]
    given = _given(work, part, ACCEPTED, *findings, receipts=both)
    credits = [_credit(check, check.receipts[0], 12, 0), _credit(part, window, 27, 0)]
    yield Case("accepted", "Everything is due: checkers come first.", given, _expect(*credits))
    given = _given(work, part, ACCEPTED, *findings, receipts=[*both[::-1], *both])
    yield Case("in-any-order", "However receipts arrive.", given, _expect(*credits))
    undecided = [executor(part, UNDECIDED, 0, 27), checker(check, UNDECIDED, 0, 12)]
    given = _given(work, part, INCONCLUSIVE, *undecided, receipts=both)
    credits = [_credit(check, check.receipts[0], 0, 12), _credit(part, window, 0, 27)]
    yield Case("inconclusive", "Nothing is due.", given, _expect(*credits))
    work = Work("none")
    part = work.text(1)
    first, last = work.window(part, 0, 3, "open", 12), work.window(part, 3, 2, "final", 35)
    half = executor(part, REFUTED, 12, 23, due_for=[first])
    given = _given(work, part, REJECTED, half, receipts=[first, last])
    halves = sorted((_credit(part, first, 12, 0), _credit(part, last, 0, 23)), key=lambda credit: credit["receipt"])
    yield Case(
        "of-two-windows", "What each receipt added; credits are in the evidence's order.", given, _expect(*halves)
    )
    given = _given(work, part, REJECTED, executor(part, REFUTED, 0, 35), receipts=[first, last])
    none = [
        {**credit, "due_ucr": 0, "withheld_ucr": added} for credit, added in zip(halves, _added(halves), strict=True)
    ]
    yield Case("nothing-due", "Of neither.", given, _expect(*none))
    owned = executor(part, UPHELD, 35, owner=OWNERS[1].key)
    given = _given(work, part, ACCEPTED, owned, receipts=[first, last])
    all_due = [
        {**credit, "owner": OWNERS[1].key, "due_ucr": added, "withheld_ucr": 0}
        for credit, added in zip(halves, _added(halves), strict=True)
    ]
    yield Case("to-the-owner", "Credits are the owner's.", given, _expect(*all_due))
    other = part.node.sign("receipt", {**_fields_of(part), "sequence": 1, "previous": first.id, "amount_ucr": 36})
    two_faced = executor(part, REFUTED, 12, due_for=[first], evidence=[first, last, other])
    given = _given(work, part, INCONCLUSIVE, two_faced, receipts=[first, last, other])
    about = "Receipts that contradict each other claim nothing."
    yield Case("contradicting", about, given, _expect(_credit(part, first, 12, 0)))
    silent = executor(part, "silent", evidence=[], due_for=[])
    given = _given(work, part, INCONCLUSIVE, silent, receipts=[first, last])
    yield Case("nothing-named", "Receipts that no finding names are nobody's.", given, _expect())


def _added(credits: Sequence[Fields]) -> list[int]:
    return [credit["due_ucr"] + credit["withheld_ucr"] for credit in credits]


def _with_fee() -> Iterator[Case]:
    work = Work("committee:2/3")
    judged = work.call(1, tensor([3, 4]))
    members = [work.call(number, tensor([4, 3]), checks=judged.receipts[0].id) for number in (2, 3, 4)]
    receipts = [part.receipts[0] for part in (judged, *members)]

    def case(
        words: str, about: str, outcome: str, own: Fields, due: int, fee: int, bearer: bytes | None = None
    ) -> Case:
        agreeing, other = members[:2], members[2]
        findings = [own, *(checker(member, UPHELD, 13) for member in agreeing), checker(other, REFUTED, 0, 13)]
        credits = [_credit(member, member.receipts[0], 13, 0) for member in agreeing]
        credits.append(_credit(other, other.receipts[0], 0, 13))
        credits.sort(key=lambda credit: credit["node"])
        credits.append(_credit(judged, receipts[0], due, 13 - due, own["owner"]))
        given = _given(work, judged, outcome, *findings, receipts=receipts)
        return Case(words, about, given, _expect(*credits, fee=fee, bearer=bearer))

    about = "The committee's fee is the payer's."
    yield case("committee-for", about, ACCEPTED, executor(judged, UPHELD, 13), 13, 26)
    about = "The executor that lost bears the fee."
    owner = OWNERS[1].key
    lost = executor(judged, REFUTED, 0, 13, owner=owner)
    yield case("committee-against", about, REJECTED, lost, 0, 26, owner)
    about = "Nobody has lost."
    yield case("committee-open", about, INCONCLUSIVE, executor(judged, UNDECIDED, 0, 13), 0, 26)


def _tampered() -> Iterator[Case]:
    work = Work("quorum:2/2")
    part = work.text(1)
    first, last = work.window(part, 0, 3, "open", 12), work.window(part, 3, 2, "final", 35)
    check = work.check(2, first, 3, 3)
    good, upheld = executor(part, UPHELD, 35), checker(check, UPHELD, 12)
    all_of = [first, last, *check.receipts]
    less = part.node.sign("receipt", {**_fields_of(part), "sequence": 1, "previous": first.id, "amount_ucr": 10})

    def no(words: str, about: str, *findings: Fields, receipts: Sequence[Envelope] = all_of) -> Case:
        return refused(words, about, _given(work, part, ACCEPTED, *findings, receipts=receipts), "bad_record")

    yield no("due-too-high", "A micro-credit more than the receipts claim.", {**good, "due_ucr": 36}, upheld)
    yield no("due-too-low", "A micro-credit less.", {**good, "due_ucr": 34}, upheld)
    yield no("withheld-invented", "Something is withheld that nobody claimed.", {**good, "withheld_ucr": 1}, upheld)
    moved = {**good, "due_ucr": 12, "withheld_ucr": 23}
    yield no("due-for-both", "Both receipts are due, and one is in the sum.", moved, upheld)
    yield no("due-for-none", "No receipt is due, and both are in the sum.", {**good, "due_for": []}, upheld)
    unnamed = {**good, "evidence": [first.id]}
    yield no("due-without-evidence", "A receipt is due that its evidence does not name.", unnamed, upheld)
    yield no("due-and-missing", "A receipt that is due is missing.", good, upheld, receipts=[first, *check.receipts])
    about = "The receipt before one that is named is missing."
    yield no("previous-missing", about, good, upheld, receipts=[last, *check.receipts])
    about = "A receipt that is withheld is missing: the sum is not borne out."
    half = executor(part, REFUTED, 12, 23, due_for=[first])
    yield no("withheld-and-missing", about, half, upheld, receipts=[first, *check.receipts])
    stolen = {**upheld, "evidence": sorted([first.id, *upheld["evidence"]]), "withheld_ucr": 12}
    yield no("of-another-node", "A receipt of another node.", good, stolen)
    twice = {**checker(part, UPHELD, 35), "evidence": good["evidence"]}
    yield no("named-twice", "One node's receipts in two of its roles.", good, twice)
    again = {**good, "evidence": sorted([*good["evidence"], first.id]), "due_ucr": 47}
    yield no("named-again", "One receipt twice in one finding, and in its sum.", again, upheld)
    about = "A receipt that adds less than nothing."
    falling = {**good, "evidence": sorted([first.id, less.id]), "due_for": sorted([first.id, less.id]), "due_ucr": 10}
    yield no("falling", about, falling, upheld, receipts=[first, less, *check.receipts])
    strange = {**good, "due_for": sorted([*good["due_for"], name("a receipt")])}
    yield no("due-for-the-unknown", "A receipt is due that nobody has.", strange, upheld)
    foreign = _given(work, part, ACCEPTED, good, upheld, receipts=all_of)
    foreign["receipts"][0] = NODES[3].sign_payload("receipt", first.payload).whole
    yield refused("by-another", "A receipt by another node has another id.", foreign, "bad_record")


def _fields_of(part: Part) -> dict[str, Any]:
    """Fields of a receipt of the part's, to be changed."""
    return {
        "order": part.order.id, "sequence": 0, "first_token": 3, "tokens": 2, "transcript": name("a transcript"),
        "values_micro": [-1, -2], "numerics_class": "float32/cpu", "amount_ucr": 0, "end": "final",
    }  # fmt: skip

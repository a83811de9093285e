"""Verdicts on function calls, and by committees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .chance import audit_number
from .cose import Envelope
from .judging import tensor
from .texts import ACCEPTED, INCONCLUSIVE, REFUTED, REJECTED, SILENT, UNDECIDED, UPHELD
from .work import NODES, NONCE, Part, Told, Work, checker, executor, told
from .world import CLIENT, Fields

_RESULT, _OTHER = tensor([3, 4]), tensor([4, 3])
"""40000 ppm apart; the bundle allows 100."""
_RESULTS, _WORSE = tensor([3, 4], [0, 0]), tensor([3, 4], [4, 3])


def quorums() -> Iterator[Told]:
    work = Work("quorum:2/2")
    one, two = work.call(1, _RESULT), work.call(2, _RESULT)
    findings = [executor(one, UPHELD, 13), executor(two, UPHELD, 13)]
    yield told("function", "Two nodes came to the same.", work, one, ACCEPTED, *findings)
    work = Work("quorum:2/3")
    one, two, three = work.call(1, _OTHER), work.call(2, _RESULT), work.call(3, _RESULT)
    findings = [executor(one, REFUTED, 0, 13), executor(two, UPHELD, 13), executor(three, UPHELD, 13)]
    yield told("function-outsider", "One came to something else.", work, one, ACCEPTED, *findings)
    work = Work("quorum:2/2")
    one, two = work.call(1, _RESULT), work.call(2, _OTHER)
    findings = [executor(one, UNDECIDED, 0, 13), executor(two, UNDECIDED, 0, 13)]
    yield told("function-apart", "They came to different results.", work, one, INCONCLUSIVE, *findings)
    work = Work("quorum:2/3")
    one, two, three = work.call(1, _RESULT), work.call(2, _RESULT), work.call(3, None)
    findings = [executor(one, UPHELD, 13), executor(two, UPHELD, 13), executor(three, SILENT)]
    yield told("function-silent", "One gave nothing.", work, one, ACCEPTED, *findings)
    work = Work("quorum:2/3")
    one, two, three = work.call(1, _RESULT), work.call(2, _RESULT), work.call(3, _RESULT, (7, 8, 9))
    findings = [executor(one, UPHELD, 13), executor(two, UPHELD, 13), executor(three, UNDECIDED, 0, 13)]
    yield told("function-other-work", "One was asked about something else.", work, one, ACCEPTED, *findings)
    work = Work("quorum:2/3")
    one, two, three = work.call(1, _RESULT), work.call(2, _RESULT), work.call(3, _OTHER, opened=False)
    findings = [executor(one, UPHELD, 13), executor(two, UPHELD, 13), executor(three, UNDECIDED, 0, 13)]
    yield told("function-not-opened", "One result is not opened.", work, one, ACCEPTED, *findings)
    work = Work("quorum:2/3")
    one, two, three = work.call(1, _RESULT), work.call(2, _RESULT), work.call(3, _OTHER, end="yielded")
    findings = [executor(one, UPHELD, 13), executor(two, UPHELD, 13), executor(three, SILENT)]
    yield told("function-yielded", "One left without a result.", work, one, ACCEPTED, *findings)
    work = Work("quorum:2/2")
    one, two = work.call(1, _RESULT), work.call(2, None)
    findings = [executor(one, UNDECIDED, 0, 13), executor(two, SILENT)]
    yield told("function-alone", "One result is no two.", work, one, INCONCLUSIVE, *findings)
    work = Work("quorum:2/2+anchor", anchors=[NODES[2].key])
    one, two = work.call(1, _RESULT), work.call(2, _RESULT)
    findings = [executor(one, UPHELD, 13), executor(two, UPHELD, 13)]
    yield told("function-anchored", "One is an anchor.", work, one, ACCEPTED, *findings, anchors=[NODES[2].key])
    yield from _of_arrays()
    yield from _twice()
    work = Work("quorum:2/2")
    one, two = work.call(1, _RESULT), work.call(2, _RESULT)
    work.disown(two)
    findings = [executor(one, UNDECIDED, 0, 13), executor(two, UNDECIDED, 0, 13)]
    yield told("function-no-mandate", "One has no owner.", work, one, INCONCLUSIVE, *findings)
    work = Work("quorum:2/3")
    one, two, three = (work.call(number, _RESULT) for number in (1, 2, 3))
    work.disown(three)
    findings = [executor(part, UPHELD, 13) for part in (one, two, three)]
    about = "Two owners agree; what a third without owner came to is as good, and counts for nobody."
    yield told("function-no-mandate-beside", about, work, one, ACCEPTED, *findings)


def _of_arrays() -> Iterator[Told]:
    """Inputs that are arrays are compared byte by byte."""
    same: Fields = {"arrays": [b"\x00\x01", b"\x02\x03"], "calls": 2}
    for words, about, other in (
        (
            "other-array",
            "One was asked about an array with another last bit.",
            {**same, "arrays": [b"\x00\x01", b"\x02\x02"]},
        ),
        (
            "arrays-turned",
            "One was asked about the same arrays in another order.",
            {**same, "arrays": same["arrays"][::-1]},
        ),
        ("no-arrays", "One was asked about tokens.", {}),
    ):
        work = Work("quorum:2/3")
        one, two = work.call(1, _RESULTS, **same), work.call(2, _RESULTS, **same)
        three = work.call(3, _RESULTS, **other)
        own = executor(three, UNDECIDED, 0, 22 if other else 13)
        findings = [executor(one, UPHELD, 22), executor(two, UPHELD, 22), own]
        yield told(f"function-{words}", about, work, one, ACCEPTED, *findings)
    work = Work("quorum:2/3")
    one, two, three = (
        work.call(number, found, **same) for number, found in ((1, _RESULTS), (2, _WORSE), (3, _RESULTS))
    )
    findings = [executor(one, UPHELD, 22), executor(two, REFUTED, 0, 22), executor(three, UPHELD, 22)]
    yield told("function-of-arrays", "Of arrays, one row is not the same.", work, one, ACCEPTED, *findings)


def _twice() -> Iterator[Told]:
    """Two results of one node are two results: each is judged."""
    work = Work("quorum:2/3")
    wrong, right, other = work.call(1, _OTHER), work.call(1, _RESULT), work.call(2, _RESULT)
    both = executor(
        right, REFUTED, 13, 13, due_for=right.receipts, evidence=wrong.receipts + right.receipts
    )  # fmt: skip
    about = "Of the two results of one node one agrees with another owner's."
    yield told("function-one-node-twice", about, work, wrong, ACCEPTED, both, executor(other, UPHELD, 13))
    work = Work("quorum:2/2")
    one, two = work.call(1, _RESULT), work.call(1, _RESULT)
    both = executor(one, UNDECIDED, 0, 26, evidence=one.receipts + two.receipts)
    yield told("function-one-node-alone", "Twice the same, by one node.", work, one, INCONCLUSIVE, both)


def audits() -> Iterator[Told]:
    work = Work("audit:1")
    one = work.call(1, _RESULT)
    assert audit_number(NONCE, one.receipts[0].id) * 1_000_000 >= 2**64, "the result is not drawn"
    yield told("function-passed-over", "The result is not drawn.", work, one, ACCEPTED, executor(one, UPHELD, 13))
    for words, about, found, outcome in (
        ("audited", "The result is drawn, and another owner's is the same.", _RESULT, ACCEPTED),
        ("audited-apart", "The result is drawn, and another owner's is not the same.", _OTHER, INCONCLUSIVE),
    ):
        work = Work("audit:999999")
        one = work.call(1, _RESULT)
        assert audit_number(NONCE, one.receipts[0].id) * 1_000_000 < 999_999 * 2**64, "the result is drawn"
        two = work.call(2, found, checks=one.receipts[0].id)
        if outcome == ACCEPTED:
            findings = [executor(one, UPHELD, 13), checker(two, UPHELD, 13)]
        else:
            findings = [executor(one, UNDECIDED, 0, 13), checker(two, UNDECIDED, 0, 13)]
        yield told(f"function-{words}", about, work, one, outcome, *findings)
    work = Work("audit:1")
    one = work.call(1, _RESULT)
    two, three = work.call(2, _RESULT, checks=one.receipts[0].id), work.call(3, None, checks=one.receipts[0].id)
    findings = [executor(one, UPHELD, 13), checker(two, UNDECIDED, 0, 13), checker(three, SILENT)]
    about = "The result is not drawn: whoever was asked all the same was not to judge."
    yield told("function-passed-over-and-asked", about, work, one, ACCEPTED, *findings)
    work = Work("audit:999999")
    one = work.call(1, _RESULT)
    two, beside = work.call(2, _RESULT, checks=one.receipts[0].id), work.call(3, _RESULT)
    findings = [executor(one, UPHELD, 13), checker(two, UPHELD, 13), executor(beside, UNDECIDED, 0, 13)]
    about = "Another was given the same call, and not to check the first: nobody judges it."
    yield told("function-audited-and-another", about, work, one, ACCEPTED, *findings)
    work = Work("audit:999999")
    one = work.call(1, _RESULT)
    undecided = executor(one, UNDECIDED, 0, 13)
    yield told("function-not-audited", "It is drawn, and nobody was asked.", work, one, INCONCLUSIVE, undecided)
    yield from _adaptive()


def _adaptive() -> Iterator[Told]:
    for words, about, own, found, outcome in (
        ("passed-over", "The result is not drawn, and nobody was asked.", _RESULT, (), ACCEPTED),
        ("asked", "It is not drawn, and another owner's is the same.", _RESULT, (_RESULT,), ACCEPTED),
        ("apart", "It is not drawn, and another owner's is not the same.", _RESULT, (_OTHER,), INCONCLUSIVE),
        ("majority", "One has another result, and two the executor's.", _RESULT, (_OTHER, _RESULT, _RESULT), ACCEPTED),
        ("outvoted", "A friend has the executor's result, and two another: theirs is used.", _OTHER,
         (_OTHER, _RESULT, _RESULT), ACCEPTED),
        ("two-and-two", "Of four checkers two and two are of one mind.", _RESULT, (_OTHER, _OTHER, _RESULT, _RESULT),
         INCONCLUSIVE),
    ):  # fmt: skip
        work = Work("adaptive:1")
        one = work.call(1, own)
        assert audit_number(NONCE, one.receipts[0].id) * 1_000_000 >= 2**64, "the result is not drawn"
        checks = [work.call(number, each, checks=one.receipts[0].id) for number, each in enumerate(found, 2)]
        if outcome == ACCEPTED:
            told_of = [
                (one, own, executor),
                *((check, each, checker) for check, each in zip(checks, found, strict=True)),
            ]
            findings = [say(p, UPHELD, 13) if each is _RESULT else say(p, REFUTED, 0, 13) for p, each, say in told_of]
        else:
            findings = [executor(one, UNDECIDED, 0, 13), *(checker(check, UNDECIDED, 0, 13) for check in checks)]
        yield told(f"function-adaptive-{words}", about, work, one, outcome, *findings)


def committees() -> Iterator[Told]:
    """Five candidates, of whom two are drawn; each stands for itself."""
    for words, about, claimed, found, outcome, standing in (
        ("for", "The committee comes to the executor's result.", _RESULT, _RESULT, ACCEPTED, UPHELD),
        ("against", "The committee comes to another result.", _OTHER, _RESULT, REJECTED, REFUTED),
    ):
        work, judged = _judged(claimed)
        drawn, _ = _called(work, judged.receipts[-1])
        members = [work.call(number, found, checks=judged.receipts[-1].id) for number in drawn]
        own = executor(judged, standing, *((13, 0) if standing == UPHELD else (0, 13)))
        findings = [own, *(checker(member, UPHELD, 13) for member in members)]
        yield told(f"function-committee-{words}", about, work, judged, outcome, *findings)
    work, judged = _judged(_RESULT)
    drawn, others = _called(work, judged.receipts[-1])
    one, two = (work.call(number, _OTHER, checks=judged.receipts[-1].id) for number in (drawn[0], others[0]))
    findings = [executor(judged, UNDECIDED, 0, 13), checker(one, UNDECIDED, 0, 13), checker(two, UNDECIDED, 0, 13)]
    about = "One of two was not drawn."
    yield told("function-committee-chosen", about, work, judged, INCONCLUSIVE, *findings)
    work, judged = _judged(_RESULT)
    drawn, _ = _called(work, judged.receipts[-1])
    one, two = (work.call(number, _RESULT, checks=judged.receipts[-1].id) for number in drawn)
    work.disown(two)
    findings = [executor(judged, UNDECIDED, 0, 13), checker(one, UNDECIDED, 0, 13), checker(two, UNDECIDED, 0, 13)]
    about = "Both were drawn, and one does not show for whom it works."
    yield told("function-committee-no-mandate", about, work, judged, INCONCLUSIVE, *findings)
    work, judged = _judged(_RESULT, candidates=[NODES[2].key, NODES[1].key, CLIENT.key])
    members = [work.call(number, _RESULT, checks=judged.receipts[-1].id) for number in (2, 3)]
    findings = [executor(judged, UNDECIDED, 0, 13), *(checker(member, UNDECIDED, 0, 13) for member in members)]
    about = "Of three candidates two are parties: there is no committee."
    yield told("function-committee-too-small", about, work, judged, INCONCLUSIVE, *findings)
    yield from _of_texts()


_CANDIDATES = [NODES[number].key for number in range(2, 7)]


def _judged(claimed: dict[str, Any], candidates: list[bytes] | None = None) -> tuple[Work, Part]:
    work = Work("committee:2/2", candidates=_CANDIDATES if candidates is None else candidates)
    return work, work.call(1, claimed)


def _called(work: Work, receipt: Envelope) -> tuple[list[int], list[int]]:
    """Numbers of the nodes that are drawn, and of those that are not."""
    order = work.drawn(receipt, [NODES[1].key, CLIENT.key], len(_CANDIDATES))
    numbers = [next(number for number, node in NODES.items() if node.key == key) for key in order]
    return numbers[:2], numbers[2:]


def _of_texts() -> Iterator[Told]:
    for words, about, shift, outcome, standing in (
        ("for", "Two who were drawn agree.", 0, ACCEPTED, UPHELD),
        ("against", "Two who were drawn agree on other values.", 500, REJECTED, REFUTED),
    ):
        work, part, window = _text(shift)
        drawn, _ = _called(work, window)
        checks = [work.check(number, window, 3, 3) for number in drawn]
        work.open(part, *checks)
        own = executor(part, standing, *((27, 0) if standing == UPHELD else (0, 27)))
        findings = [own, *(checker(check, UPHELD, 12) for check in checks)]
        yield told(f"committee-{words}", about, work, part, outcome, *findings)
    work, part, window = _text(0)
    drawn, others = _called(work, window)
    one, two, three = (work.check(number, window, 3, 3) for number in (*drawn, others[0]))
    findings = [
        executor(part, UPHELD, 27),
        checker(one, UPHELD, 12),
        checker(two, UPHELD, 12),
        checker(three, UNDECIDED, 0, 12),
    ]
    yield told("committee-and-another", "One who was not drawn does not count.", work, part, ACCEPTED, *findings)
    work, part, window = _text(0)
    drawn, others = _called(work, window)
    one, two = work.check(drawn[0], window, 3, 3), work.check(others[0], window, 3, 3)
    findings = [executor(part, UNDECIDED, 0, 27), checker(one, UNDECIDED, 0, 12), checker(two, UNDECIDED, 0, 12)]
    yield told("committee-chosen", "One of two was not drawn.", work, part, INCONCLUSIVE, *findings)
    work = Work("committee:2/2")
    part = work.text(1)
    window = work.window(part, 0, 3, "final", 27)
    checks = [work.check(number, window, 3, 3) for number in (2, 3)]
    findings = [executor(part, UNDECIDED, 0, 27), *(checker(check, UNDECIDED, 0, 12) for check in checks)]
    about = "The order names no candidates: there is no committee."
    yield told("committee-without-candidates", about, work, part, INCONCLUSIVE, *findings)


def _text(shift: int) -> tuple[Work, Part, Envelope]:
    work = Work("committee:2/2", candidates=_CANDIDATES)
    part = work.text(1)
    return work, part, work.window(part, 0, 3, "final", 27, shift=shift)

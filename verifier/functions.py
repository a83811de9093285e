"""Judging a function call from its evidence: several nodes computed the same, as far as their outputs are opened."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.bundle import Tolerance
from ..protocol.checks import Outcome, Standing
from ..protocol.envelope import Signed
from ..protocol.policy import AUDIT, COMMITTEE
from ..protocol.receipts import FINAL, Receipt
from ..protocol.work import Piece
from .case import Case, Part
from .compare import distance_ppm, rows_of
from .quorum import PARTY, Result, Standings, judge_results
from .ruling import UNDECIDED_REASON, Ruling, drawn

OTHER_WORK = "was asked about something else"
NOT_DRAWN = "was not drawn for the committee"
NOT_OPENED = "its result is not opened"
NO_RESULT = "gave no result"
OUTVOTED = "its result is not what the committee came to"


def judge_function(case: Case, executors: Sequence[Part]) -> tuple[Outcome, dict[bytes, Ruling]]:
    """The outcome, and the ruling on each receipt (or on the order that brought none)."""
    policy, first = case.question.policy, executors[0]
    if policy.kind == COMMITTEE:
        return _by_committee(case, first)
    if policy.kind == AUDIT:
        final = _result(first).receipt
        if final and not policy.draws(case.question.nonce, final.id):
            rulings: dict[bytes, Ruling] = {}
            _rule(rulings, first, True, "")
            return Outcome.ACCEPTED, rulings
        return _by_quorum(case, [first, *_asked_about(case, final)])
    return _by_quorum(case, executors)


def _by_quorum(case: Case, members: Sequence[Part]) -> tuple[Outcome, dict[bytes, Ruling]]:
    """Enough of the members have come to one result."""
    judged = [part for part in members if _same_work(part, members)]
    results = [_result(part) for part in judged]
    judgement = judge_results(results, case.question.policy, case.tolerance, _standings(case))
    accepted = judgement.outcome is Outcome.ACCEPTED
    rulings: dict[bytes, Ruling] = {}
    for part in members:
        why = judgement.reasons.get(part.member.node, "") if accepted else UNDECIDED_REASON
        _rule(rulings, part, accepted, why if part in judged else OTHER_WORK)
    return judgement.outcome, rulings


def _by_committee(case: Case, judged: Part) -> tuple[Outcome, dict[bytes, Ruling]]:
    """Members drawn for the executor's receipt have come to one result, and the executor's agrees with it or does not."""
    own = _result(judged)
    strangers = _strangers(case, judged, own.receipt)
    members = [part for part in case.parts if part.order.record.checks is not None]
    asked = [part for part in members if part.order.id not in strangers]
    judgement = judge_results([_result(part) for part in asked], case.question.policy, case.tolerance, _standings(case))
    rulings: dict[bytes, Ruling] = {}
    for part in members:
        reason = judgement.reasons.get(part.member.node, "") if judgement.medoid else UNDECIDED_REASON
        _rule(rulings, part, judgement.medoid is not None, strangers.get(part.order.id, reason))
    if judgement.medoid is None or own.piece is None:
        _rule(rulings, judged, False, UNDECIDED_REASON)
        return Outcome.INCONCLUSIVE, rulings
    agrees = _agrees(own.piece, judgement.medoid, case.tolerance)
    _rule(rulings, judged, True, "" if agrees else OUTVOTED)
    return (Outcome.ACCEPTED if agrees else Outcome.REJECTED), rulings


def _asked_about(case: Case, receipt: Signed[Receipt] | None) -> list[Part]:
    """Those who were given the same call to check an executor's receipt."""
    return [part for part in case.parts if receipt and part.order.record.checks == receipt.id]


def _strangers(case: Case, judged: Part, receipt: Signed[Receipt] | None) -> dict[bytes, str]:
    """Orders to whom it did not fall to judge, and why."""
    called = drawn(case, judged, receipt.id) if receipt else frozenset()
    heard = [part for part in _asked_about(case, receipt) if part.member.owner in called]
    strangers = {part.order.id: OTHER_WORK for part in heard if not _same_work(part, [judged])}
    return {**{part.order.id: NOT_DRAWN for part in case.parts if part not in heard}, **strangers}


def _agrees(own: Piece, majority: Piece, tolerance: Tolerance) -> bool:
    one, other = rows_of(own), rows_of(majority)
    apart = distance_ppm(one, other) if one and other else None
    return apart is not None and apart <= tolerance.value_micro


def _rule(rulings: dict[bytes, Ruling], part: Part, decided: bool, reason: str) -> None:
    """One ruling for everything of a part; `reason` is empty for whoever is borne out."""
    result = _result(part)
    if result.receipt is None:
        ruling = Ruling(Standing.SILENT, NO_RESULT)
    elif not reason:
        ruling = Ruling(Standing.UPHELD, due=True)
    elif result.piece is None:
        ruling = Ruling(Standing.UNDECIDED, NOT_OPENED)
    else:
        blamed = decided and reason not in (OTHER_WORK, NOT_DRAWN, PARTY)
        ruling = Ruling(Standing.REFUTED if blamed else Standing.UNDECIDED, reason)
    rulings[part.order.id] = ruling
    rulings.update({receipt.id: ruling for receipt in part.receipts})


def _same_work(part: Part, others: Sequence[Part]) -> bool:
    """Whether it was asked about what the first of the others was asked about, as far as that is opened."""
    first = next((other.opened for other in others if other.opened), None)
    return first is None or part.opened is None or part.opened.work == first.work


def _standings(case: Case) -> Standings:
    return Standings(case.parties, case.question.anchors)


def _result(part: Part) -> Result:
    """A result is what a final receipt vouches for and is opened."""
    final = part.receipts[-1] if part.receipts and part.receipts[-1].record.end == FINAL else None
    piece = part.opened.pieces[-1] if part.opened and part.opened.pieces else None
    return Result(part.member, final, piece)

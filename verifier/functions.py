"""Judging a function call from its evidence: several nodes computed the same, as far as their outputs are opened."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.checks import Outcome, Standing
from ..protocol.envelope import Signed
from ..protocol.errors import Code, RemoteProtocolError
from ..protocol.limits import QUORUM_MAX
from ..protocol.policy import ADAPTIVE, AUDIT, COMMITTEE
from ..protocol.receipts import FINAL, Receipt
from .case import Case, Part
from .compare import same_arrays
from .quorum import PARTY, FunctionJudgement, Result, Standings, judge_audited, judge_results
from .ruling import UNDECIDED_REASON, Ruling, drawn

OTHER_WORK = "was asked about something else"
BESIDE = "was not asked to judge, nor to be judged"
NOT_DRAWN = "was not drawn for the committee"
NOT_OPENED = "its result is not opened"
NO_RESULT = "gave no result"
RESULTS_MAX = 4 * QUORUM_MAX
"""A quorum and its replacements; each result is compared with each other."""
OUTVOTED = "its result is not what the committee came to"


def judge_function(case: Case, executors: Sequence[Part]) -> tuple[Outcome, dict[bytes, Ruling]]:
    """The outcome, and the ruling on each receipt (or on the order that brought none)."""
    if len(case.parts) > RESULTS_MAX:
        raise RemoteProtocolError(Code.TOO_LARGE, f"A function is judged by at most {RESULTS_MAX} results.")
    policy, first = case.question.policy, executors[0]
    rulings: dict[bytes, Ruling] = {}
    if policy.kind == COMMITTEE:
        outcome = _by_committee(case, first, rulings)
    elif policy.kind not in (AUDIT, ADAPTIVE):
        outcome = _by_quorum(case, executors, rulings)
    elif (final := _result(first).receipt) and not _to_be_judged(case, final):
        outcome = Outcome.ACCEPTED
        rulings |= dict.fromkeys((first.order.id, *(r.id for r in first.receipts)), Ruling(Standing.UPHELD, due=True))
    else:
        outcome = _by_quorum(case, [first, *_asked_about(case, final)], rulings)
    for part in case.parts:
        if part.order.id not in rulings:
            _rule(rulings, part, False, BESIDE)
    return outcome, rulings


def _to_be_judged(case: Case, final: Signed[Receipt]) -> bool:
    """Drawn by chance or, under `adaptive`, asked about beyond that."""
    policy = case.question.policy
    return policy.draws(case.question.nonce, final.id) or (policy.kind == ADAPTIVE and bool(_asked_about(case, final)))


def _by_quorum(case: Case, members: Sequence[Part], rulings: dict[bytes, Ruling]) -> Outcome:
    """Enough of the members have come to one result."""
    judged = [part for part in members if _same_work(part, members)]
    judgement = _judge_audited(case, judged) if case.question.policy.kind == ADAPTIVE else _judge(case, judged)
    accepted = judgement.outcome is Outcome.ACCEPTED
    for part in members:
        _rule(rulings, part, False, OTHER_WORK)
    for part, objection in zip(judged, judgement.objections, strict=True):
        _rule(rulings, part, accepted, objection if accepted else UNDECIDED_REASON)
    return judgement.outcome


def _by_committee(case: Case, judged: Part, rulings: dict[bytes, Ruling]) -> Outcome:
    """Members drawn for the executor's receipt have come to one result, and the executor's agrees with it or does not."""
    own = _result(judged)
    called = drawn(case, judged, own.receipt.id) if own.receipt else frozenset()
    heard = [part for part in _asked_about(case, own.receipt) if part.member.owner in called]
    asked = [part for part in heard if _same_work(part, [judged])]
    judgement = _judge(case, asked)
    decided = judgement.medoid is not None and own.piece is not None
    for part in case.parts:
        if part.order.record.checks is not None:
            _rule(rulings, part, False, OTHER_WORK if part in heard else NOT_DRAWN)
    for part, objection in zip(asked, judgement.objections, strict=True):
        _rule(rulings, part, decided, objection if decided else UNDECIDED_REASON)
    if judgement.medoid is None or own.piece is None:
        _rule(rulings, judged, False, UNDECIDED_REASON)
        return Outcome.INCONCLUSIVE
    agrees = same_arrays(own.piece, judgement.medoid, case.tolerance)
    _rule(rulings, judged, True, "" if agrees else OUTVOTED)
    return Outcome.ACCEPTED if agrees else Outcome.REJECTED


def _judge(case: Case, parts: Sequence[Part]) -> FunctionJudgement:
    who = Standings(case.parties, case.question.anchors)
    return judge_results([_result(part) for part in parts], case.question.policy, case.tolerance, who)


def _judge_audited(case: Case, parts: Sequence[Part]) -> FunctionJudgement:
    """The first of the parts is the executor's, the others checked it."""
    who = Standings(case.parties, case.question.anchors)
    executor, *checks = [_result(part) for part in parts]
    return judge_audited(executor, checks, case.question.policy, case.tolerance, who)


def _asked_about(case: Case, receipt: Signed[Receipt] | None) -> list[Part]:
    """Those who were given the same call to check an executor's receipt."""
    return [part for part in case.parts if receipt and part.order.record.checks == receipt.id]


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
        blamed = decided and reason != PARTY
        ruling = Ruling(Standing.REFUTED if blamed else Standing.UNDECIDED, reason)
    rulings[part.order.id] = ruling
    rulings.update({receipt.id: ruling for receipt in part.receipts})


def _same_work(part: Part, others: Sequence[Part]) -> bool:
    """Whether it was asked about what the first of the others was asked about, as far as that is opened."""
    first = next((other.opened for other in others if other.opened), None)
    return first is None or part.opened is None or part.opened.work == first.work


def _result(part: Part) -> Result:
    """A result is what a final receipt vouches for and is opened."""
    final = part.receipts[-1] if part.receipts and part.receipts[-1].record.end == FINAL else None
    piece = part.opened.pieces[-1] if part.opened and part.opened.pieces else None
    return Result(part.member, final, piece)

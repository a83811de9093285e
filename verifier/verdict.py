"""The verdict that follows from a case: a pure function that anybody can recompute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..protocol.bundle import CALL
from ..protocol.checks import Attestation, Finding, Standing, Verdict
from ..protocol.envelope import Signed
from ..protocol.errors import Code, Refused, RemoteProtocolError
from ..protocol.identity import CHECKER, EXECUTOR
from ..protocol.limits import EVIDENCE_MAX, FINDINGS_MAX, TEXT_BYTES_MAX
from ..protocol.opening import Opening
from ..protocol.orders import JobOrder
from ..protocol.policy import Policy
from ..protocol.receipts import Receipt
from .case import Case, Part, Question, gather
from .functions import judge_function
from .quorum import SILENT
from .ruling import Ruling
from .text import judge_text

_WORST = (Standing.UPHELD, Standing.SILENT, Standing.UNDECIDED, Standing.REFUTED)
CONTRADICTS = "signed two different records where it may sign one"


def judge(case: Case) -> Verdict:
    """What the evidence supports: about the work as a whole, and about each member.

    Raises `RemoteProtocolError(bad_record)` if nothing in the evidence could be judged, or more members than a verdict names.
    """
    executors = [part for part in case.parts if part.order.record.checks is None]
    if not executors:
        raise RemoteProtocolError(Code.BAD_RECORD, "The evidence holds no order for the work itself.")
    is_function = executors[0].order.record.entry == CALL
    outcome, rulings = judge_function(case, executors) if is_function else judge_text(case, executors)
    findings = _findings(case, rulings)
    anchors = sorted({part.member.owner for part in case.parts if part.member.owner} & case.question.anchors)
    question = case.question
    return Verdict(
        subject=executors[0].order.id,
        bundle=question.bundle,
        policy=str(question.policy),
        commitment_nonce=question.nonce,
        anchors=tuple(anchors),
        outcome=str(outcome),
        findings=findings,
    )


def same(one: Verdict, other: Verdict) -> bool:
    """Whether two verdicts say the same: the reasons that they give to people may be worded as each verifier likes."""
    return _without_reasons(one) == _without_reasons(other)


def _without_reasons(verdict: Verdict) -> Verdict:
    return replace(verdict, findings=tuple(replace(finding, reason="") for finding in verdict.findings))


def recompute(verdict: Verdict, records: Iterable[Signed[Any]], openings: Iterable[Opening] = ()) -> Verdict:
    """The verdict that follows from what `verdict` names, by its policy and anchors: to be held against it by `same`.

    What was signed later by those whom it judges does not change it. Raises `RemoteProtocolError` if the evidence is not all
    that the verdict rests on: a record that it names is missing, or what was asked and answered is not opened and the
    verdict cannot be borne out without.
    """
    kept = {signed.id: signed for signed in records}
    subject = kept.get(verdict.subject)
    named = {id for finding in verdict.findings for id in finding.evidence}
    if subject is None or not isinstance(subject.record, JobOrder) or not named <= kept.keys():
        raise RemoteProtocolError(Code.BAD_RECORD, "Not every record that the verdict names is among the evidence.")
    try:
        policy = Policy.parse(verdict.policy)
    except Refused as error:
        raise RemoteProtocolError(Code.BAD_RECORD, error.message) from None
    question = Question(subject.signer, verdict.bundle, policy, verdict.commitment_nonce, frozenset(verdict.anchors))
    answers = (Receipt, Attestation)
    rests_on = [signed for signed in kept.values() if signed.id in named or not isinstance(signed.record, answers)]
    case = gather(question, rests_on, openings)
    found = judge(case)
    if not same(found, verdict) and any(part.receipts and part.opened is None for part in case.parts):
        raise RemoteProtocolError(
            Code.BAD_RECORD, "The verdict rests on what was asked and answered, which is not opened."
        )
    return found


@dataclass(slots=True)
class _Account:
    """What comes together about one member in one role."""

    owner: bytes
    standing: Standing = Standing.UPHELD
    reason: str = ""
    evidence: set[bytes] = field(default_factory=set)
    due_for: set[bytes] = field(default_factory=set)
    due_ucr: int = 0
    withheld_ucr: int = 0

    def judge(self, standing: Standing, reason: str) -> None:
        """One ruling more: of several the worst stands, and of equals the reason that sorts first."""
        mine, other = (_WORST.index(self.standing), self.reason), (_WORST.index(standing), reason)
        if other[0] > mine[0] or (other[0] == mine[0] and other[1] < mine[1]):
            self.standing, self.reason = standing, reason


def _findings(case: Case, rulings: Mapping[bytes, Ruling]) -> tuple[Finding, ...]:
    """One for each member and role; `rulings` are by the id of the order's receipt, or of the order that brought none."""
    accounts: dict[tuple[str, bytes], _Account] = {}
    for part in case.parts:
        role = EXECUTOR if part.order.record.checks is None else CHECKER
        account = accounts.setdefault((role, part.member.node), _Account(part.member.owner or part.member.node))
        _settle(account, part, rulings)
    if len(accounts) > FINDINGS_MAX:
        raise RemoteProtocolError(Code.TOO_LARGE, f"A verdict names at most {FINDINGS_MAX} members.")
    return tuple(
        Finding(
            node,
            account.owner,
            role,
            str(account.standing),
            account.reason[: TEXT_BYTES_MAX // 4],
            _bounded(account.evidence),
            _bounded(account.due_for),
            account.due_ucr,
            account.withheld_ucr,
        )
        for (role, node), account in sorted(accounts.items())
    )


def _settle(account: _Account, part: Part, rulings: Mapping[bytes, Ruling]) -> None:
    """Each receipt of the part is due or withheld, by its ruling."""
    if part.attestation is not None:
        account.evidence.add(part.attestation.id)
    if not part.receipts:
        ruling = rulings.get(part.order.id, Ruling(Standing.SILENT, SILENT))
        account.judge(ruling.standing, ruling.reason)
    for receipt in part.receipts:
        ruling = rulings[receipt.id]
        account.judge(ruling.standing, ruling.reason)
        account.evidence.add(receipt.id)
        if ruling.due:
            account.due_for.add(receipt.id)
            account.due_ucr += part.added_ucr(receipt)
        else:
            account.withheld_ucr += part.added_ucr(receipt)
    if part.equivocal:
        account.evidence.update(signed.id for signed in part.equivocal)
        account.judge(Standing.REFUTED, CONTRADICTS)


def _bounded(ids: Iterable[bytes]) -> tuple[bytes, ...]:
    chosen = tuple(sorted(ids))
    if len(chosen) > EVIDENCE_MAX:
        raise RemoteProtocolError(Code.TOO_LARGE, f"A verdict names at most {EVIDENCE_MAX} records of one member.")
    return chosen

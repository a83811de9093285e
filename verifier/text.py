"""Judging a text from its evidence: window by window, and then whether accepted windows lead from its beginning to its end."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from ..protocol.bundle import SCORE
from ..protocol.checks import Outcome, Standing
from ..protocol.envelope import Signed
from ..protocol.policy import ADAPTIVE, COMMITTEE
from ..protocol.receipts import CANCELLED, FINAL, Receipt
from .case import Case, Part
from .quorum import PARTY, SILENT, Check, Judgement, Standings, Window, judge_window
from .ruling import UNDECIDED_REASON, Ruling, drawn

UNCHECKED = "nobody was asked about it"
UNBACKED = "it covers no token, and another window of its node was refuted"
BESIDE = "was not asked about a window of this text, or not drawn to be asked"


@dataclass(frozen=True, slots=True)
class _Judged:
    """One window, where it stands in the sequence, and what became of it."""

    part: Part
    receipt: Signed[Receipt]
    checks: tuple[Part, ...]
    judgement: Judgement
    due: bool
    """Accepted, or not to be checked."""
    judged: bool = True
    """By checks; else it is taken as it is."""

    @property
    def start(self) -> int:
        """Absolute position of its first token."""
        return self.part.order.record.input_tokens + self.receipt.record.first_token

    @property
    def end(self) -> int:
        return self.start + self.receipt.record.tokens

    @property
    def checked_from(self) -> int:
        """Absolute position from which on everybody who confirms the window confirms what leads to it, too."""
        claims = [
            check.order.record.planned_tokens
            for check in self.checks
            if check.attestation and check.member.node not in self.judgement.reasons
        ]
        confirmed = bool(claims) and self.judgement.outcome is Outcome.ACCEPTED and self.judgement.carried_good
        return self.end - min(claims) if confirmed else self.start


def judge_text(case: Case, executors: Sequence[Part]) -> tuple[Outcome, dict[bytes, Ruling]]:
    """The outcome, and the ruling on each receipt (or on the order that brought none)."""
    windows = {receipt.id: _judged(case, part, receipt) for part in executors for receipt in part.receipts}
    if case.question.policy.kind == ADAPTIVE:
        _doubt_what_follows(executors, windows)
    refuted = {window.part.member.node for window in windows.values() if window.judgement.outcome is Outcome.REJECTED}
    rulings: dict[bytes, Ruling] = {}
    for window in windows.values():
        rulings[window.receipt.id] = _on_executor(window, refuted)
        for check in window.checks:
            _rule(rulings, check, _on_checker(case, window, check))
    for part in case.parts:
        if part.order.record.checks is not None and part.order.id not in rulings:
            _rule(rulings, part, Ruling(Standing.UNDECIDED, BESIDE))
    beginning = executors[0].order.record.input_tokens
    if any(_leads_back(window, windows, beginning) for window in windows.values() if _ends_text(window)):
        return Outcome.ACCEPTED, rulings
    rejected = any(window.judgement.outcome is Outcome.REJECTED for window in windows.values())
    return Outcome.REJECTED if rejected else Outcome.INCONCLUSIVE, rulings


def _doubt_what_follows(executors: Sequence[Part], windows: dict[bytes, _Judged]) -> None:
    """After a window that was refuted, nothing of the same order is taken as it is: it was written on a lie."""
    for part in executors:
        refuted = False
        for receipt in part.receipts:
            window = windows[receipt.id]
            if refuted and not window.judged and receipt.record.tokens:
                undecided = Judgement(Outcome.INCONCLUSIVE, {})
                windows[receipt.id] = replace(window, judgement=undecided, due=False)
            refuted |= window.judgement.outcome is Outcome.REJECTED


def _judged(case: Case, part: Part, receipt: Signed[Receipt]) -> _Judged:
    checks = tuple(check for check in case.parts if _is_about(check, part, receipt))
    policy = case.question.policy
    if receipt.record.tokens == 0:
        return _Judged(
            part, receipt, (), Judgement(Outcome.ACCEPTED, {}), True, policy.draws(case.question.nonce, receipt.id)
        )
    # What a client under `adaptive` has asked about beyond the draw is judged like what was drawn.
    if not policy.draws(case.question.nonce, receipt.id) and not (policy.kind == ADAPTIVE and checks):
        return _Judged(part, receipt, checks, Judgement(Outcome.ACCEPTED, {}), True, judged=False)
    if policy.kind == COMMITTEE:
        called = drawn(case, part, receipt.id)
        checks = tuple(check for check in checks if check.member.owner in called)
    window = Window(
        receipt,
        part.member,
        tuple(Check(check.member, check.order.record.planned_tokens, check.attestation) for check in checks),
        part.order.record.parameters.top_p_ppm,
    )
    who = Standings(case.parties, case.question.anchors)
    judgement = judge_window(window, policy, case.tolerance, who)
    if judgement.outcome is Outcome.REJECTED and not _shown(part, checks, judgement):
        judgement = Judgement(Outcome.INCONCLUSIVE, {})
    return _Judged(part, receipt, checks, judgement, judgement.outcome is Outcome.ACCEPTED)


def _shown(part: Part, checks: Sequence[Part], judgement: Judgement) -> bool:
    """Whether those who refute the window are shown to have been given its very tokens: nobody is refuted by the checks of
    something else."""
    accusers = [check for check in checks if check.member.node not in judgement.reasons]
    return part.opened is not None and all(check.opened is not None for check in accusers)


def _is_about(check: Part, part: Part, receipt: Signed[Receipt]) -> bool:
    """Whether a checker was asked about this window, and, as far as both are opened, given the very tokens of it."""
    order, record = check.order.record, receipt.record
    end = part.order.record.input_tokens + record.first_token + record.tokens
    if order.entry != SCORE or order.checks != receipt.id:
        return False
    if order.planned_tokens < record.tokens or order.input_tokens + order.planned_tokens != end:
        return False
    if replace(order.parameters, max_tokens=0) != replace(part.order.record.parameters, max_tokens=0):
        return False
    if check.opened is None or part.opened is None:
        return True
    tokens = part.opened.work.sequences[0] + part.opened.tokens
    return check.opened.work.sequences[0] == tokens[:end]


def _on_executor(window: _Judged, refuted: Set[bytes]) -> Ruling:
    if not window.receipt.record.tokens and window.part.member.node in refuted:
        # Nothing that was checked stands behind it, and its signer's word does not count here any more.
        return Ruling(Standing.UNDECIDED, UNBACKED)
    if window.due:
        return Ruling(Standing.UPHELD, due=True)
    if window.judgement.outcome is Outcome.REJECTED:
        return Ruling(Standing.REFUTED, window.judgement.reasons[window.part.member.node])
    return Ruling(Standing.UNDECIDED, UNDECIDED_REASON if window.checks else UNCHECKED)


def _on_checker(case: Case, window: _Judged, check: Part) -> Ruling:
    parties = case.parties | window.part.member.keys
    if check.attestation is None:
        return Ruling(Standing.SILENT, SILENT)
    if not parties.isdisjoint(check.member.keys):
        return Ruling(Standing.UNDECIDED, PARTY)
    if window.judgement.outcome is Outcome.INCONCLUSIVE:
        return Ruling(Standing.UNDECIDED, UNDECIDED_REASON)
    reason = window.judgement.reasons.get(check.member.node)
    return Ruling(Standing.REFUTED, reason) if reason else Ruling(Standing.UPHELD, due=True)


def _rule(rulings: dict[bytes, Ruling], check: Part, ruling: Ruling) -> None:
    rulings[check.order.id] = ruling
    rulings.update({receipt.id: ruling for receipt in check.receipts})


def _ends_text(window: _Judged) -> bool:
    """The text may end here: the model or the order ended it, or the client had enough of what came."""
    record = window.receipt.record
    came = record.tokens > 0 or record.previous is not None
    return record.end == FINAL or (record.end == CANCELLED and came)


def _leads_back(window: _Judged, windows: dict[bytes, _Judged], beginning: int) -> bool:
    """Whether every token from the text's beginning to this window's end is borne out."""
    covered = window.end
    while window.due:
        record, order = window.receipt.record, window.part.order.record
        if record.sequence:
            window = windows[window.part.receipts[record.sequence - 1].id]
            continue
        # Tokens for which an executor that left did not sign any more are covered by the check of the next one that wrote some.
        if record.tokens:
            covered = window.checked_from if window.judged else beginning
        before = windows.get(order.continues.receipt) if order.continues else None
        if before is None:
            return covered <= beginning
        if not covered <= before.end <= window.start or before.part.order.record.created_ms > order.created_ms:
            return False
        window = before
    return False

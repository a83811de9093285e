"""Judging a text from its evidence: window by window, and then whether accepted windows lead from its beginning to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..protocol.bundle import SCORE
from ..protocol.checks import Outcome, Standing
from ..protocol.envelope import Signed
from ..protocol.policy import COMMITTEE
from ..protocol.receipts import CANCELLED, FINAL, Receipt
from .case import Case, Part
from .quorum import PARTY, SILENT, Check, Judgement, Standings, Window, judge_window
from .ruling import UNDECIDED_REASON, Ruling, drawn

UNCHECKED = "nobody was asked about it"


@dataclass(frozen=True, slots=True)
class _Judged:
    """One window, where it stands in the sequence, and what became of it."""

    part: Part
    receipt: Signed[Receipt]
    checks: tuple[Part, ...]
    judgement: Judgement
    due: bool
    """Accepted, or not to be checked."""

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
    rulings: dict[bytes, Ruling] = {}
    liars = {window.part.order.id for window in windows.values() if window.judgement.outcome is Outcome.REJECTED}
    honest = [part for part in executors if part.order.id not in liars]
    for window in windows.values():
        rulings[window.receipt.id] = _on_executor(window, executors, honest)
        for check in window.checks:
            _on_checker(rulings, window, check)
    beginning = executors[0].order.record.input_tokens
    if any(_leads_back(window, windows, beginning, case) for window in windows.values() if _ends_text(window)):
        return Outcome.ACCEPTED, rulings
    rejected = any(window.judgement.outcome is Outcome.REJECTED for window in windows.values())
    return Outcome.REJECTED if rejected else Outcome.INCONCLUSIVE, rulings


def _judged(case: Case, part: Part, receipt: Signed[Receipt]) -> _Judged:
    checks = tuple(check for check in case.parts if _is_about(check, part, receipt))
    policy = case.question.policy
    if receipt.record.tokens == 0 or not policy.draws(case.question.nonce, receipt.id):
        return _Judged(part, receipt, checks, Judgement(Outcome.ACCEPTED, {}), True)
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
    return _Judged(part, receipt, checks, judgement, judgement.outcome is Outcome.ACCEPTED)


def _is_about(check: Part, part: Part, receipt: Signed[Receipt]) -> bool:
    """Whether a checker was asked about this window, and, as far as both are opened, given the very tokens of it."""
    order = check.order.record
    if order.entry != SCORE or order.checks != receipt.id:
        return False
    if replace(order.parameters, max_tokens=0) != replace(part.order.record.parameters, max_tokens=0):
        return False
    if check.opened is None or part.opened is None:
        return True
    start = part.order.record.input_tokens
    tokens = part.opened.work.sequences[0] + part.opened.tokens
    end = start + receipt.record.first_token + receipt.record.tokens
    return check.opened.work.sequences[0] == tokens[:end]


def _on_executor(window: _Judged, executors: Sequence[Part], honest: Sequence[Part]) -> Ruling:
    judgement, node = window.judgement, window.part.member.node
    if window.due:
        return Ruling(Standing.UPHELD, due=True)
    if judgement.outcome is Outcome.REJECTED:
        return Ruling(Standing.REFUTED, judgement.reasons[node])
    if not window.checks and window.part in honest and _taken_back(window, executors):
        # It did what it was asked to; what it was asked to go on from was withdrawn.
        return Ruling(Standing.UPHELD, due=True)
    return Ruling(Standing.UNDECIDED, UNDECIDED_REASON if window.checks else UNCHECKED)


def _on_checker(rulings: dict[bytes, Ruling], window: _Judged, check: Part) -> None:
    reason = window.judgement.reasons.get(check.member.node, "")
    if check.attestation is None:
        ruling = Ruling(Standing.SILENT, SILENT)
    elif window.judgement.outcome is Outcome.INCONCLUSIVE or reason == PARTY:
        ruling = Ruling(Standing.UNDECIDED, reason or UNDECIDED_REASON)
    else:
        ruling = Ruling(Standing.REFUTED, reason) if reason else Ruling(Standing.UPHELD, due=True)
    rulings[check.order.id] = ruling
    rulings.update({receipt.id: ruling for receipt in check.receipts})


def _taken_back(window: _Judged, executors: Sequence[Part]) -> bool:
    """Whether the text was written anew, by somebody else, from before this window's end."""
    mine = window.part.order
    return any(
        part.order.record.input_tokens < window.end and part.order.record.created_ms >= mine.record.created_ms
        for part in executors
        if part.order.id != mine.id
    )


def _ends_text(window: _Judged) -> bool:
    """The text may end here: the model or the order ended it, or the client had enough of what came."""
    record = window.receipt.record
    came = record.tokens > 0 or record.previous is not None
    return record.end == FINAL or (record.end == CANCELLED and came)


def _leads_back(window: _Judged, windows: dict[bytes, _Judged], beginning: int, case: Case) -> bool:
    """Whether every token from the text's beginning to this window's end is borne out."""
    while window.due:
        record, order = window.receipt.record, window.part.order.record
        if record.previous is not None:
            window = windows[record.previous]
            continue
        # Tokens for which an executor that left did not sign any more are covered by the next one's check.
        drawn_for_check = case.question.policy.draws(case.question.nonce, window.receipt.id)
        covered = window.checked_from if drawn_for_check else beginning
        before = windows.get(order.continues.receipt) if order.continues else None
        if before is None:
            return covered <= beginning
        if not covered <= before.end <= window.start or before.part.order.record.created_ms > order.created_ms:
            return False
        window = before
    return False

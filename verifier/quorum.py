"""Judging a quorum: k distinct owners have to come to the same result.

Text: one executor generates; checkers teacher-force its windows. Functions: every member computes. A member that gave
nothing has not agreed. The result is a pure function of the evidence, whatever order it came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..protocol.bundle import Tolerance
from ..protocol.checks import Attestation, Outcome
from ..protocol.envelope import Signed
from ..protocol.errors import Code, Refused
from ..protocol.limits import QUORUM_MAX
from ..protocol.receipts import Receipt
from ..protocol.work import Piece
from .compare import Rows, choice_disagreement, distance_ppm, rows_of, values_disagreement


@dataclass(frozen=True, slots=True)
class Policy:
    """`quorum:k/n`, or `none` with k = n = 1."""

    k: int
    n: int

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Raises `Refused(unsatisfiable_assurance)` unless `text` is `none` or `quorum:K/N` with a majority K of N."""
        if text == "none":
            return cls(1, 1)
        kind, _, numbers = text.partition(":")
        k, _, n = numbers.partition("/")
        if kind != "quorum" or not all(len(digits) <= 2 and digits.isdecimal() for digits in (k, n)):
            raise Refused(Code.UNSATISFIABLE_ASSURANCE, f"{text[:80]!r} is no assurance; say none or quorum:2/3.")
        if not int(n) // 2 < int(k) <= int(n) <= QUORUM_MAX or int(n) < 2:
            raise Refused(
                Code.UNSATISFIABLE_ASSURANCE,
                f"{text!r} cannot be held: K must be more than half of N, and N from 2 to {QUORUM_MAX}.",
            )
        return cls(int(k), int(n))

    @property
    def checked(self) -> bool:
        """Whether anybody but the executor looks at the work."""
        return self.n > 1

    def __str__(self) -> str:
        return f"quorum:{self.k}/{self.n}" if self.checked else "none"


@dataclass(frozen=True, slots=True)
class Member:
    """A node and the owner that its mandate names. Quorums count owners."""

    node: bytes
    owner: bytes


@dataclass(frozen=True, slots=True)
class Window:
    """The evidence about one window of a text: the executor's receipt, and each checker's attestation or None."""

    receipt: Signed[Receipt]
    executor: Member
    checkers: tuple[tuple[Member, Signed[Attestation] | None], ...]
    carried_values: tuple[int, ...]
    """Proof values of tokens before this window whose executor died before it could sign for them: checked along."""
    top_p_ppm: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome and, for each member, why it does or does not belong to the agreeing majority."""

    outcome: Outcome
    reasons: dict[bytes, str]
    """Node -> reason, for everybody who does not agree with the majority. Empty means all agree."""
    carried_good: bool = True
    """The tokens that nobody signed for were confirmed too."""


def judge_window(window: Window, policy: Policy, tolerance: Tolerance) -> Judgement:
    """Accepted if the executor and agreeing checkers stand for k owners; rejected if k owners agree on other values."""
    objections: dict[bytes, str] = {}
    agreeing, carried_good = {window.executor.owner}, True
    for checker, signed in window.checkers:
        reason, carried = _objection(window, signed, tolerance)
        if reason is None:
            agreeing.add(checker.owner)
            carried_good = carried_good and carried
        else:
            objections[checker.node] = reason
    if len(agreeing) >= policy.k:
        return Judgement(Outcome.ACCEPTED, objections, carried_good)
    objectors = [
        (member, signed.record.values_micro)
        for member, signed in window.checkers
        if signed and signed.record.subject == window.receipt.id
        if member.node in objections and member.owner != window.executor.owner
    ]
    for leader, values in objectors:
        allies = [member for member, other in objectors if not values_disagreement(values, other, tolerance)]
        if len({ally.owner for ally in allies}) >= policy.k:
            return Judgement(Outcome.REJECTED, _outvoted(window, leader, allies, objections))
    return Judgement(Outcome.INCONCLUSIVE, {})


def _outvoted(window: Window, leader: Member, allies: list[Member], objections: dict[bytes, str]) -> dict[bytes, str]:
    """Why everybody but the allies does not belong to the majority; the executor for what its accuser found."""
    others = {member.node for member, _ in window.checkers} - {ally.node for ally in allies}
    reasons = {node: objections.get(node, "confirmed what the majority rejects") for node in others}
    return {**reasons, window.executor.node: objections[leader.node]}


def _objection(window: Window, signed: Signed[Attestation] | None, tolerance: Tolerance) -> tuple[str | None, bool]:
    """Why this checker does not confirm the window (None: it does), and whether it confirms what was carried along."""
    if signed is None:
        return "gave no finding", False
    finding, receipt = signed.record, window.receipt.record
    if finding.subject != window.receipt.id:
        return "its finding is about something else", False
    if len(finding.values_micro) != len(window.carried_values) + len(receipt.values_micro):
        return f"gave {len(finding.values_micro)} proof values, not one for each token", False
    start = len(window.carried_values)
    carried, own = slice(None, start), slice(start, None)
    return (
        _disagreement(receipt.values_micro, finding, own, window.top_p_ppm, tolerance),
        _disagreement(window.carried_values, finding, carried, window.top_p_ppm, tolerance) is None,
    )


def _disagreement(
    claimed: Sequence[int], finding: Attestation, part: slice, top_p_ppm: int, tolerance: Tolerance
) -> str | None:
    values, gaps, masses = finding.values_micro[part], finding.gaps_micro[part], finding.masses_ppm[part]
    return values_disagreement(claimed, values, tolerance) or choice_disagreement(gaps, masses, top_p_ppm, tolerance)


@dataclass(frozen=True, slots=True)
class Result:
    """One member's result of a function call, or None for a member that gave none."""

    member: Member
    receipt: Signed[Receipt] | None
    piece: Piece | None


@dataclass(frozen=True, slots=True)
class FunctionJudgement:
    """As `Judgement`, with the result to use: the member of the majority that is closest to all others of it."""

    outcome: Outcome
    reasons: dict[bytes, str]
    medoid: Piece | None = field(default=None)


def judge_results(results: Sequence[Result], policy: Policy, tolerance: Tolerance) -> FunctionJudgement:
    """Accepted if the largest group of mutually agreeing results stands for k owners; all others are named."""
    reasons = {result.member.node: "gave no result" for result in results}
    rows: dict[bytes, Rows] = {}
    for result in results:
        if result.piece is None or result.receipt is None:
            continue
        if (parsed := rows_of(result.piece)) is None:
            reasons[result.member.node] = "its result is not an array of the promised form"
        else:
            rows[result.member.node] = parsed
    given = sorted((r for r in results if r.member.node in rows), key=lambda result: result.member.node)
    groups = [_group(seed, given, rows, tolerance) for seed in given]
    best = max(groups, key=lambda group: (len({r.member.owner for r in group}), len(group)), default=[])
    if len({result.member.owner for result in best}) < policy.k:
        return FunctionJudgement(Outcome.INCONCLUSIVE, {})
    members = {result.member.node for result in best}
    medoid = min(best, key=lambda one: _spread(one, best, rows))
    for outsider in given:
        if outsider.member.node not in members:
            apart = distance_ppm(rows[outsider.member.node], rows[medoid.member.node])
            reasons[outsider.member.node] = (
                "its result has another shape" if apart is None
                else f"its result lies {apart} ppm from the majority's (at most {tolerance.value_micro})"
            )  # fmt: skip
    return FunctionJudgement(Outcome.ACCEPTED, {n: why for n, why in reasons.items() if n not in members}, medoid.piece)


def _group(seed: Result, given: Iterable[Result], rows: dict[bytes, Rows], tolerance: Tolerance) -> list[Result]:
    """Results that agree with `seed` and with one another: taken in order of their nodes, so that all come to the same."""
    group = [seed]
    for other in given:
        if other is not seed and all(
            _agree(rows[one.member.node], rows[other.member.node], tolerance) for one in group
        ):
            group.append(other)
    return group


def _agree(one: Rows, other: Rows, tolerance: Tolerance) -> bool:
    apart = distance_ppm(one, other)
    return apart is not None and apart <= tolerance.value_micro


def _spread(one: Result, group: Iterable[Result], rows: dict[bytes, Rows]) -> tuple[int, bytes]:
    apart = (distance_ppm(rows[one.member.node], rows[other.member.node]) for other in group)
    return max(distance for distance in apart if distance is not None), one.member.node

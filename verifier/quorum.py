"""Judging the members of a quorum: enough distinct owners have to come to the same result.

Text: one executor generates; checkers teacher-force its windows. Functions: every member computes. A member that gave
nothing has not agreed. The result is a pure function of the evidence, whatever order it came in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ..protocol.bundle import Tolerance
from ..protocol.checks import Attestation, Outcome
from ..protocol.distance import Rows, distance
from ..protocol.envelope import Signed
from ..protocol.policy import ADAPTIVE, COMMITTEE, Policy
from ..protocol.receipts import Receipt
from ..protocol.work import Piece
from .compare import choice_disagreement, numbers_of, rows_of, values_disagreement

PARTY = "is a party to the job"
SILENT = "gave no finding"


@dataclass(frozen=True, slots=True)
class Member:
    """A node and the owner that its mandate names. Quorums count owners."""

    node: bytes
    owner: bytes | None
    """None if it named no mandate that holds: it then counts for nobody."""

    @property
    def keys(self) -> frozenset[bytes]:
        """By which it may be a party to a job."""
        return frozenset({self.node, self.owner} - {None})  # type: ignore[arg-type]  # what is left is no None


@dataclass(frozen=True, slots=True)
class Check:
    """One checker's part: asked about the last `claimed` tokens of what it was given, the window's own among them."""

    member: Member
    claimed: int
    attestation: Signed[Attestation] | None
    """None if it gave none."""


@dataclass(frozen=True, slots=True)
class Window:
    """The evidence about one window of a text."""

    receipt: Signed[Receipt]
    executor: Member
    checks: tuple[Check, ...]
    top_p_ppm: int
    carried_values: tuple[int, ...] | None = None
    """Proof values of tokens before this window whose executor left before it could sign for them, where they are known:
    they are checked along."""


@dataclass(frozen=True, slots=True)
class Standings:
    """Whom a judgement may count: no party to the job among the checkers, and with `+anchor` somebody to rely on."""

    parties: frozenset[bytes] = frozenset()
    """Keys of clients, nodes and owners."""
    anchors: frozenset[bytes] = frozenset()

    def enough(self, owners: Collection[bytes | None], policy: Policy) -> bool:
        """Whether these owners, of one mind, carry a verdict."""
        known = {owner for owner in owners if owner is not None}
        return len(known) >= policy.k and (not policy.anchored or not self.anchors.isdisjoint(known))


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome and, for each member, why it does or does not belong to the agreeing majority."""

    outcome: Outcome
    reasons: dict[bytes, str]
    """Node -> reason, for everybody who does not agree with the majority. Empty means all agree."""
    carried_good: bool = True
    """The tokens that nobody signed for were confirmed too."""

    def fault(self, node: bytes) -> str | None:
        """What is held against a node: why it does not belong to the majority, unless it had no part in the matter."""
        reason = self.reasons.get(node)
        return None if reason in (PARTY, SILENT) else reason


def judge_window(window: Window, policy: Policy, tolerance: Tolerance, who: Standings | None = None) -> Judgement:
    """Accepted if enough owners stand for the executor's values (its own among them, but for a committee); rejected if
    enough owners agree on other values."""
    who = who or Standings()
    parties = who.parties | window.executor.keys
    objections: dict[bytes, str] = {}
    agreeing: set[bytes | None] = set() if policy.kind == COMMITTEE else {window.executor.owner}
    carried_good = True
    checks = _heard(window.checks)
    for check in checks:
        reason, carried = _objection(window, check, tolerance, parties)
        if reason is None:
            agreeing.add(check.member.owner)
            carried_good = carried_good and carried
        else:
            objections[check.member.node] = reason
    objectors = [check for check in checks if _counts(window, check, parties) and check.member.node in objections]
    camps = [[check for check in objectors if not _apart(leader, check, tolerance)] for leader in objectors]
    outnumbered = 0
    if policy.kind == ADAPTIVE and objectors:
        # Once somebody objects, the executor's own word is what is in question: the checkers alone decide, by majority.
        agreeing -= {window.executor.owner}
        outnumbered = max(len(_owners_of(camp)) for camp in camps)
    if who.enough(agreeing, policy) and len(agreeing - {None}) > outnumbered:
        return Judgement(Outcome.ACCEPTED, objections, carried_good)
    for leader, allies in zip(objectors, camps, strict=True):
        owners = _owners_of(allies)
        if who.enough(owners, policy) and (policy.kind != ADAPTIVE or len(owners) > len(agreeing - {None})):
            members = [ally.member.node for ally in allies]
            return Judgement(Outcome.REJECTED, _outvoted(window, leader.member.node, members, objections))
    return Judgement(Outcome.INCONCLUSIVE, {})


def _owners_of(checks: Iterable[Check]) -> set[bytes]:
    return {check.member.owner for check in checks if check.member.owner is not None}


def _heard(checks: Iterable[Check]) -> list[Check]:
    """One check for each node, in the order of their keys: of several, one that brought a finding; of these, the one whose
    envelope's id comes first, so that asking a node again and again changes nothing."""
    by_node: dict[bytes, Check] = {}
    for check in checks:
        other = by_node.get(check.member.node)
        if other is None or _rank(check) < _rank(other):
            by_node[check.member.node] = check
    return [by_node[node] for node in sorted(by_node)]


def _rank(check: Check) -> tuple[bool, bytes]:
    return check.attestation is None, check.attestation.id if check.attestation else b""


def _counts(window: Window, check: Check, parties: frozenset[bytes]) -> bool:
    """Whether the checker gave its figures for this window, all of them, and may."""
    if check.attestation is None or not parties.isdisjoint(check.member.keys):
        return False
    finding, values = check.attestation.record, window.receipt.record.values_micro
    return finding.subject == window.receipt.id and len(finding.values_micro) == check.claimed >= len(values)


def _apart(one: Check, other: Check, tolerance: Tolerance) -> str | None:
    assert one.attestation and other.attestation, "both gave a finding"
    return values_disagreement(one.attestation.record.values_micro, other.attestation.record.values_micro, tolerance)


def _outvoted(window: Window, leader: bytes, allies: list[bytes], objections: dict[bytes, str]) -> dict[bytes, str]:
    """Why everybody but the allies does not belong to the majority; the executor for what its accuser found."""
    others = {check.member.node for check in window.checks} - set(allies)
    reasons = {node: objections.get(node, "confirmed what the majority rejects") for node in others}
    return {**reasons, window.executor.node: objections[leader]}


def _objection(
    window: Window, check: Check, tolerance: Tolerance, parties: frozenset[bytes]
) -> tuple[str | None, bool]:
    """Why this checker does not confirm the window (None: it does), and whether it confirms what was carried along."""
    if check.attestation is None:
        return SILENT, False
    if not parties.isdisjoint(check.member.keys):
        return PARTY, False
    finding, receipt = check.attestation.record, window.receipt.record
    if finding.subject != window.receipt.id:
        return "its finding is about something else", False
    start = check.claimed - len(receipt.values_micro)
    if start < 0 or len(finding.values_micro) != check.claimed:
        return f"gave {len(finding.values_micro)} proof values, not one for each token", False
    head, own = slice(None, start), slice(start, None)
    carried = finding.values_micro[head] if window.carried_values is None else window.carried_values
    return (
        _disagreement(receipt.values_micro, finding, own, window.top_p_ppm, tolerance),
        _disagreement(carried, finding, head, window.top_p_ppm, tolerance) is None,
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
    """The outcome, why each result does not belong to the agreeing majority, and the result to use: that of the majority
    which is closest to all others of it."""

    outcome: Outcome
    objections: tuple[str, ...]
    """One for each result, in the order in which they were given; empty for those of the majority, and if there is none."""
    medoid: Piece | None = field(default=None)


@dataclass(frozen=True, slots=True)
class _Given:
    """A result that can be compared, and its place among those that were given."""

    place: int
    rank: tuple[bytes, bytes]
    member: Member
    piece: Piece
    numerics_class: str
    """By its receipt. Words only follow from it: whoever lies about a result can lie about its class."""


def judge_results(
    results: Sequence[Result], policy: Policy, tolerance: Tolerance, who: Standings | None = None
) -> FunctionJudgement:
    """Accepted if the largest group of mutually agreeing results stands for enough owners; all others are named."""
    who = who or Standings()
    objections = ["gave no result" for _ in results]
    given: list[_Given] = []
    for place, result in sorted(enumerate(results), key=lambda one: _rank_result(one[1])):
        if result.piece is None or result.receipt is None:
            continue
        if not who.parties.isdisjoint(result.member.keys):
            objections[place] = PARTY
        elif numbers_of(result.piece) is None:
            objections[place] = "its result is not an array of the promised form"
        else:
            numerics_class = result.receipt.record.numerics_class
            given.append(_Given(place, _rank_result(result), result.member, result.piece, numerics_class))
    distances = _Distances()
    groups = [_group(seed, given, distances, tolerance) for seed in given]
    best = max(
        groups, key=lambda group: (who.enough(_owners(group), policy), len(_owners(group)), len(group)), default=[]
    )
    if not who.enough(_owners(best), policy):
        return FunctionJudgement(Outcome.INCONCLUSIVE, ("",) * len(results))
    medoid = min(best, key=lambda one: (max(distances.between(one, other) or 0 for other in best), one.rank))
    members = {one.place for one in best}
    for one in given:
        objections[one.place] = "" if one.place in members else _outlier(one, medoid, distances, tolerance)
    return FunctionJudgement(Outcome.ACCEPTED, tuple(objections), medoid.piece)


def judge_audited(
    executor: Result, checks: Sequence[Result], policy: Policy, tolerance: Tolerance, who: Standings | None = None
) -> FunctionJudgement:
    """As `judge_results` for an executor and those who check it, while they are of one mind. Once they are not, the
    executor's own result is what is in question: most of the checkers decide, and it is held against theirs.

    The objections are the executor's first, then the checkers' in their order.
    """
    who = who or Standings()
    together = judge_results([executor, *checks], policy, tolerance, who)
    heard = [check for check in checks if _speaks(check, who)]
    said = zip([executor, *checks], together.objections, strict=True)
    if together.outcome is Outcome.ACCEPTED and not any(why for one, why in said if _speaks(one, who)):
        return together
    undecided = FunctionJudgement(Outcome.INCONCLUSIVE, ("",) * (1 + len(checks)))
    alone = judge_results(checks, policy, tolerance, who)
    best = {c.member.owner for c, why in zip(checks, alone.objections, strict=True) if not why and _speaks(c, who)}
    if alone.medoid is None or executor.piece is None or 2 * len(best) <= len({c.member.owner for c in heard}):
        return undecided
    own, majority = rows_of(executor.piece), rows_of(alone.medoid)
    apart = distance(own, majority) if own and majority else None
    agrees = apart is not None and apart <= tolerance.value_micro
    by = (
        "is no array of the same form"
        if apart is None
        else f"lies {apart} ppm from it (at most {tolerance.value_micro})"
    )
    objection = "" if agrees else f"most checkers came to another result; its own {by}"
    return FunctionJudgement(Outcome.ACCEPTED, (objection, *alone.objections), alone.medoid)


def _speaks(result: Result, who: Standings) -> bool:
    """Whether it gave a result that counts."""
    if result.piece is None or result.receipt is None or not who.parties.isdisjoint(result.member.keys):
        return False
    return numbers_of(result.piece) is not None


def _rank_result(result: Result) -> tuple[bytes, bytes]:
    """By node, then by receipt: whoever has the same results takes them in the same order."""
    return result.member.node, result.receipt.id if result.receipt else b""


def _owners(group: Iterable[_Given]) -> set[bytes]:
    return {one.member.owner for one in group if one.member.owner is not None}


class _Distances:
    """How far results lie apart, each pair computed once, and none where both are the same: a wide output takes seconds."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], int | None] = {}
        self._rows: dict[int, Rows] = {}

    def between(self, one: _Given, other: _Given) -> int | None:
        pair = (min(one.place, other.place), max(one.place, other.place))
        if pair not in self._known:
            same = one.piece == other.piece  # as honest results of one class and one variant are
            self._known[pair] = 0 if same else distance(self._of(one), self._of(other))
        return self._known[pair]

    def _of(self, given: _Given) -> Rows:
        if given.place not in self._rows:
            rows = rows_of(given.piece)
            assert rows is not None, "what is given has numbers"
            self._rows[given.place] = rows
        return self._rows[given.place]


def _group(seed: _Given, given: Iterable[_Given], distances: _Distances, tolerance: Tolerance) -> list[_Given]:
    """Results that agree with `seed` and with one another."""
    group = [seed]
    for other in given:
        apart = (distances.between(one, other) for one in group) if other is not seed else iter([None])
        if all(ppm is not None and ppm <= tolerance.value_micro for ppm in apart):
            group.append(other)
    return group


def _outlier(one: _Given, medoid: _Given, distances: _Distances, tolerance: Tolerance) -> str:
    apart = distances.between(one, medoid)
    if apart is None:
        return "its result has another shape"
    alike = one.numerics_class == medoid.numerics_class and "+" not in one.numerics_class.rpartition("/")[2]
    though = ", though of the same class" if alike else ""
    return f"its result lies {apart} ppm from the majority's (at most {tolerance.value_micro}){though}"

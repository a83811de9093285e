"""A function call: nodes of distinct owners compute it, and what enough of them agree on is the result.

Under a quorum all are asked at once. Under the other policies one is, and its result is checked if its receipt is drawn:
others compute the same, and are compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..node.machine import beside
from ..protocol.bundle import CALL, Manifest, Tolerance
from ..protocol.checks import Outcome, Verdict
from ..protocol.codec import encode
from ..protocol.errors import Code, Refused
from ..protocol.identity import CHECKER, EXECUTOR
from ..protocol.policy import ADAPTIVE, AUDIT, COMMITTEE, Policy, draw
from ..protocol.schema import to_map
from ..protocol.work import Parameters, Piece, Work
from ..verifier.quorum import FunctionJudgement, Result, Standings, judge_audited, judge_results
from .answers import Rejected
from .auditing import subject_of
from .bundles import ClientBundle
from .checking import SECOND_OPINIONS
from .dossier import Dossier
from .history import Kept
from .ordering import Request
from .panel import Panel, Place, open_panel
from .scheduler import Need
from .team import WAIT_S, Team

KEPT_BYTES_MAX = 256 * 1024
"""Of one call's input and result: larger ones are not kept to be looked at later."""


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What the caller asked for: token sequences, or the inputs of a function of arrays."""

    bundle: ClientBundle
    work: Work
    policy: Policy
    amount_ucr_max: int
    preferred: tuple[bytes, ...]
    hedge: int = 1
    """Executors that race for the result."""


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A call whose result others are to be asked for, too."""

    bundle: bytes
    manifest: Manifest
    work: Work
    policy: Policy
    nonce: bytes
    check_commitment: bytes
    amount_ucr_max: int
    region: str
    candidates: tuple[bytes, ...]


async def check_call(team: Team, call: CheckedCall, own: Result) -> tuple[FunctionJudgement, Panel]:
    """Others computed the same, two more of them if the first left it open; who is right is paid.

    The objections are the executor's, then the checkers' in the order of their places. Raises
    `Refused(unsatisfiable_assurance)` if the policy is a committee, and too few candidates were agreed on.
    """
    assert own.receipt is not None
    parties, drawn = {team.desk.wallet.payer, *own.member.keys}, None
    if call.policy.kind == COMMITTEE:
        drawn = frozenset(draw(call.nonce, own.receipt.id, call.candidates, parties, call.policy.n))
    anchors = team.auditor.anchors
    wished = anchors if drawn is None and own.member.owner not in anchors else frozenset()
    request = Request(
        call.bundle, call.manifest, CALL, call.work, Parameters(), 0, call.check_commitment, checks=own.receipt.id,
        opens=(call.nonce, str(call.policy)),
    )  # fmt: skip
    need = Need(
        call.bundle,
        CALL,
        call.work.calls,
        call.work.input_tokens,
        0,
        call.amount_ucr_max,
        avoid_nodes=frozenset({own.member.node}),
        avoid_owners=own.member.keys,
        only_owners=drawn,
        spread_from=frozenset({call.region} - {""}),
    )
    who = Standings(frozenset({team.desk.wallet.payer}), anchors)

    async def judge(panel: Panel) -> FunctionJudgement:
        results, policy, tolerance = [_result(place) for place in panel.places], call.policy, call.manifest.tolerance
        judged = _judge_committee if drawn else judge_audited
        return await beside(lambda: judged(own, results, policy, tolerance, who))

    async with open_panel(team, request, need, WAIT_S) as panel:

        async def decided() -> bool:
            return (await judge(panel)).outcome is not Outcome.INCONCLUSIVE

        judgement = await judge(panel)
        for count in (call.policy.n,) if drawn else (call.policy.n - 1, SECOND_OPINIONS):
            if judgement.outcome is Outcome.INCONCLUSIVE:
                await panel.ask(count, (), decided, wished)
                judgement = await judge(panel)
        if judgement.outcome is Outcome.ACCEPTED:
            judged = zip(panel.places, judgement.objections[1:], strict=True)
            panel.decide({place.node.key for place, objection in judged if not objection})
    return judgement, panel


class CallJob:
    """One call under way."""

    def __init__(self, team: Team, request: CallRequest) -> None:
        self._team = team
        self._request = request
        self.dossier = Dossier(request.bundle.signed, request.policy, team.auditor.anchors)

    async def run(self) -> tuple[Piece, Verdict | None]:
        """The majority's result and the verdict (None if nothing was to be checked).

        Raises `Rejected` if no k owners agree, `Refused(unsatisfiable_assurance)` if there are not so many.
        """
        policy, bundle, work = self._request.policy, self._request.bundle, self._request.work
        need = Need(
            bundle.hash,
            CALL,
            work.calls,
            work.input_tokens,
            0,
            self._request.amount_ucr_max,
            proven=self._team.auditor.proven(policy, bundle.hash),
        )
        await self._team.require_owners((need,), policy)
        request = Request(bundle.hash, bundle.manifest, CALL, work, Parameters(), 0, self.dossier.commitment,
                          opens=self.dossier.opens)  # fmt: skip
        one = policy.kind in (ADAPTIVE, AUDIT, COMMITTEE)
        async with open_panel(self._team, request, need, WAIT_S) as panel:

            async def decided() -> bool:
                return (await self._judge(panel)).outcome is not Outcome.INCONCLUSIVE

            if one or self._request.hedge > 1:
                await panel.race(self._request.hedge, self._request.preferred)
            if one:
                judgement = await self._audit(panel)
            else:
                await panel.ask(policy.n - len(panel.places), self._request.preferred, decided)
                judgement = await self._judge(panel)
            if judgement.outcome is Outcome.ACCEPTED:
                judged = zip(panel.places, judgement.objections, strict=False)
                panel.decide({place.node.key for place, objection in judged if not objection})
        # Where one executor is judged, it is the first who was asked: whoever failed before it has no part in the work.
        for execution in [place.execution for place in panel.places] if one else panel.executions:
            assert execution is not None
            self.dossier.ordered(execution)
        for place in panel.places:
            self._note(place, EXECUTOR)
        self._note_outrun(panel, EXECUTOR)
        return await self._conclude(judgement)

    async def _audit(self, panel: Panel) -> FunctionJudgement:
        """The one executor's result is taken as it is, or checked, as its receipt says."""
        auditor, policy, bundle = self._team.auditor, self._request.policy, self._request.bundle
        if not panel.places:
            return FunctionJudgement(Outcome.INCONCLUSIVE, ())
        (place,) = panel.places
        assert place.final is not None
        assert place.execution is not None
        order = place.execution.order.record
        if policy.kind != COMMITTEE and not auditor.wants(policy, self.dossier.nonce, place.node, order, place.final):
            self._keep(place)
            return FunctionJudgement(Outcome.ACCEPTED, ("",), place.piece)
        call = CheckedCall(
            bundle.hash,
            bundle.manifest,
            self._request.work,
            policy,
            self.dossier.nonce,
            self.dossier.commitment,
            self._request.amount_ucr_max,
            place.node.capability.region,
            place.execution.order.record.candidates,
        )
        judgement, checks = await check_call(self._team, call, _result(place))
        for execution in checks.executions:
            self.dossier.ordered(execution)
        objections = judgement.objections[1:] or ("",) * len(checks.places)
        for check, objection in zip(checks.places, objections, strict=True):
            self._note(check, CHECKER)
            if judgement.outcome is Outcome.ACCEPTED:
                await self._count(check, objection, CHECKER)
        self._note_outrun(checks, CHECKER)
        if judgement.outcome is Outcome.ACCEPTED:
            alone = {one.node.owner for one, objection in zip(checks.places, objections, strict=True) if not objection}
            if not judgement.objections[0] and len(alone) == 1:
                self._keep(place, alone.pop())  # before it counts: what counts can be looked at again
            await self._count(place, judgement.objections[0], EXECUTOR)
        return judgement

    async def _count(self, place: Place, objection: str, role: str) -> None:
        """The result goes into the node's record."""
        auditor = self._team.auditor
        if place.final is None:
            return
        if not objection:
            auditor.passed(place.node, self._request.bundle.hash, place.final, role)
            return
        await auditor.failed(place.node.key, place.node.owner, objection)
        self._team.late.suspect(place.node.owner)

    def _keep(self, place: Place, vouched_by: bytes | None = None) -> None:
        """What was taken unchecked, or on one checker's word, can be looked at later."""
        assert place.final is not None
        assert place.piece is not None
        auditor, receipt = self._team.auditor, place.final.receipt
        work, piece = self._request.work.encode(), place.piece.encode()
        if len(work) + len(piece) > KEPT_BYTES_MAX:
            return
        kept = Kept(
            subject_of(place.node, self._request.bundle.hash, place.final),
            CALL,
            receipt.envelope,
            encode(to_map(Parameters())),
            work,
            piece,
            str(self._request.policy),
            self.dossier.nonce,
            self._team.desk.now_ms(),
        )
        auditor.history.keep(kept, receipt.id, vouched_by)

    async def _judge(self, panel: Panel) -> FunctionJudgement:
        """By what has come so far. Beside the event loop: the largest results take seconds, and silence breaks jobs."""
        results = [_result(place) for place in panel.places]
        policy, tolerance = self._request.policy, self._request.bundle.manifest.tolerance
        who = None
        if policy.checked:
            who = Standings(frozenset({self._team.desk.wallet.payer}), self.dossier.anchors)
        return await beside(lambda: judge_results(results, policy, tolerance, who))

    def _note(self, place: Place, role: str) -> None:
        if place.final is not None:
            receipt = place.final.receipt
            self.dossier.paid(receipt, place.node, role, CALL, place.asked_ucr, place.paid_ucr)

    def _note_outrun(self, panel: Panel, role: str) -> None:
        for place in panel.outrun:
            if place.final is not None:
                receipt = place.final.receipt
                self.dossier.paid_beside(receipt, place.node, role, CALL, place.asked_ucr, place.paid_ucr)

    async def _conclude(self, judgement: FunctionJudgement) -> tuple[Piece, Verdict | None]:
        desk, policy = self._team.desk, self._request.policy
        verdict = await self.dossier.close(desk.wallet, desk.now_ms())
        if self.dossier.verdict is not None:
            self._team.late.ended(self.dossier.verdict)
        if judgement.medoid is not None and (verdict is None or verdict.outcome == Outcome.ACCEPTED):
            return judgement.medoid, verdict
        if verdict is None:
            raise Refused(Code.NO_EXECUTOR, "No node gave a usable result.")
        why = f"Of {policy.n} executors no {policy.k} gave the same result."
        raise Rejected(why, verdict, tuple(self.dossier.receipts), self.dossier.proof())


def _result(place: Place) -> Result:
    return Result(place.member, place.final.receipt if place.final else None, place.piece)


def _judge_committee(
    own: Result, results: Sequence[Result], policy: Policy, tolerance: Tolerance, who: Standings
) -> FunctionJudgement:
    """The committee's own result is used, and the executor's held against it."""
    alone = judge_results(results, policy, tolerance, who)
    if alone.medoid is None:
        return FunctionJudgement(Outcome.INCONCLUSIVE, ("",) * (1 + len(results)))
    held = judge_results([own, Result(results[0].member, results[0].receipt, alone.medoid)], Policy(), tolerance)
    agrees = held.outcome is Outcome.ACCEPTED and not any(held.objections)
    objection = "" if agrees else "its result is not what the committee came to"
    return FunctionJudgement(Outcome.ACCEPTED, (objection, *alone.objections), alone.medoid)

"""A function call: several nodes of distinct owners compute it, and what enough of them agree on is the result."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.bundle import CALL
from ..protocol.checks import Outcome, Verdict
from ..protocol.errors import Code, Refused
from ..protocol.identity import EXECUTOR
from ..protocol.work import Parameters, Piece, Work
from ..verifier.quorum import FunctionJudgement, Policy, Result, judge_results
from .answers import Rejected
from .bundles import ClientBundle
from .evidence import Evidence
from .execution import Request
from .panel import Panel, Place, open_panel
from .scheduler import Need
from .team import WAIT_S, Team


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What the caller asked for, in tokens."""

    bundle: ClientBundle
    sequences: tuple[tuple[int, ...], ...]
    policy: Policy
    amount_ucr_max: int
    preferred: tuple[bytes, ...]


class CallJob:
    """One call under way."""

    def __init__(self, team: Team, request: CallRequest) -> None:
        self._team = team
        self._request = request
        self.evidence = Evidence(request.bundle.hash, request.policy)

    async def run(self) -> tuple[Piece, Verdict | None]:
        """The majority's result and the verdict (None if nothing was to be checked).

        Raises `Rejected` if no k owners agree, `Refused(unsatisfiable_assurance)` if there are not so many.
        """
        policy, bundle, sequences = self._request.policy, self._request.bundle, self._request.sequences
        need = Need(bundle.hash, CALL, len(sequences), sum(map(len, sequences)), 0, self._request.amount_ucr_max)
        await self._team.require_owners((need,), policy)
        request = Request(
            bundle.hash, bundle.manifest, CALL, Work(sequences), Parameters(), 0, self.evidence.commitment
        )
        async with open_panel(self._team, request, need, WAIT_S) as panel:
            await panel.ask(
                policy.n, self._request.preferred, lambda: self._judge(panel).outcome is not Outcome.INCONCLUSIVE
            )
            judgement = self._judge(panel)
            if judgement.outcome is Outcome.ACCEPTED:
                panel.decide({place.node.key for place in panel.places} - judgement.reasons.keys())
        for place in panel.places:
            self._note(place, judgement)
        return await self._conclude(judgement)

    def _judge(self, panel: Panel) -> FunctionJudgement:
        results = [
            Result(place.member, place.final.receipt if place.final else None, place.piece) for place in panel.places
        ]
        return judge_results(results, self._request.policy, self._request.bundle.manifest.tolerance)

    def _note(self, place: Place, judgement: FunctionJudgement) -> None:
        decided = judgement.outcome is Outcome.ACCEPTED
        objection = judgement.reasons.get(place.node.key) if decided else "nothing was decided"
        if place.order is not None:
            self.evidence.ordered(place.order, place.node)
        receipt = place.final.receipt if place.final else None
        self.evidence.find(EXECUTOR, place.node, receipt if decided else None, objection, place.paid_ucr)
        if receipt is not None:
            self.evidence.paid(receipt, place.node, EXECUTOR, CALL, place.asked_ucr, place.paid_ucr)

    async def _conclude(self, judgement: FunctionJudgement) -> tuple[Piece, Verdict | None]:
        desk, policy = self._team.desk, self._request.policy
        verdict = await self.evidence.close(desk.wallet, judgement.outcome, desk.now_ms())
        if judgement.medoid is not None:
            return judgement.medoid, verdict
        if verdict is None:
            raise Refused(Code.NO_EXECUTOR, "No node gave a usable result.")
        why = f"Of {policy.n} executors no {policy.k} gave the same result."
        raise Rejected(why, verdict, tuple(self.evidence.receipts), self.evidence.proof())

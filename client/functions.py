"""A function call: several nodes of distinct owners compute it, and what enough of them agree on is the result."""

from __future__ import annotations

from dataclasses import dataclass

from ..node.machine import beside
from ..protocol.bundle import CALL
from ..protocol.checks import Outcome, Verdict
from ..protocol.errors import Code, Refused
from ..protocol.identity import EXECUTOR
from ..protocol.policy import Policy
from ..protocol.work import Parameters, Piece, Work
from ..verifier.quorum import FunctionJudgement, Result, Standings, judge_results
from .answers import Rejected
from .bundles import ClientBundle
from .dossier import Dossier
from .execution import Request
from .panel import Panel, Place, open_panel
from .scheduler import Need
from .team import WAIT_S, Team


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What the caller asked for: token sequences, or the inputs of a function of arrays."""

    bundle: ClientBundle
    work: Work
    policy: Policy
    amount_ucr_max: int
    preferred: tuple[bytes, ...]


class CallJob:
    """One call under way."""

    def __init__(self, team: Team, request: CallRequest) -> None:
        self._team = team
        self._request = request
        self.dossier = Dossier(request.bundle.signed, request.policy)

    async def run(self) -> tuple[Piece, Verdict | None]:
        """The majority's result and the verdict (None if nothing was to be checked).

        Raises `Rejected` if no k owners agree, `Refused(unsatisfiable_assurance)` if there are not so many.
        """
        policy, bundle, work = self._request.policy, self._request.bundle, self._request.work
        need = Need(bundle.hash, CALL, work.calls, work.input_tokens, 0, self._request.amount_ucr_max)
        await self._team.require_owners((need,), policy)
        request = Request(bundle.hash, bundle.manifest, CALL, work, Parameters(), 0, self.dossier.commitment)
        async with open_panel(self._team, request, need, WAIT_S) as panel:

            async def decided() -> bool:
                return (await self._judge(panel)).outcome is not Outcome.INCONCLUSIVE

            await panel.ask(policy.n, self._request.preferred, decided)
            judgement = await self._judge(panel)
            if judgement.outcome is Outcome.ACCEPTED:
                judged = zip(panel.places, judgement.objections, strict=True)
                panel.decide({place.node.key for place, objection in judged if not objection})
        for execution in panel.executions:
            self.dossier.ordered(execution)
        for place in panel.places:
            self._note(place)
        return await self._conclude(judgement)

    async def _judge(self, panel: Panel) -> FunctionJudgement:
        """By what has come so far. Beside the event loop: the largest results take seconds, and silence breaks jobs."""
        results = [
            Result(place.member, place.final.receipt if place.final else None, place.piece) for place in panel.places
        ]
        policy, tolerance = self._request.policy, self._request.bundle.manifest.tolerance
        who = Standings(frozenset({self._team.desk.wallet.payer})) if policy.checked else None
        return await beside(lambda: judge_results(results, policy, tolerance, who))

    def _note(self, place: Place) -> None:
        if place.final is not None:
            receipt = place.final.receipt
            self.dossier.paid(receipt, place.node, EXECUTOR, CALL, place.asked_ucr, place.paid_ucr)

    async def _conclude(self, judgement: FunctionJudgement) -> tuple[Piece, Verdict | None]:
        desk, policy = self._team.desk, self._request.policy
        verdict = await self.dossier.close(desk.wallet, desk.now_ms())
        if judgement.medoid is not None and (verdict is None or verdict.outcome == Outcome.ACCEPTED):
            return judgement.medoid, verdict
        if verdict is None:
            raise Refused(Code.NO_EXECUTOR, "No node gave a usable result.")
        why = f"Of {policy.n} executors no {policy.k} gave the same result."
        raise Rejected(why, verdict, tuple(self.dossier.receipts), self.dossier.proof())

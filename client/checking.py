"""Having one window of a text checked: distinct owners teacher-force it, and are paid if the judgement bears them out."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.bundle import SCORE
from ..protocol.checks import Outcome
from ..protocol.envelope import Signed
from ..protocol.identity import CHECKER
from ..protocol.policy import Policy
from ..protocol.receipts import Receipt
from ..protocol.work import Work
from ..verifier.quorum import Check, Judgement, Member, Standings, Window, judge_window
from .draft import TextRequest
from .execution import Request
from .panel import Panel, Place, open_panel
from .scheduler import Need
from .team import Team

SECOND_OPINIONS = 2
"""Checkers drawn in addition when the first ones leave it open."""
FIND_CHECKER_S = 1.0
"""The reader's text waits for it."""


@dataclass(frozen=True)
class Claim:
    """A window to be checked: of `tokens`, the last `claimed` are said to be what the model gives."""

    request: TextRequest
    tokens: tuple[int, ...]
    claimed: int
    receipt: Signed[Receipt]
    executor: Member
    carried_values: tuple[int, ...]
    check_commitment: bytes

    def window(self, places: list[Place]) -> Window:
        """The evidence so far."""
        checks = tuple(Check(place.member, self.claimed, place.attestation) for place in places)
        top_p_ppm = self.request.parameters.top_p_ppm
        return Window(self.receipt, self.executor, checks, top_p_ppm, self.carried_values)


async def check_window(team: Team, claim: Claim, policy: Policy) -> tuple[Judgement, Panel]:
    """The window was checked by `policy.n - 1` other owners, and two more if those left it open; who is right is paid."""
    bundle = claim.request.bundle
    work = Work((claim.tokens,), claim.claimed)
    request = Request(
        bundle.hash,
        bundle.manifest,
        SCORE,
        work,
        claim.request.parameters,
        claim.claimed,
        claim.check_commitment,
        checks=claim.receipt.id,
    )
    need = Need(
        bundle.hash,
        SCORE,
        1,
        work.input_tokens,
        claim.claimed,
        claim.request.amount_ucr_max,
        CHECKER,
        frozenset({claim.executor.node}),
        claim.executor.keys,
        claim.tokens,
    )

    who = Standings(frozenset({team.desk.wallet.payer}))

    def judge(panel: Panel) -> Judgement:
        return judge_window(claim.window(panel.places), policy, bundle.manifest.tolerance, who)

    async with open_panel(team, request, need, FIND_CHECKER_S) as panel:

        async def decided() -> bool:
            return judge(panel).outcome is not Outcome.INCONCLUSIVE

        judgement = judge(panel)
        for count in (policy.n - 1, SECOND_OPINIONS):
            if judgement.outcome is Outcome.INCONCLUSIVE:
                await panel.ask(count, (), decided)
                judgement = judge(panel)
        for place in panel.places:
            team.experience.kept.note(place.node.key, bundle.hash, claim.tokens)
        if judgement.outcome is not Outcome.INCONCLUSIVE:
            panel.decide({place.node.key for place in panel.places} - judgement.reasons.keys())
    return judgement, panel

"""Having one window of a text checked: distinct owners teacher-force it, and are paid if the judgement bears them out."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.bundle import SCORE, Manifest
from ..protocol.checks import Outcome
from ..protocol.envelope import Signed
from ..protocol.identity import CHECKER
from ..protocol.policy import COMMITTEE, Policy, draw
from ..protocol.receipts import Receipt
from ..protocol.work import Parameters, Work
from ..verifier.quorum import Check, Judgement, Member, Standings, Window, judge_window
from .ordering import Request
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

    bundle: bytes
    manifest: Manifest
    parameters: Parameters
    tokens: tuple[int, ...]
    claimed: int
    receipt: Signed[Receipt]
    executor: Member
    region: str
    """Where the executor says that it is."""
    carried_values: tuple[int, ...]
    policy: Policy
    nonce: bytes
    check_commitment: bytes
    amount_ucr_max: int
    candidates: tuple[bytes, ...] = ()
    """Of the executor's order: from whom a committee may be drawn."""

    def window(self, places: list[Place]) -> Window:
        """The evidence so far."""
        checks = tuple(Check(place.member, self.claimed, place.attestation) for place in places)
        return Window(self.receipt, self.executor, checks, self.parameters.top_p_ppm, self.carried_values)

    @property
    def work(self) -> Work:
        """What a checker is given."""
        return Work((self.tokens,), self.claimed)

    @property
    def request(self) -> Request:
        """What a checker is asked."""
        return Request(
            self.bundle,
            self.manifest,
            SCORE,
            self.work,
            self.parameters,
            self.claimed,
            self.check_commitment,
            checks=self.receipt.id,
            opens=(self.nonce, str(self.policy)),
        )


async def check_window(team: Team, claim: Claim) -> tuple[Judgement, Panel]:
    """The window was checked by as many other owners as its policy says, and by two more if those left it open; who is
    right is paid.

    Raises `Refused(unsatisfiable_assurance)` if the policy is a committee, and too few candidates were agreed on.
    """
    policy, parties = claim.policy, {team.desk.wallet.payer, *claim.executor.keys}
    drawn = None
    if policy.kind == COMMITTEE:
        drawn = frozenset(draw(claim.nonce, claim.receipt.id, claim.candidates, parties, policy.n))
    first = policy.n if drawn else policy.n - 1
    anchors = team.auditor.anchors
    wished = anchors if drawn is None and claim.executor.owner not in anchors else frozenset()
    who = Standings(frozenset({team.desk.wallet.payer}), anchors)

    def judge(panel: Panel) -> Judgement:
        return judge_window(claim.window(panel.places), policy, claim.manifest.tolerance, who)

    async with open_panel(team, claim.request, need_of(claim, drawn), FIND_CHECKER_S) as panel:

        async def decided() -> bool:
            return judge(panel).outcome is not Outcome.INCONCLUSIVE

        judgement = judge(panel)
        for count in (first,) if drawn else (first, SECOND_OPINIONS):
            if judgement.outcome is Outcome.INCONCLUSIVE:
                await panel.ask(count, (), decided, wished)
                judgement = judge(panel)
        for place in panel.places:
            team.experience.kept.note(place.node.key, claim.bundle, claim.tokens)
        if judgement.outcome is not Outcome.INCONCLUSIVE:
            panel.decide({place.node.key for place in panel.places} - judgement.reasons.keys())
    return judgement, panel


def need_of(claim: Claim, drawn: frozenset[bytes] | None = None) -> Need:
    """Whom a check of the window can be asked of: of `drawn` owners alone, if there are any; of no party to it."""
    return Need(
        claim.bundle,
        SCORE,
        1,
        claim.work.input_tokens,
        claim.claimed,
        claim.amount_ucr_max,
        CHECKER,
        frozenset({claim.executor.node}),
        claim.executor.keys,
        claim.tokens,
        only_owners=drawn,
        spread_from=frozenset({claim.region} - {""}),
    )

"""Checkers are tried in their turn: now and then one is given a transcript with a token changed, and must not confirm it.

What it is given is a window that others have confirmed, so that its true figures are known; the checker has not seen it. The
order looks like any other check's. Who confirms the change, or has other figures for the tokens before it, either did not run
the model, or was given what its executor and a checker of one mind have made up. Two more owners say which: they check the
window as it was. If both bear it out, who was tried is not dealt with again; if both find other figures, those are refuted who
stood by it. Who objects to everything needs no such trap: the two who are drawn then outvote it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import trio

from ..node.machine import chance
from ..protocol.checks import Attestation, Outcome
from ..protocol.errors import FallowError
from ..protocol.identity import CHECKER
from ..protocol.policy import ADAPTIVE, Policy, check_commitment
from ..protocol.work import Work
from ..verifier.audits import MILLION, spot_ppm
from ..verifier.compare import choice_disagreement, values_disagreement
from ..verifier.quorum import Check, Judgement, Standings, judge_window
from .auditing import Auditor, subject_of
from .checking import FIND_CHECKER_S, SECOND_OPINIONS, Claim, need_of
from .execution import execute
from .nodes import Node
from .ordering import Request
from .panel import Panel, Place, collect, open_panel

if TYPE_CHECKING:
    from .team import Team

SAMPLES_MAX = 64
"""Confirmed windows at hand, a few kilobytes each; a busy client's last minute."""
DUE_MAX = 16
"""Checkers waiting to be tried; who finds no room is tried another time."""
BY_CHECKERS = Policy(ADAPTIVE, 2, 2)
"""A sample in doubt is judged so, whatever it was ordered under: the checkers alone decide, by majority."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A window that was confirmed, and by whom."""

    claim: Claim
    checks: tuple[Check, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """Of the last tokens, as everybody had them."""
        return self.claim.receipt.record.values_micro

    @property
    def seen_by(self) -> frozenset[bytes]:
        """Owners of its executor and checkers."""
        members = (self.claim.executor, *(check.member for check in self.checks))
        return frozenset(member.owner for member in members if member.owner is not None)


@dataclass(frozen=True, slots=True)
class Trap:
    """A sample with a token changed."""

    sample: Sample
    tokens: tuple[int, ...]
    changed: int
    """Which of the claimed tokens."""

    @property
    def request(self) -> Request:
        """As any check of the window would be ordered; the receipt that it names is nobody's."""
        work, random = Work((self.tokens,), len(self.sample.values)), chance()
        nonce, policy = random.randbytes(32), str(self.sample.claim.policy)
        return replace(
            self.sample.claim.request,
            work=work,
            planned_tokens=work.claimed,
            check_commitment=check_commitment(nonce, policy),
            checks=random.randbytes(32),
            opens=(nonce, policy),
        )


def changed(sample: Sample, random: Random) -> Trap | None:
    """The sample with one of its claimed tokens changed, for another that stands in it; None if all of them are the same.

    The change is in the first half, so that what follows it is unlikely, too, and no honest checker is caught by a tie.
    """
    tokens, claimed = sample.claim.tokens, len(sample.values)
    at = random.randrange((claimed + 1) // 2)
    place = len(tokens) - claimed + at
    others = sorted(set(tokens) - {tokens[place]})
    if not others:
        return None
    return Trap(sample, (*tokens[:place], random.choice(others), *tokens[place + 1 :]), at)


def doubt(trap: Trap, found: Attestation) -> str | None:
    """Why these figures for it cannot come from running the model, if the sample's do; or None."""
    claim, at = trap.sample.claim, trap.changed
    tolerance, top_p = claim.manifest.tolerance, claim.parameters.top_p_ppm
    if why := values_disagreement(trap.sample.values[:at], found.values_micro[:at], tolerance):
        return f"given a window that others had confirmed, it found other figures: {why}"
    if choice_disagreement(found.gaps_micro[at:], found.masses_ppm[at:], top_p, tolerance) is None:
        return "confirmed a transcript of which a token had been changed"
    return None


def judge_again(sample: Sample, again: list[Place], payer: bytes) -> Judgement:
    """What comes of the sample once these have checked it, too: rejected if they outvote those who confirmed it."""
    window = sample.claim.window(again)
    window = replace(window, checks=(*sample.checks, *window.checks))
    return judge_window(window, BY_CHECKERS, sample.claim.manifest.tolerance, Standings(frozenset({payer})))


class Spots:
    """What checkers are tried by, and who is due."""

    def __init__(self, auditor: Auditor, random: Random) -> None:
        self._auditor = auditor
        self._random = random
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._due: deque[tuple[Node, bytes]] = deque()
        self._news = trio.Event()
        self._trying = trio.Lock()
        self.tried = 0
        self.caught = 0
        """Checkers, by this process."""

    def learn(self, claim: Claim, judgement: Judgement, panel: Panel) -> None:
        """A window was accepted: if nobody objected, others can be tried by it. And chance says who of its checkers is due."""
        believed = [place for place in panel.places if place.believed and place.final is not None]
        if not judgement.reasons and claim.receipt.record.values_micro:
            self._samples.append(Sample(claim, claim.window(panel.places).checks))
        for place in believed:
            assert place.final is not None
            valid = self._auditor.history.valid(subject_of(place.node, claim.bundle, place.final), CHECKER)
            if self._random.randrange(MILLION) < spot_ppm(valid) and len(self._due) < DUE_MAX:
                self._due.append((place.node, claim.bundle))
                self._news.set()

    async def run(self, team: Team) -> None:
        """Tries whoever is due, one after another, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await self.drain(team)

    async def drain(self, team: Team) -> None:
        """Nobody is due any more whom anything at hand could try."""
        async with self._trying:  # who asks while another drains waits until that one is done
            for _ in range(len(self._due)):
                node, bundle = self._due.popleft()
                sample = next((s for s in self._unseen(node, bundle)), None)
                if sample is None:
                    self._due.append((node, bundle))  # until somebody else's window is confirmed
                else:
                    await self._try(team, node, sample)

    def _unseen(self, node: Node, bundle: bytes) -> Sequence[Sample]:
        return [s for s in reversed(self._samples) if s.claim.bundle == bundle and node.owner not in s.seen_by]

    async def _try(self, team: Team, node: Node, sample: Sample) -> None:
        trap = changed(sample, self._random)
        if trap is None:
            return
        place = Place(node)
        try:
            async with execute(team.desk, node, trap.request) as execution:
                place.final = await collect(execution, place)
                assert place.attestation is not None, "a check is complete with its attestation"
                why = doubt(trap, place.attestation.record)
                self.tried += 1
                if why is None:
                    self._auditor.passed(node, sample.claim.bundle, place.final, CHECKER)
                elif await self._stands(team, sample, node):
                    self.caught += 1
                    await self._at_fault(node.key, node.owner, why)
                    team.late.suspect(node.owner)
                    await execution.stop(why)
                    return
                await execution.pay(place.final)
        except* FallowError:
            pass  # it could not be had now: nothing is held against it

    async def _stands(self, team: Team, sample: Sample, tried: Node) -> bool:
        """Whether two owners more have checked the sample, and borne it out; not if they could not be had. It tries nobody any
        more."""
        if sample in self._samples:
            self._samples.remove(sample)
        stands = False
        try:
            stands = await self._borne_out(team, sample, tried)
        except* FallowError as group:
            logging.getLogger(__name__).info("a window in doubt cannot be checked now: %s", group.exceptions[0])
        return stands

    async def _borne_out(self, team: Team, sample: Sample, tried: Node) -> bool:
        """If two owners more outvote those who confirmed the sample, these and its executor are at fault."""
        claim = sample.claim
        need = need_of(claim)
        need = replace(need, avoid_owners=need.avoid_owners | sample.seen_by | {tried.owner})
        async with open_panel(team, claim.request, need, FIND_CHECKER_S) as panel:

            async def all_there() -> bool:
                return len(panel.places) == SECOND_OPINIONS

            await panel.ask(SECOND_OPINIONS, (), all_there)
            panel.decide({place.node.key for place in panel.places})
        judgement = judge_again(sample, panel.places, team.desk.wallet.payer)
        if judgement.outcome is Outcome.REJECTED:
            for member in (claim.executor, *(check.member for check in sample.checks)):
                if (objection := judgement.fault(member.node)) and member.owner:
                    await self._at_fault(member.node, member.owner, objection)
                    team.late.suspect(member.owner)
        return len(panel.places) == SECOND_OPINIONS and not judgement.reasons and judgement.outcome is Outcome.ACCEPTED

    async def _at_fault(self, node: bytes, owner: bytes, why: str) -> None:
        logging.getLogger(__name__).warning("node %s, by spot checks: %s", node.hex()[:8], why)
        await self._auditor.failed(node, owner, why)

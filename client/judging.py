"""Windows of a text, judged in order while the text goes on: what is borne out is verified and paid.

Which of them are checked is drawn from their receipts. Once one is refuted, those of the same owner that were taken unchecked
are looked at, too: the text stands up to the first wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

from ..protocol.bundle import GENERATE, SCORE
from ..protocol.checks import Outcome
from ..protocol.codec import encode
from ..protocol.errors import Code, FallowError, Refused
from ..protocol.identity import CHECKER, EXECUTOR
from ..protocol.schema import to_map
from ..verifier.quorum import Judgement, Member
from .auditing import subject_of
from .checking import Claim, check_window
from .dossier import Dossier
from .draft import Draft, TextRequest
from .events import Receipted
from .execution import Execution
from .history import Kept
from .nodes import Node
from .panel import Panel
from .team import Team


@dataclass
class Attempt:
    """One node's go at a text, from answer position `start`."""

    node: Node
    start: int
    dossier: Dossier
    """What its order commits to."""
    execution: Execution | None = None
    over: trio.Event = field(default_factory=trio.Event)
    """It delivers nothing more; `error` or `leaving` says why, neither means that the text is complete."""
    error: FallowError | None = None
    leaving: str = ""
    unjudged: int = 0
    """Receipts that have not been dealt with."""
    judged: trio.Event = field(default_factory=trio.Event)
    """It is over, and every receipt of it has been dealt with."""
    guilty: bool = False
    """A window of it was rejected: nothing more of it is paid."""
    discarded: bool = False
    """What it writes is not used any more: guilty, built on tokens that were withdrawn, or outrun."""
    gone: trio.Event = field(default_factory=trio.Event)
    """Its stream has ended."""
    outrun: bool = False
    """Another executor of a hedge was quicker."""
    written: int = 0
    """Tokens that it has put into the text."""
    signed: int = 0
    """Those of them for which it gave a receipt that was not refused."""
    paid_ucr: int = 0
    """By vouchers, for all its receipts."""

    @property
    def member(self) -> Member:
        return Member(self.node.key, self.node.owner)


@dataclass(frozen=True)
class Taken:
    """A window of the text that rests on one owner's word: its writer's, or that of the one checker who confirmed it."""

    attempt: Attempt
    receipted: Receipted
    rests_on: bytes

    @property
    def start(self) -> int:
        """Answer position of its first token."""
        return self.attempt.start + self.receipted.receipt.record.first_token


class Judge:
    """Deals with receipts in the order in which they came. With no checks asked for, it only pays."""

    def __init__(
        self, team: Team, request: TextRequest, draft: Draft, dossier: Dossier, on_verified: Callable[[bytes], None]
    ) -> None:
        self._team = team
        self._request = request
        self._draft = draft
        self.dossier = dossier
        self._on_verified = on_verified
        """Called with the executor's key when more of the text can no longer be withdrawn."""
        self._queue, self._waiting = trio.open_memory_channel[tuple[Attempt, Receipted]](math.inf)
        self._open = 0
        self._idle = trio.Event()
        self._idle.set()
        self._standing: list[tuple[int, bytes]] = []
        """(end, id) of the receipts for what now stands in the draft, in the order in which they came."""
        self._taken: list[Taken] = []
        """Of what now stands, in the same order."""
        self._doubted: list[bytes] = []
        """Owners at fault on whose word something may rest that was not looked at yet."""
        self.windows = 0
        self.checked = 0
        """Windows with tokens that were dealt with, and those of them that were checked."""
        self.current: Attempt | None = None
        """The attempt that is writing: what a rejected window stops."""
        self.undecided: FallowError | None = None
        """Why a window could be neither accepted nor rejected, whoever was asked."""

    def submit(self, attempt: Attempt, receipted: Receipted) -> None:
        """A receipt to be dealt with. There are no more of them than windows in the order."""
        attempt.unjudged += 1
        attempt.signed += receipted.receipt.record.tokens
        self._open += 1
        if receipted.receipt.record.tokens and not attempt.discarded:
            self._standing.append((_end(attempt, receipted), receipted.receipt.id))
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._queue.send_nowait((attempt, receipted))

    @property
    def last_receipt(self) -> bytes | None:
        """The one after which the next node goes on; tokens may follow it for which nobody has signed."""
        return self._standing[-1][1] if self._standing else None

    async def idle(self) -> None:
        """Everything submitted has been dealt with."""
        await self._idle.wait()

    async def run(self) -> None:
        """Deals with receipts until cancelled."""
        async for attempt, receipted in self._waiting:
            try:
                try:
                    await self._deal_with(attempt, receipted)
                finally:
                    await self._look_back_at_doubted(attempt)
            except FallowError as error:
                self.undecided = error
                await self._withdraw(attempt)
            attempt.unjudged -= 1
            if attempt.over.is_set() and attempt.unjudged == 0:
                attempt.judged.set()
            self._open -= 1
            if self._open == 0:
                self._idle.set()

    async def _deal_with(self, attempt: Attempt, receipted: Receipted) -> None:
        record = receipted.receipt.record
        end = _end(attempt, receipted)
        if attempt.guilty:
            self._unpaid(attempt, receipted)
        elif attempt.discarded or record.tokens == 0 or not self.dossier.policy.checked:
            # Who signs for no token vouches for none: those before it that nobody signed are left to the next window's check.
            if not attempt.discarded and not self.dossier.policy.checked:
                self._draft.verified = max(self._draft.verified, end)
            await self._pay(attempt, receipted)
        elif self._wanted(attempt, receipted):
            self.windows += 1
            self.checked += 1
            await self._check(attempt, receipted, end)
        else:
            self.windows += 1
            await self._take(attempt, receipted, end)

    def _wanted(self, attempt: Attempt, receipted: Receipted) -> bool:
        """Drawn by its receipt; or tokens lead to it for which nobody signed, and whose writer nobody can hold to them."""
        record = receipted.receipt.record
        auditor, dossier = self._team.auditor, self.dossier
        assert attempt.execution is not None
        order = attempt.execution.order.record
        written = record.first_token + record.tokens
        # The text says whether it ended, not the receipt: its writer chooses what that calls the end.
        unwritten = order.planned_tokens - written if self._draft.ends_at(attempt.start + written) else 0
        return attempt.start + record.first_token > self._draft.verified or auditor.wants(
            dossier.policy, dossier.nonce, attempt.node, order, receipted, unwritten
        )

    async def _take(self, attempt: Attempt, receipted: Receipted, end: int) -> None:
        """Not drawn: the window stands as it is, and can be looked at later."""
        self._taken.append(Taken(attempt, receipted, attempt.node.owner))
        self._keep(attempt, receipted, end, None)
        await self._pay(attempt, receipted)
        self._draft.verified = end
        self._on_verified(attempt.node.key)

    def _keep(self, attempt: Attempt, receipted: Receipted, end: int, vouched_by: bytes | None) -> None:
        """The window can be looked at once who wrote it, or who alone confirmed it, is at fault."""
        claim = self._claim(attempt, receipted, end, receipted.receipt.record.tokens, ())
        subject = subject_of(attempt.node, claim.bundle, receipted)
        kept = Kept(
            subject,
            GENERATE,
            receipted.receipt.envelope,
            encode(to_map(claim.parameters)),
            claim.work.encode(),
            b"",
            str(claim.policy),
            claim.nonce,
            self._team.desk.now_ms(),
        )
        self._team.auditor.history.keep(kept, receipted.receipt.id, vouched_by)

    def _claim(
        self, attempt: Attempt, receipted: Receipted, end: int, claimed: int, carried_values: tuple[int, ...]
    ) -> Claim:
        assert attempt.execution is not None
        return Claim(
            self._request.bundle.hash,
            self._request.bundle.manifest,
            self._request.parameters,
            (*self._request.prompt, *self._draft.tokens[:end]),
            claimed,
            receipted.receipt,
            attempt.member,
            attempt.node.capability.region,
            carried_values,
            self.dossier.policy,
            self.dossier.nonce,
            self.dossier.commitment,
            self._request.amount_ucr_max,
            attempt.execution.order.record.candidates,
        )

    async def _check(self, attempt: Attempt, receipted: Receipted, end: int) -> None:
        draft, start = self._draft, attempt.start + receipted.receipt.record.first_token
        claim = self._claim(attempt, receipted, end, end - draft.verified, tuple(draft.values[draft.verified : start]))
        judgement, panel = await check_window(self._team, claim)
        await self._note_checkers(judgement, panel)
        if judgement.outcome is Outcome.ACCEPTED:
            if panel.alone is not None:  # before it counts: what counts can be looked at again
                self._taken.append(Taken(attempt, receipted, panel.alone))
                self._keep(attempt, receipted, end, panel.alone)
            self._team.auditor.passed(attempt.node, claim.bundle, receipted)
            self._team.spots.learn(claim, judgement, panel)
            await self._pay(attempt, receipted)
            if judgement.carried_good:
                draft.verified = end
                self._on_verified(attempt.node.key)
            else:
                await self._withdraw(attempt)
        elif judgement.outcome is Outcome.REJECTED:
            self._unpaid(attempt, receipted)
            await self._convict(attempt, judgement)
            try:
                await self._look_back(attempt.node.owner)
                await self._withdraw(attempt)
            finally:
                self._team.late.suspect(attempt.node.owner)
        else:
            self._unpaid(attempt, receipted)
            raise Refused(
                Code.REJECTED, "Too few nodes gave a finding that agrees with any other; nothing was accepted."
            )

    async def _convict(self, attempt: Attempt, judgement: Judgement) -> None:
        """Who wrote it is not dealt with any more, and nothing more of it is paid."""
        reason, node = judgement.reasons[attempt.node.key], attempt.node
        await self._team.auditor.failed(node.key, node.owner, reason)
        attempt.guilty = attempt.discarded = True
        attempt.error = Refused(Code.REJECTED, f"A window was rejected: {reason}.")
        if attempt.execution is not None:
            await attempt.execution.stop("a window of it was rejected")

    async def _look_back_at_doubted(self, attempt: Attempt) -> None:
        """What rests on the word of checkers that were refuted has been checked; what does not stand is withdrawn."""
        stood = self._draft.verified
        try:
            while self._doubted:
                await self._look_back(self._doubted[0])
                self._team.late.suspect(self._doubted.pop(0))
        finally:
            while self._doubted:  # it broke off: what could not be looked at here is looked at there
                self._team.late.suspect(self._doubted.pop(0))
        if self._draft.verified < stood:
            await self._withdraw(attempt)

    async def _look_back(self, owner: bytes) -> None:
        """The windows that rest on this owner's word have been checked: the text stands up to the first wrong one."""
        for taken in [one for one in self._taken if one.rests_on == owner]:
            record, start = taken.receipted.receipt.record, taken.start
            claim = self._claim(taken.attempt, taken.receipted, start + record.tokens, record.tokens, ())
            judgement, panel = await check_window(self._team, claim)
            await self._note_checkers(judgement, panel)
            self.checked += 1
            at = self._taken.index(taken)
            if judgement.outcome is Outcome.ACCEPTED and panel.alone is not None:
                self._taken[at] = replace(taken, rests_on=panel.alone)
                self._keep(taken.attempt, taken.receipted, start + record.tokens, panel.alone)
                continue
            del self._taken[at]
            if judgement.outcome is Outcome.ACCEPTED:
                self._team.auditor.history.looked_at(taken.receipted.receipt.id)
                continue
            if judgement.outcome is Outcome.REJECTED and not taken.attempt.guilty:
                await self._convict(taken.attempt, judgement)
                self._doubted.append(taken.attempt.node.owner)
            # What nobody could bear out goes, too: who stood for it is known to have lied.
            self._draft.verified = min(self._draft.verified, start)
            return

    async def _note_checkers(self, judgement: Judgement, panel: Panel) -> None:
        for execution in panel.executions:
            self.dossier.ordered(execution)
        for place in panel.places:
            if place.attestation is not None:
                self.dossier.keep(place.attestation)
                # Known at once, so that the next window is not given to it; the verdict says the same in the end.
                if objection := judgement.fault(place.node.key):
                    await self._team.auditor.failed(place.node.key, place.node.owner, objection)
                    self._doubted.append(place.node.owner)
            if place.final is not None:
                receipt = place.final.receipt
                if place.believed:
                    self._team.auditor.passed(place.node, self._request.bundle.hash, place.final, CHECKER)
                self.dossier.paid(receipt, place.node, CHECKER, SCORE, place.asked_ucr, place.paid_ucr)
        for place in panel.outrun:
            if place.final is not None:
                receipt = place.final.receipt
                self.dossier.paid_beside(receipt, place.node, CHECKER, SCORE, place.asked_ucr, place.paid_ucr)

    async def _withdraw(self, attempt: Attempt) -> None:
        """What is not verified is withdrawn, and whoever writes on top of it stops."""
        self._draft.cut(self._draft.verified)
        self._standing = [(end, receipt) for end, receipt in self._standing if end <= self._draft.verified]
        self._taken = [one for one in self._taken if one.start < self._draft.verified]
        for one in {id(a): a for a in (attempt, self.current) if a}.values():
            one.discarded = True
            one.over.set()
            if one.execution is not None:
                await one.execution.stop("what this was written on, or this itself, was rejected")

    async def _pay(self, attempt: Attempt, receipted: Receipted) -> None:
        assert attempt.execution is not None
        await attempt.execution.pay(receipted)
        attempt.paid_ucr += receipted.added_ucr
        self._note(attempt, receipted, receipted.added_ucr)

    def _unpaid(self, attempt: Attempt, receipted: Receipted) -> None:
        self._note(attempt, receipted, 0)

    def _note(self, attempt: Attempt, receipted: Receipted, paid_ucr: int) -> None:
        self.dossier.paid(receipted.receipt, attempt.node, EXECUTOR, GENERATE, receipted.added_ucr, paid_ucr)


def _end(attempt: Attempt, receipted: Receipted) -> int:
    """Answer position after the last token of the receipt's window."""
    record = receipted.receipt.record
    return attempt.start + record.first_token + record.tokens

"""Windows of a text, judged in order while the text goes on: what is borne out is verified and paid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from ..protocol.bundle import GENERATE, SCORE
from ..protocol.checks import Outcome
from ..protocol.errors import Code, FallowError, Refused
from ..protocol.identity import CHECKER, EXECUTOR
from ..verifier.quorum import Judgement, Member
from .checking import Claim, check_window
from .discovery import Node
from .dossier import Dossier
from .draft import Draft, TextRequest
from .execution import Execution, Receipted
from .panel import Panel
from .team import Team


@dataclass
class Attempt:
    """One node's go at a text, from answer position `start`."""

    node: Node
    start: int
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
    """What it writes is not used any more: guilty, or built on tokens that were withdrawn."""


class Judge:
    """Deals with receipts in the order in which they came. With no checks asked for, it only pays."""

    def __init__(
        self, team: Team, request: TextRequest, draft: Draft, dossier: Dossier, on_verified: Callable[[bytes], None]
    ) -> None:
        self._team = team
        self._request = request
        self._draft = draft
        self._dossier = dossier
        self._on_verified = on_verified
        """Called with the executor's key when more of the text can no longer be withdrawn."""
        self._queue, self._waiting = trio.open_memory_channel[tuple[Attempt, Receipted]](math.inf)
        self._open = 0
        self._idle = trio.Event()
        self._idle.set()
        self._standing: list[tuple[int, bytes]] = []
        """(end, id) of the receipts for what now stands in the draft, in the order in which they came."""
        self.current: Attempt | None = None
        """The attempt that is writing: what a rejected window stops."""
        self.undecided: FallowError | None = None
        """Why a window could be neither accepted nor rejected, whoever was asked."""

    def submit(self, attempt: Attempt, receipted: Receipted) -> None:
        """A receipt to be dealt with. There are no more of them than windows in the order."""
        attempt.unjudged += 1
        self._open += 1
        if not attempt.discarded:
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
                await self._deal_with(attempt, receipted)
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
        elif attempt.discarded or record.tokens == 0 or not self._dossier.policy.checked:
            if not attempt.discarded:
                self._draft.verified = max(self._draft.verified, end)
            await self._pay(attempt, receipted)
        else:
            await self._check(attempt, receipted, end)

    async def _check(self, attempt: Attempt, receipted: Receipted, end: int) -> None:
        draft, start = self._draft, attempt.start + receipted.receipt.record.first_token
        claim = Claim(
            self._request,
            (*self._request.prompt, *draft.tokens[:end]),
            end - draft.verified,
            receipted.receipt,
            Member(attempt.node.key, attempt.node.owner),
            tuple(draft.values[draft.verified : start]),
            self._dossier.commitment,
        )
        judgement, panel = await check_window(self._team, claim, self._dossier.policy)
        await self._note_checkers(judgement, panel)
        if judgement.outcome is Outcome.ACCEPTED:
            await self._pay(attempt, receipted)
            if judgement.carried_good:
                draft.verified = end
                self._on_verified(attempt.node.key)
            else:
                await self._withdraw(attempt)
        elif judgement.outcome is Outcome.REJECTED:
            reason = judgement.reasons[attempt.node.key]
            self._unpaid(attempt, receipted)
            await self._distrust(attempt.node, reason)
            attempt.guilty = True
            attempt.error = Refused(Code.REJECTED, f"A window was rejected: {reason}.")
            await self._withdraw(attempt)
        else:
            self._unpaid(attempt, receipted)
            raise Refused(
                Code.REJECTED, "Too few nodes gave a finding that agrees with any other; nothing was accepted."
            )

    async def _note_checkers(self, judgement: Judgement, panel: Panel) -> None:
        for execution in panel.executions:
            self._dossier.ordered(execution)
        for place in panel.places:
            if place.attestation is not None:
                self._dossier.keep(place.attestation)
                # Known at once, so that the next window is not given to it; the verdict says the same in the end.
                if objection := judgement.fault(place.node.key):
                    await self._distrust(place.node, objection)
            if place.final is not None:
                receipt = place.final.receipt
                self._dossier.paid(receipt, place.node, CHECKER, SCORE, place.asked_ucr, place.paid_ucr)

    async def _withdraw(self, attempt: Attempt) -> None:
        """What is not verified is withdrawn, and whoever writes on top of it stops."""
        self._draft.cut(self._draft.verified)
        self._standing = [(end, receipt) for end, receipt in self._standing if end <= self._draft.verified]
        for one in {id(a): a for a in (attempt, self.current) if a}.values():
            one.discarded = True
            one.over.set()
            if one.execution is not None:
                await one.execution.stop("what this was written on, or this itself, was rejected")

    async def _distrust(self, node: Node, reason: str) -> None:
        desk = self._team.desk
        await desk.wallet.distrust(node.key, node.owner, reason, None, desk.now_ms())

    async def _pay(self, attempt: Attempt, receipted: Receipted) -> None:
        assert attempt.execution is not None
        await attempt.execution.pay(receipted)
        self._note(attempt, receipted, receipted.added_ucr)

    def _unpaid(self, attempt: Attempt, receipted: Receipted) -> None:
        self._note(attempt, receipted, 0)

    def _note(self, attempt: Attempt, receipted: Receipted, paid_ucr: int) -> None:
        self._dossier.paid(receipted.receipt, attempt.node, EXECUTOR, GENERATE, receipted.added_ucr, paid_ucr)


def _end(attempt: Attempt, receipted: Receipted) -> int:
    """Answer position after the last token of the receipt's window."""
    record = receipted.receipt.record
    return attempt.start + record.first_token + record.tokens

"""Audits backwards: once an owner is found at fault, what rests on its word alone is looked at, the newest first: what its
nodes wrote and was taken unchecked, and what one of them alone confirmed. Then judges are asked for what is held of it.

It goes on in the background, and after a restart where it was broken off: what is still to be looked at, or brought before
judges, lies on disk. A result that is found wrong counts as a fault at once, and once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from ..protocol.checks import Outcome, Standing, Verdict
from ..protocol.envelope import Signed, verify_untrusted
from ..protocol.errors import FallowError
from ..protocol.identity import EXECUTOR, cid
from ..protocol.policy import Policy
from ..protocol.receipts import Receipt
from .answers import Proof
from .bundles import Bundles, ClientBundle
from .disputing import Forfeited, settle_disputes
from .history import History, Kept
from .nodes import Node
from .panel import Panel
from .relooking import count, look_again
from .reopening import reopen
from .team import Team

DISPUTES_MAX = 16
"""Verdicts waiting for their judges, each with its proof in memory. What a look back finds beyond that waits on disk."""
WHY = "work of it that had been taken unchecked, or on one checker's word, is wrong"


@dataclass(frozen=True, slots=True)
class _Case:
    """A verdict that is to be brought before judges."""

    verdict: Signed[Verdict]
    proof: Proof
    nodes: Mapping[bytes, Node]
    rows: tuple[bytes, ...] = ()
    """Kept results that wait for it, and for nothing else."""


@dataclass(slots=True)
class _Wrong:
    """What was found wrong of one order's work: the receipts, of which one is enough for judges."""

    bundle: ClientBundle
    kept: Kept
    receipt: Signed[Receipt]
    panel: Panel
    rows: list[bytes]


@dataclass
class Late:
    """What is still to be looked at, and what came of it in this process."""

    history: History

    def __post_init__(self) -> None:
        self._news = trio.Event()
        self._owners: list[bytes] = []
        self._waiting: set[bytes] = set()
        """Owners of whose work some is still under way: looked at once it has ended."""
        self._idle = trio.Event()
        self._idle.set()
        self.wrong: list[bytes] = []
        """Ids of receipts, taken unchecked once, for work that turned out wrong."""
        self.looked_at = 0
        self._disputes: list[_Case] = []
        self.forfeited: list[Forfeited] = []

    def dispute(self, verdict: Signed[Verdict], proof: Proof, nodes: Mapping[bytes, Node]) -> None:
        """Some work has ended with this verdict: whom it refutes forfeits what is held of its pay, if a committee comes to the
        same."""
        for owner in self._waiting:
            self.suspect(owner)
        self._waiting.clear()
        if any(f.standing == Standing.REFUTED and f.role == EXECUTOR for f in verdict.record.findings):
            self._bring(_Case(verdict, proof, nodes))

    def suspect(self, owner: bytes) -> None:
        """A fault of this owner's was proven."""
        self._owners.append(owner)
        self._wake()

    async def idle(self) -> None:
        """Whoever was suspected has been looked at, as far as it could be done now."""
        await self._idle.wait()

    async def run(self, team: Team, bundles: Bundles, verifiers: Mapping[bytes, str]) -> None:
        """Looks until cancelled; first at what a process before this one left."""
        try:
            for owner in self.history.owners_at_fault(team.desk.now_ms()):
                self.suspect(owner)
        except FallowError as error:
            logging.getLogger(__name__).warning("nobody is looked back at for now: %s", error)
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._owners or self._disputes:
                try:
                    if self._disputes:
                        case = self._disputes.pop(0)
                        self.forfeited += await settle_disputes(
                            team.desk, verifiers, case.nodes, case.verdict, case.proof
                        )
                        for row in case.rows:
                            self.history.looked_at(row)
                    else:
                        await self._look_at(team, bundles, self._owners.pop(0))
                except* FallowError as group:  # of a file: what is on it stays, and is gone on with after a restart
                    for each in group.exceptions:
                        logging.getLogger(__name__).warning("a look back was broken off: %s", each)
            self._idle.set()

    def _wake(self) -> None:
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._news.set()

    def _bring(self, case: _Case) -> None:
        if len(self._disputes) < DISPUTES_MAX:
            self._disputes.append(case)
            self._wake()
        else:
            logging.getLogger(__name__).warning("verdict %s is brought before no judges now: %d others wait for theirs",
                                                case.verdict.id.hex()[:8], DISPUTES_MAX)  # fmt: skip

    async def _look_at(self, team: Team, bundles: Bundles, owner: bytes) -> None:
        wrong: dict[bytes, _Wrong] = {}
        for row, kept in self.history.kept(owner, team.desk.now_ms()):
            receipt = verify_untrusted(Receipt, kept.receipt, signer=kept.subject.node)
            if receipt.record.order in team.desk.under_way:
                self._waiting.add(owner)
                continue
            try:
                bundle = await bundles.open(cid(kept.subject.bundle), team.discovery.known(kept.subject.bundle))
                found = await look_again(team, bundle, kept)
            except FallowError as error:
                logging.getLogger(__name__).info("work taken unchecked cannot be looked at now: %s", error)
                continue  # it stays on the disk, for the next time
            self.looked_at += 1
            for other in await count(team, kept.subject.bundle, found):
                self.suspect(other)
            if found.outcome is Outcome.INCONCLUSIVE:
                continue
            if found.outcome is Outcome.ACCEPTED and found.panel.alone is not None:
                self.history.keep(kept, row, found.panel.alone)
                continue
            if found.outcome is Outcome.ACCEPTED:
                self.history.looked_at(row)
                continue
            await self._condemn(team, owner, row, kept)
            order = wrong.setdefault(receipt.record.order, _Wrong(bundle, kept, receipt, found.panel, []))
            order.rows.append(row)
        for each in wrong.values():
            await self._reopen(team, each)

    async def _condemn(self, team: Team, owner: bytes, row: bytes, kept: Kept) -> None:
        """The fault is counted, and what rests on its owner's word is looked at, too."""
        subject = kept.subject
        self.wrong.append(row)
        if not self.history.is_wrong(row):
            await team.auditor.failed(subject.node, subject.owner, WHY, row)
        if subject.owner != owner:
            self.suspect(subject.owner)
        logging.getLogger(__name__).warning("receipt %s of node %s: %s", row.hex()[:8], subject.node.hex()[:8], WHY)

    async def _reopen(self, team: Team, wrong: _Wrong) -> None:
        """Judges are asked for what is held of the order's pay, if anything is; then its results have been looked at."""
        kept, reopened = wrong.kept, None
        try:
            policy = Policy.parse(kept.policy)
            reopened = await reopen(team, wrong.bundle, wrong.receipt, policy, kept.nonce, wrong.panel)
        except FallowError as error:
            logging.getLogger(__name__).warning("no judges can be asked about node %s: %s",
                                                kept.subject.node.hex()[:8], error)  # fmt: skip
        if reopened is None:
            for row in wrong.rows:
                self.history.looked_at(row)
            return
        verdict, dossier = reopened
        nodes = team.discovery.nodes | dossier.nodes
        self._bring(_Case(verdict, dossier.proof(), nodes, tuple(wrong.rows)))

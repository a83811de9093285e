"""Audits backwards: once an owner is found at fault, what rests on its word alone is looked at, the newest first: what its
nodes wrote and was taken unchecked, and what one of them alone confirmed.

It goes on in the background, and after a restart where it was broken off: what is still to be looked at lies on disk, and what
is found wrong goes from there with the fault that it proves, once what is held of its pay is forfeited, if judges say so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from ..protocol.bundle import GENERATE
from ..protocol.checks import Outcome, Standing, Verdict
from ..protocol.envelope import Signed, verify_untrusted
from ..protocol.errors import FallowError
from ..protocol.identity import CHECKER, EXECUTOR, cid
from ..protocol.limits import MESSAGE_BYTES_MAX, PRICE_MAX_UCR
from ..protocol.policy import Policy, check_commitment
from ..protocol.reading import read_untrusted
from ..protocol.receipts import Receipt
from ..protocol.work import Parameters, decode_piece_untrusted, decode_work_untrusted
from ..verifier.quorum import Judgement, Member, Result
from .answers import Proof
from .bundles import Bundles, ClientBundle
from .checking import Claim, check_window
from .disputing import Forfeited, settle_disputes
from .functions import CheckedCall, check_call
from .history import History, Kept
from .nodes import Node
from .panel import Panel
from .reopening import reopen
from .team import Team

DISPUTES_MAX = 16
"""Verdicts waiting for their judges, each with its proof in memory."""


@dataclass
class Late:
    """What is still to be looked at, and what came of it in this process."""

    history: History

    def __post_init__(self) -> None:
        self._news = trio.Event()
        self._owners: list[bytes] = []
        self._idle = trio.Event()
        self._idle.set()
        self.wrong: list[bytes] = []
        """Ids of receipts, taken unchecked once, for work that turned out wrong."""
        self.looked_at = 0
        self._disputes: list[tuple[Signed[Verdict], Proof, Mapping[bytes, Node]]] = []
        self.forfeited: list[Forfeited] = []

    def dispute(self, verdict: Signed[Verdict], proof: Proof, nodes: Mapping[bytes, Node]) -> None:
        """Whom the verdict refutes forfeits what is held of its pay, if a committee comes to the same."""
        refuted = any(f.standing == Standing.REFUTED and f.role == EXECUTOR for f in verdict.record.findings)
        if refuted and len(self._disputes) < DISPUTES_MAX:
            self._disputes.append((verdict, proof, nodes))
            self._idle = trio.Event() if self._idle.is_set() else self._idle
            self._news.set()

    def suspect(self, owner: bytes) -> None:
        """A fault of this owner's was proven."""
        self._owners.append(owner)
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._news.set()

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
                        verdict, proof, nodes = self._disputes.pop(0)
                        self.forfeited += await settle_disputes(team.desk, verifiers, nodes, verdict, proof)
                    else:
                        await self._look_at(team, bundles, verifiers, self._owners.pop(0))
                except* FallowError as group:  # of a file: what is on it stays, and is gone on with after a restart
                    for each in group.exceptions:
                        logging.getLogger(__name__).warning("a look back was broken off: %s", each)
            self._idle.set()

    async def _look_at(self, team: Team, bundles: Bundles, verifiers: Mapping[bytes, str], owner: bytes) -> None:
        for receipt, kept in self.history.kept(owner, team.desk.now_ms()):
            try:
                bundle = await bundles.open(cid(kept.subject.bundle), team.discovery.known(kept.subject.bundle))
                found = await _check(team, bundle, kept)
            except FallowError as error:
                logging.getLogger(__name__).info("work taken unchecked cannot be looked at now: %s", error)
                continue  # it stays on the disk, for the next time
            self.looked_at += 1
            for other in await _count(team, kept.subject.bundle, found):
                self.suspect(other)
            if found.outcome is Outcome.INCONCLUSIVE:
                continue
            if found.outcome is Outcome.ACCEPTED and found.panel.alone is not None:
                self.history.keep(kept, receipt, found.panel.alone)
                continue
            if found.outcome is Outcome.ACCEPTED:
                self.history.looked_at(receipt)
                continue
            self.wrong.append(receipt)
            subject = kept.subject
            self.forfeited += await _forfeit(team, bundle, verifiers, kept, found.panel)
            why = "work of it that had been taken unchecked, or on one checker's word, is wrong"
            await team.auditor.failed(subject.node, subject.owner, why, receipt)
            if subject.owner != owner:
                self.suspect(subject.owner)
            logging.getLogger(__name__).warning("receipt %s of node %s: %s", receipt.hex()[:8],
                                                subject.node.hex()[:8], why)  # fmt: skip


async def _forfeit(
    team: Team, bundle: ClientBundle, verifiers: Mapping[bytes, str], kept: Kept, panel: Panel
) -> list[Forfeited]:
    """Of the pay of work that was found wrong, what is held is forfeited, as far as judges come to the same."""
    node, policy = kept.subject.node, Policy.parse(kept.policy)
    receipt = verify_untrusted(Receipt, kept.receipt, signer=node)
    reopened = await reopen(team, bundle, receipt, policy, kept.nonce, panel)
    if reopened is None:
        return []
    verdict, dossier = reopened
    known = team.discovery.nodes | dossier.nodes
    return await settle_disputes(team.desk, verifiers, known, verdict, dossier.proof())


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of a check."""

    outcome: Outcome
    panel: Panel
    faults: Mapping[bytes, str]
    """Checkers against whom it speaks, by node, and why."""


async def _count(team: Team, bundle: bytes, found: _Found) -> list[bytes]:
    """The checkers' own part is in their records; comes to the owners of those who are at fault."""
    doubted = []
    for place in found.panel.places:
        if (why := found.faults.get(place.node.key)) and place.final is not None:
            await team.auditor.failed(place.node.key, place.node.owner, why)
            doubted.append(place.node.owner)
        elif place.believed and place.final is not None:
            team.auditor.passed(place.node, bundle, place.final, CHECKER)
    return doubted


async def _check(team: Team, bundle: ClientBundle, kept: Kept) -> _Found:
    """A check that belongs to the same work as the receipt."""
    subject, policy = kept.subject, Policy.parse(kept.policy)
    receipt = verify_untrusted(Receipt, kept.receipt, signer=subject.node)
    work, member = decode_work_untrusted(kept.work), Member(subject.node, subject.owner)
    commitment = check_commitment(kept.nonce, kept.policy)
    if kept.entry == GENERATE:
        parameters = read_untrusted(Parameters, kept.parameters, bytes_max=MESSAGE_BYTES_MAX)
        claim = Claim(
            bundle.hash, bundle.manifest, parameters, work.sequences[0], work.claimed, receipt, member, "", (), policy,
            kept.nonce, commitment, PRICE_MAX_UCR,
        )  # fmt: skip
        judgement, panel = await check_window(team, claim)
        return _Found(judgement.outcome, panel, _faults(judgement, panel))
    own = Result(member, receipt, decode_piece_untrusted(kept.piece))
    checked = CheckedCall(bundle.hash, bundle.manifest, work, policy, kept.nonce, commitment, PRICE_MAX_UCR, "", ())
    found, panel = await check_call(team, checked, own)
    if found.outcome is not Outcome.ACCEPTED:
        return _Found(Outcome.INCONCLUSIVE, panel, {})
    outcome = Outcome.REJECTED if found.objections[0] else Outcome.ACCEPTED
    objections = zip(panel.places, found.objections[1:], strict=True)
    return _Found(outcome, panel, {place.node.key: why for place, why in objections if why})


def _faults(judgement: Judgement, panel: Panel) -> dict[bytes, str]:
    nodes = [place.node.key for place in panel.places if place.attestation is not None]
    return {node: why for node in nodes if (why := judgement.fault(node))}

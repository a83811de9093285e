"""What a verdict rests on, gathered while the work goes on."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from ..node.machine import beside, chance
from ..protocol.bundle import Manifest
from ..protocol.checks import Standing, Verdict
from ..protocol.envelope import Signed
from ..protocol.errors import StoreError
from ..protocol.identity import EXECUTOR
from ..protocol.opening import Opening
from ..protocol.orders import JobOrder
from ..protocol.policy import Policy, check_commitment
from ..protocol.receipts import Receipt
from ..verifier.case import Question, gather
from ..verifier.verdict import judge
from .answers import PaidReceipt, Proof
from .execution import Execution
from .nodes import Node
from .wallet import Wallet
from .wallet_cases import PROOF_BYTES_MAX, Case


class Dossier:
    """Signed records and payments of one piece of work under one policy."""

    def __init__(
        self,
        manifest: Signed[Manifest],
        policy: Policy,
        anchors: frozenset[bytes] = frozenset(),
        nonce: bytes | None = None,
    ) -> None:
        """`nonce`: to which orders of the work are committed already; None: it begins now."""
        self.policy = policy
        self.anchors = anchors
        """Owners whom this client relies on."""
        self.nonce = nonce or chance().randbytes(32)
        self.receipts: list[PaidReceipt] = []
        self.verdict: Signed[Verdict] | None = None
        """Once the work is closed, if it was checked."""
        self.unheard = False
        """It should be brought before judges, and there is no room to keep it until they have answered."""
        self._manifest = manifest
        self._executions: dict[bytes, Execution] = {}
        self._recalled: list[Opening] = []
        self._records: dict[bytes, Signed[Any]] = {manifest.id: manifest}

    @property
    def commitment(self) -> bytes:
        """What every order of this work carries; the verdict opens it."""
        return check_commitment(self.nonce, str(self.policy))

    @property
    def opens(self) -> tuple[bytes, str]:
        """What opens it."""
        return self.nonce, str(self.policy)

    def keep(self, *records: Signed[Any]) -> None:
        """The records belong to the proof."""
        for signed in records:
            self._records.setdefault(signed.id, signed)

    def ordered(self, execution: Execution) -> None:
        """The order was sent; whatever comes of it belongs to the work."""
        self._executions[execution.order.id] = execution
        self.keep(execution.node.mandate, execution.order)

    def recall(self, opening: Opening, *records: Signed[Any]) -> None:
        """An order that was answered before this process began, or long ago in it, belongs to the work: with these records."""
        self._recalled.append(opening)
        self.keep(*records)

    def paid(self, receipt: Signed[Receipt], node: Node, role: str, entry: str, amount_ucr: int, paid_ucr: int) -> None:
        """The receipt came, and so much was paid for it."""
        self.keep(receipt)
        self.paid_beside(receipt, node, role, entry, amount_ucr, paid_ucr)

    def paid_beside(
        self, receipt: Signed[Receipt], node: Node, role: str, entry: str, amount_ucr: int, paid_ucr: int
    ) -> None:
        """As `paid`, for what is no part of the work: no verdict rests on it. Who was outrun is paid so."""
        self.receipts.append(PaidReceipt(receipt, node.owner.hex(), role, entry, amount_ucr, paid_ucr))

    async def close(self, wallet: Wallet, now_ms: int) -> Verdict | None:
        """The verdict that follows from all records is signed and kept, and whoever it refutes is not dealt with again.

        None if the policy checks nothing, or nothing was ever ordered.
        """
        if not self.policy.checked or not self._executions:
            return None
        question = Question(wallet.payer, self._manifest.id, self.policy, self.nonce, self.anchors)
        records, openings = self._all(), self._openings()
        # Beside the event loop: the largest functions' results take seconds, and other jobs would fall silent.
        verdict = await beside(lambda: judge(gather(question, records, openings)))
        signed = wallet.sign_verdict(verdict)
        self.keep(signed)
        self.verdict = signed
        self.unheard = not await self._keep(wallet, signed, now_ms)
        for finding in verdict.findings:
            if finding.standing == Standing.REFUTED:
                await wallet.distrust(finding.node, finding.owner, finding.reason, signed.id, now_ms)
        return verdict

    async def _keep(self, wallet: Wallet, verdict: Signed[Verdict], now_ms: int) -> bool:
        """The verdict is on disk; and what judges are to be asked about, if there is room for that."""
        case = await self._case(verdict)
        try:
            kept = await wallet.keep_verdict(verdict, case, now_ms)
        except StoreError:
            if case is None:
                raise
            await wallet.keep_verdict(verdict, None, now_ms)  # it is a thousand times smaller
            kept = False
            with suppress(StoreError):
                kept = await wallet.keep_verdict(verdict, case, now_ms)
        if not kept:
            _log("verdict %s is brought before no judges: it could not be kept until they have answered", verdict)
        return kept

    async def _case(self, verdict: Signed[Verdict]) -> Case | None:
        """What judges are asked about: an executor is refuted, and has agreed to some who may judge its work."""
        refuted = {f.node for f in verdict.record.findings if (f.role, f.standing) == (EXECUTOR, Standing.REFUTED)}
        orders = (signed.record for signed in self._records.values() if isinstance(signed.record, JobOrder))
        channels = [order.channel for order in orders if order.executor in refuted and order.candidates]
        if not channels:
            return None
        proof = self.proof()
        shown = await beside(lambda: proof.file(openings=True))
        if len(shown) > PROOF_BYTES_MAX:
            _log("verdict %s is brought before no judges: its proof is larger than a message may be", verdict)
            return None
        return Case(verdict.id, verdict.envelope, shown, channels[0])

    def proof(self) -> Proof:
        """Every record, in the order in which they came to be, and what they are about in plain."""
        return Proof(tuple(self._all()), tuple(self._openings()))

    def _openings(self) -> list[Opening]:
        return [*self._recalled, *(execution.opening() for execution in self._executions.values())]

    def _all(self) -> list[Signed[Any]]:
        """The records, each order followed by its acceptance."""
        records: list[Signed[Any]] = []
        for signed in self._records.values():
            records.append(signed)
            execution = self._executions.get(signed.id)
            if execution and execution.accept:
                records.append(execution.accept)
        return records


def _log(message: str, verdict: Signed[Verdict]) -> None:
    logging.getLogger(__name__).warning(message, verdict.id.hex()[:8])

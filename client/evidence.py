"""What a verdict rests on, gathered while the work goes on."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from ..protocol.checks import Finding, Outcome, Verdict, check_commitment
from ..protocol.envelope import Signed
from ..protocol.limits import EVIDENCE_MAX, FINDINGS_MAX, TEXT_BYTES_MAX
from ..protocol.receipts import Receipt
from ..verifier.quorum import Policy
from .answers import PaidReceipt, Proof
from .discovery import Node
from .wallet import Wallet


@dataclass
class _Account:
    """What is known of one member of the quorum."""

    node: Node
    role: str
    evidence: list[bytes] = field(default_factory=list)
    agrees: bool = True
    reason: str = ""
    due_ucr: int = 0


class Evidence:
    """Signed records, payments and findings of one piece of work under one policy."""

    def __init__(self, bundle: bytes, policy: Policy) -> None:
        self.policy = policy
        self._bundle = bundle
        self._nonce = secrets.token_bytes(32)
        self._subject: bytes | None = None
        self._accounts: dict[tuple[str, bytes], _Account] = {}
        self._envelopes: dict[bytes, tuple[str, Signed[Any]]] = {}
        self.receipts: list[PaidReceipt] = []

    @property
    def commitment(self) -> bytes:
        """What every order of this work carries; the verdict opens it."""
        return check_commitment(self._nonce, str(self.policy))

    def keep(self, *records: Signed[Any]) -> None:
        """The records belong to the proof."""
        for signed in records:
            self._envelopes.setdefault(signed.id, (type(signed.record).RECORD, signed))

    def ordered(self, order: Signed[Any], node: Node) -> None:
        """The first order is what the verdict is about."""
        self._subject = self._subject or order.id
        self.keep(node.mandate, order)

    def paid(self, receipt: Signed[Receipt], node: Node, role: str, entry: str, amount_ucr: int, paid_ucr: int) -> None:
        """The receipt came, and so much was paid for it."""
        self.keep(receipt)
        self.receipts.append(PaidReceipt(receipt, node.owner.hex(), role, entry, amount_ucr, paid_ucr))

    def find(self, role: str, node: Node, evidence: Signed[Any] | None, objection: str | None, due_ucr: int) -> None:
        """One finding more about a member; `objection` says why it does not belong to the majority."""
        account = self._accounts.setdefault((role, node.key), _Account(node, role))
        account.due_ucr += due_ucr
        if evidence is not None:
            self.keep(evidence)
            account.evidence.append(evidence.id)
        if objection is not None:
            account.agrees, account.reason = False, objection

    async def close(self, wallet: Wallet, outcome: Outcome, now_ms: int) -> Verdict | None:
        """The verdict is signed and kept, and whoever contradicted the majority is not dealt with again.

        None if the policy checks nothing, or nothing was ever ordered.
        """
        if not self.policy.checked or self._subject is None or not self._accounts:
            return None
        verdict = Verdict(self._subject, self._bundle, str(self.policy), self._nonce, str(outcome), self._findings())
        signed = wallet.sign_verdict(verdict)
        self.keep(signed)
        await wallet.keep_verdict(signed)
        for account in self._accounts.values():
            if not account.agrees and account.evidence:
                await wallet.distrust(account.node.key, account.node.owner, account.reason, signed.id, now_ms)
        return verdict

    def proof(self) -> Proof:
        """Every record, in the order in which they came to be."""
        return Proof(tuple(self._envelopes.values()))

    def _findings(self) -> tuple[Finding, ...]:
        found = sorted(self._accounts.values(), key=lambda account: (account.role, account.node.key))
        return tuple(
            Finding(
                account.node.key,
                account.node.owner,
                account.role,
                tuple(account.evidence[:EVIDENCE_MAX]),
                account.agrees,
                account.reason[: TEXT_BYTES_MAX // 4],
                account.due_ucr,
            )
            for account in found[:FINDINGS_MAX]
        )

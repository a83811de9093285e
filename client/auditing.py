"""Which results of a job are looked at, and what follows from it for the next: policies, records and anchors together."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.identity import EXECUTOR
from ..protocol.orders import JobOrder
from ..protocol.policy import ADAPTIVE, Policy, drawn_at
from ..verifier.audits import MILLION, NEWCOMER, audit_ppm
from .deposits import Deposits
from .desk import Desk
from .events import Receipted
from .history import History, Subject, precision_of
from .nodes import Node


@dataclass
class Auditor:
    """This client's own judgement of whom to look at, and how often. Made before the client deals with anybody: whom its
    history has at fault is not dealt with, wherever the process that wrote that has ended."""

    desk: Desk
    history: History
    deposits: Deposits | None = None

    def __post_init__(self) -> None:
        self.desk.wallet.distrusted |= {node for _, node, _, _ in self.history.all_faults()}

    @property
    def anchors(self) -> frozenset[bytes]:
        """Owners to rely on: trusted by name, by what was seen of them here, or by what they have locked."""
        found = self.desk.trusted | self.history.anchors()
        if self.deposits is not None:
            locked = self.deposits.owners(self.desk.now_ms())
            found |= {owner for owner in locked if not self.history.faults(owner)}
        return found

    def proven(self, policy: Policy, bundle: bytes) -> frozenset[bytes] | None:
        """Nodes that are worth preferring under the policy; None if it makes no difference."""
        return self.history.proven(bundle, NEWCOMER) if policy.kind == ADAPTIVE else None

    def rate_ppm(self, policy: Policy, node: Node, order: JobOrder, receipted: Receipted, unwritten: int = 0) -> int:
        """Of a million results like this one, so many are checked under the policy. `unwritten`: tokens of those ordered that
        the text does without, as it ends by itself: the model's word, or its executor's."""
        if policy.kind != ADAPTIVE:
            return policy.ppm if policy.checked else 0
        valid = self.history.valid(subject_of(node, order.bundle, receipted))
        held = self.desk.wallet.held_ucr(node.key, self.desk.now_ms())
        token_ucr = order.price.output_token_ucr
        return audit_ppm(valid, receipted.added_ucr, held, policy.ppm, unwritten=unwritten, token_ucr=token_ucr)

    def wants(
        self, policy: Policy, nonce: bytes, node: Node, order: JobOrder, receipted: Receipted, unwritten: int = 0
    ) -> bool:
        """Whether this result is to be checked: known once its receipt is there, and drawn from that."""
        rate = self.rate_ppm(policy, node, order, receipted, unwritten)
        return rate >= MILLION or drawn_at(rate, nonce, receipted.receipt.id)

    def passed(self, node: Node, bundle: bytes, receipted: Receipted, role: str = EXECUTOR) -> None:
        """The result was checked, and borne out."""
        self.history.passed(subject_of(node, bundle, receipted), role, self.desk.now_ms())

    async def failed(self, node: bytes, owner: bytes, reason: str, receipt: bytes | None = None) -> None:
        """A fault was proven: the node is not dealt with again, and all others of its owner are newcomers. `receipt`: the kept
        result that has proven it, if it was one."""
        now_ms = self.desk.now_ms()
        self.history.failed(owner, node, reason, now_ms, receipt)
        await self.desk.wallet.distrust(node, owner, reason, None, now_ms)


def subject_of(node: Node, bundle: bytes, receipted: Receipted) -> Subject:
    """Whose record a result belongs to."""
    return Subject(node.key, node.owner, bundle, precision_of(receipted.receipt.record.numerics_class))

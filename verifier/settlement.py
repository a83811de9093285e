"""From verdict and receipts to credits: every micro-credit claimed is either due or withheld, and names its receipt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ..protocol.checks import Finding, Outcome, Standing, Verdict
from ..protocol.envelope import Signed
from ..protocol.errors import Code, RemoteProtocolError
from ..protocol.identity import CHECKER, EXECUTOR
from ..protocol.policy import COMMITTEE
from ..protocol.receipts import Receipt


@dataclass(frozen=True, slots=True)
class Credit:
    """What one receipt brings its owner; the rest of what it claimed stays with the payer."""

    owner: bytes
    node: bytes
    receipt: bytes
    due_ucr: int
    withheld_ucr: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """All credits of one verdict, in the order of its findings."""

    credits: tuple[Credit, ...]
    fee_ucr: int = 0
    """What a committee's members are due."""
    fee_bearer: bytes | None = None
    """Owner of the executor that lost before the committee. None: the payer bears it, as it pays everything else."""

    @property
    def due_ucr(self) -> int:
        """What the payer owes, all owners together."""
        return sum(credit.due_ucr for credit in self.credits)

    @property
    def withheld_ucr(self) -> int:
        """What was claimed and is not owed."""
        return sum(credit.withheld_ucr for credit in self.credits)

    def owners(self) -> dict[bytes, int]:
        """What is due to each owner, over all its nodes; a fee it has to bear is taken off, and may make it less than 0."""
        due: dict[bytes, int] = defaultdict(int)
        for credit in self.credits:
            due[credit.owner] += credit.due_ucr
        if self.fee_bearer is not None:
            due[self.fee_bearer] -= self.fee_ucr
        return dict(due)


def settle(verdict: Verdict, receipts: Iterable[Signed[Receipt]]) -> Settlement:
    """The credits that follow. Raises `RemoteProtocolError(bad_record)` unless the verdict says of every micro-credit that
    its members' receipts claim whether it is due or withheld, and of each receipt only once."""
    known = {receipt.id: receipt for receipt in receipts}
    named: set[bytes] = set()
    credits: list[Credit] = []
    for finding in verdict.findings:
        own = [_credit(finding, receipt, known) for receipt in _uncontradicted(finding, known)]
        _check(finding, own, known)
        for credit in own:
            if credit.receipt in named:
                raise RemoteProtocolError(Code.BAD_RECORD, "The verdict names one receipt twice.")
            named.add(credit.receipt)
        credits += own
    if not verdict.policy.startswith(COMMITTEE):
        return Settlement(tuple(credits))
    fee_ucr = sum(finding.due_ucr for finding in verdict.findings if finding.role == CHECKER)
    losers = {f.owner for f in verdict.findings if f.role == EXECUTOR and f.standing == Standing.REFUTED}
    lost = verdict.outcome == Outcome.REJECTED and len(losers) == 1
    return Settlement(tuple(credits), fee_ucr, losers.pop() if lost else None)


def _uncontradicted(finding: Finding, known: dict[bytes, Signed[Receipt]]) -> list[Signed[Receipt]]:
    """The member's receipts, but for those that contradict one another: nothing was claimed by any of them."""
    own = [known[id] for id in finding.evidence if id in known]
    windows = Counter((receipt.record.order, receipt.record.sequence) for receipt in dict.fromkeys(own))
    return [receipt for receipt in own if windows[receipt.record.order, receipt.record.sequence] == 1]


def _credit(finding: Finding, receipt: Signed[Receipt], known: dict[bytes, Signed[Receipt]]) -> Credit:
    """Raises `RemoteProtocolError(bad_record)` if the receipt is another's, or the one before it is missing."""
    if receipt.signer != finding.node:
        raise RemoteProtocolError(Code.BAD_RECORD, "The verdict names a receipt that is not the member's own.")
    previous = receipt.record.previous
    if previous is not None and previous not in known:
        raise RemoteProtocolError(Code.BAD_RECORD, "The receipt before one that the verdict names is missing.")
    before_ucr = known[previous].record.amount_ucr if previous is not None else 0
    added_ucr = receipt.record.amount_ucr - before_ucr
    due = receipt.id in finding.due_for
    return Credit(finding.owner, finding.node, receipt.id, added_ucr if due else 0, 0 if due else added_ucr)


def _check(finding: Finding, own: list[Credit], known: dict[bytes, Signed[Receipt]]) -> None:
    if not set(finding.due_for) <= known.keys() & set(finding.evidence):
        raise RemoteProtocolError(Code.BAD_RECORD, "A receipt that the verdict calls due is missing.")
    sums = sum(credit.due_ucr for credit in own), sum(credit.withheld_ucr for credit in own)
    if sums != (finding.due_ucr, finding.withheld_ucr) or any(c.due_ucr < 0 or c.withheld_ucr < 0 for c in own):
        raise RemoteProtocolError(Code.BAD_RECORD, "The verdict's sums are not those of the receipts that it names.")

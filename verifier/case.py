"""The evidence about one piece of work, sorted out: whose word it is, which order it belongs to, what does not count.

Evidence may come from anybody, in any order. What is not borne out by a signature of the one who must have signed it, or
belongs to other work, is left out; so it can neither help nor harm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..protocol.bundle import SCORE, Manifest, Tolerance
from ..protocol.checks import Attestation
from ..protocol.envelope import Signed
from ..protocol.errors import Code, RemoteProtocolError
from ..protocol.identity import CHECKER, EXECUTOR, Mandate, check_mandate
from ..protocol.opening import Opened, Opening, open_untrusted
from ..protocol.orders import Accept, JobOrder
from ..protocol.policy import Policy, check_commitment
from ..protocol.receipts import Receipt
from .quorum import Member


@dataclass(frozen=True, slots=True)
class Question:
    """What a verdict is asked for: the client's commitment, opened."""

    client: bytes
    bundle: bytes
    policy: Policy
    nonce: bytes
    anchors: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Part:
    """One order, and what its executor answered."""

    order: Signed[JobOrder]
    member: Member
    receipts: tuple[Signed[Receipt], ...]
    """An unbroken chain from the first."""
    equivocal: tuple[Signed[Receipt], ...] = ()
    """Different receipts for the window after the chain: whoever signed them contradicts itself."""
    attestation: Signed[Attestation] | None = None
    opened: Opened | None = None

    def added_ucr(self, receipt: Signed[Receipt]) -> int:
        """What one receipt of the chain added to the order's amount."""
        sequence = receipt.record.sequence
        before = self.receipts[sequence - 1].record.amount_ucr if sequence else 0
        return receipt.record.amount_ucr - before


@dataclass(frozen=True, slots=True)
class Case:
    """All parts of one piece of work."""

    question: Question
    tolerance: Tolerance
    parts: tuple[Part, ...] = field(default=())
    """By the time of their orders, then by id."""

    @property
    def parties(self) -> frozenset[bytes]:
        """Who may not judge: the client. Executors are parties to their own windows."""
        return frozenset({self.question.client})


def gather(question: Question, records: Iterable[Signed[Any]], openings: Iterable[Opening] = ()) -> Case:
    """The case that the records make. Raises `RemoteProtocolError` if the manifest or every order is missing, or if an
    opening does not fit."""
    sorted_out: dict[type, dict[bytes, Signed[Any]]] = defaultdict(dict)
    for signed in records:
        sorted_out[type(signed.record)][signed.id] = signed
    manifest = sorted_out[Manifest].get(question.bundle)
    if manifest is None:
        raise RemoteProtocolError(
            Code.UNKNOWN_BUNDLE, "The manifest, which holds the tolerance, is not in the evidence."
        )
    opened: dict[bytes, list[Opening]] = defaultdict(list)
    for opening in openings:
        opened[opening.order].append(opening)
    commitment = check_commitment(question.nonce, str(question.policy))
    parts = [
        _part(order, sorted_out, opened)
        for order in sorted_out[JobOrder].values()
        # [IGNORE] Only the client's own orders under this commitment are part of the work.
        if order.signer == question.client
        and order.record.check_commitment == commitment
        and order.record.bundle == question.bundle
    ]
    if not parts:
        raise RemoteProtocolError(Code.BAD_RECORD, "No order in the evidence was made under this commitment.")
    parts.sort(key=lambda part: (part.order.record.created_ms, part.order.id))
    return Case(question, manifest.record.tolerance, tuple(parts))


def _part(
    order: Signed[JobOrder], records: dict[type, dict[bytes, Signed[Any]]], openings: dict[bytes, list[Opening]]
) -> Part:
    executor = order.record.executor
    receipts: list[Signed[Receipt]] = [r for r in records[Receipt].values() if _answers(r, order)]
    chain, equivocal = _chain(receipts)
    attestations = [
        a for a in records[Attestation].values() if _answers(a, order) and a.record.subject == order.record.checks
    ]
    # [IGNORE] Two different attestations under one order: neither is this checker's word.
    attestation = attestations[0] if len(attestations) == 1 else None
    opened = _open(order, chain, openings[order.id])
    return Part(order, Member(executor, _owner(order, records)), chain, equivocal, attestation, opened)


def _open(order: Signed[JobOrder], chain: tuple[Signed[Receipt], ...], openings: list[Opening]) -> Opened | None:
    """What the openings of one order show: whichever fits, shows the same. Raises `RemoteProtocolError` if none does."""
    refusal: RemoteProtocolError | None = None
    for opening in openings:
        try:
            return open_untrusted(opening, order, chain)
        except RemoteProtocolError as error:
            refusal = error
    if refusal:
        raise refusal
    return None


def _answers(signed: Signed[Receipt] | Signed[Attestation] | Signed[Accept], order: Signed[JobOrder]) -> bool:
    return signed.record.order == order.id and signed.signer == order.record.executor


def _chain(receipts: list[Signed[Receipt]]) -> tuple[tuple[Signed[Receipt], ...], tuple[Signed[Receipt], ...]]:
    """The receipts from the first on, each naming the one before; and those that contradict one another after it."""
    chain: list[Signed[Receipt]] = []
    while True:
        last = chain[-1] if chain else None
        following = sorted((r for r in receipts if _follows(last, r.record)), key=lambda receipt: receipt.id)
        if len(following) != 1:
            return tuple(chain), tuple(following)
        chain += following


def _follows(last: Signed[Receipt] | None, record: Receipt) -> bool:
    if last is None:
        return record.sequence == 0 and record.previous is None and record.first_token == 0
    before = last.record
    return (
        record.sequence == before.sequence + 1
        and record.previous == last.id
        and record.first_token == before.first_token + before.tokens
        and record.amount_ucr >= before.amount_ucr
    )


def _owner(order: Signed[JobOrder], records: dict[type, dict[bytes, Signed[Any]]]) -> bytes:
    """The owner under whose mandate the executor accepted. The node itself if it named none, or more than one: it then
    stands for nobody else."""
    owners = {
        mandate.record.owner
        for accept in records[Accept].values()
        if _answers(accept, order) and (mandate := records[Mandate].get(accept.record.mandate))
        if _mandated(mandate, order.record)
    }
    return owners.pop() if len(owners) == 1 else order.record.executor


def _mandated(mandate: Signed[Mandate], order: JobOrder) -> bool:
    try:
        check_mandate(mandate, order.executor, CHECKER if order.entry == SCORE else EXECUTOR, order.created_ms)
    except RemoteProtocolError:
        return False
    return True

"""The evidence about one piece of work, sorted out: whose word it is, which order it belongs to, what does not count.

Evidence may come from anybody, in any order. What is not borne out by a signature of the one who must have signed it, or
belongs to other work, is left out; so it can neither help nor harm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..protocol.bundle import SCORE, Manifest, Tolerance
from ..protocol.checks import Attestation
from ..protocol.envelope import Signed
from ..protocol.errors import Code, RemoteProtocolError
from ..protocol.identity import CHECKER, EXECUTOR, Mandate, check_mandate
from ..protocol.limits import FINDINGS_MAX, OUTPUT_TOKENS_MAX, WINDOW_TOKENS
from ..protocol.opening import Opened, Opening, asked_untrusted, open_untrusted
from ..protocol.orders import Accept, JobOrder
from ..protocol.policy import Policy, check_commitment
from ..protocol.receipts import OPEN, Receipt, owed_ucr
from ..protocol.work import Work
from .quorum import Member

WINDOWS_MAX = OUTPUT_TOKENS_MAX // WINDOW_TOKENS + 1
"""Receipts of one order that count: full windows of the longest answer, and its end."""
ORDERS_MAX = 2 * FINDINGS_MAX
"""In one case: each window of the longest answer, checked by four, and twice over for resumed parts."""


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
    equivocal: tuple[Signed[Any], ...] = ()
    """Different receipts for the window after the chain, or different attestations: who signed them contradicts itself."""
    attestation: Signed[Attestation] | None = None
    asked: Work | None = None
    """As opened, if it fits the order: whatever was answered, and whoever signed for that."""
    opened: Opened | None = None
    """With what was answered, if that fits every receipt, too."""

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
    """The case that the records make.

    Raises `RemoteProtocolError` if the manifest or every order is missing (`unknown_bundle`, `bad_record`), and `too_large` for
    more than a verdict can name.
    """
    found = _Found(records, openings)
    manifest = found.of(Manifest).get(question.bundle)
    if manifest is None:
        raise RemoteProtocolError(
            Code.UNKNOWN_BUNDLE, "The manifest, which holds the tolerance, is not in the evidence."
        )
    commitment = check_commitment(question.nonce, str(question.policy))
    orders: list[Signed[JobOrder]] = [
        order
        for order in found.of(JobOrder).values()
        # [IGNORE] Only the client's own orders under this commitment are part of the work.
        if order.signer == question.client
        and order.record.check_commitment == commitment
        and order.record.bundle == question.bundle
    ]
    if not orders:
        raise RemoteProtocolError(Code.BAD_RECORD, "No order in the evidence was made under this commitment.")
    if len(orders) > ORDERS_MAX:
        raise RemoteProtocolError(Code.TOO_LARGE, f"The evidence holds more than {ORDERS_MAX} orders of this work.")
    known = frozenset(id for order in orders for id in referred(order.record))
    orders.sort(key=lambda order: (order.record.created_ms, order.id))
    return Case(question, manifest.record.tolerance, tuple(_part(order, found, known) for order in orders))


def part_of(order: Signed[JobOrder], records: Iterable[Signed[Any]], openings: Iterable[Opening] = ()) -> Part:
    """One order by itself, whatever it was checked by, and what of the records and openings is its answer."""
    return _part(order, _Found(records, openings), frozenset())


class _Found:
    """Records by kind and id, what answers an order by the order's id, and openings by order."""

    def __init__(self, records: Iterable[Signed[Any]], openings: Iterable[Opening]) -> None:
        self._kinds: dict[type, dict[bytes, Signed[Any]]] = defaultdict(dict)
        self._answers: dict[tuple[type, bytes], dict[bytes, Signed[Any]]] = defaultdict(dict)
        for signed in records:
            self._kinds[type(signed.record)][signed.id] = signed
            if isinstance(signed.record, Accept | Receipt | Attestation):
                self._answers[type(signed.record), signed.record.order][signed.id] = signed
        self.openings: dict[bytes, list[Opening]] = defaultdict(list)
        for opening in openings:
            self.openings[opening.order].append(opening)

    def of(self, kind: type) -> dict[bytes, Signed[Any]]:
        """All records of a kind."""
        return self._kinds[kind]

    def answers(self, kind: type, order: Signed[JobOrder]) -> list[Signed[Any]]:
        """What the order's own executor signed under it, by id."""
        answers = self._answers[kind, order.id]
        return [answers[id] for id in sorted(answers) if answers[id].signer == order.record.executor]


def referred(order: JobOrder) -> list[bytes]:
    """Receipts that the client's own signature shows to have arrived."""
    return [id for id in (order.checks, order.continues and order.continues.receipt) if id]


def _part(order: Signed[JobOrder], found: _Found, known: frozenset[bytes]) -> Part:
    chain, equivocal = _chain(order.record, found.answers(Receipt, order), known)
    attestations = _told_once(
        [a for a in found.answers(Attestation, order) if a.record.subject == order.record.checks], known
    )
    if len(attestations) > 1:
        equivocal += tuple(attestations[:2])
    attestation = attestations[0] if len(attestations) == 1 else None
    asked, opened = _open(order, chain, found.openings[order.id])
    owner = _owner(order, found)
    return Part(order, Member(order.record.executor, owner), chain, equivocal, attestation, asked, opened)


def _open(
    order: Signed[JobOrder], chain: tuple[Signed[Receipt], ...], openings: list[Opening]
) -> tuple[Work | None, Opened | None]:
    """What the openings of one order show: whichever fits, shows the same; what does not fit shows nothing."""
    asked = None
    for opening in openings:
        with suppress(RemoteProtocolError):
            asked = asked_untrusted(opening, order)
            return asked, open_untrusted(opening, order, chain)
    return asked, None


def _told_once(signed: Iterable[Signed[Any]], known: frozenset[bytes]) -> list[Signed[Any]]:
    """One of those that say the same, signed more than once: the one that the client's orders refer to, or the lowest id."""
    chosen: dict[object, Signed[Any]] = {}
    for one in sorted(signed, key=lambda one: (one.id not in known, one.id)):
        chosen.setdefault(one.record, one)
    return list(chosen.values())


def _chain(
    order: JobOrder, receipts: list[Signed[Receipt]], known: frozenset[bytes]
) -> tuple[tuple[Signed[Receipt], ...], tuple[Signed[Receipt], ...]]:
    """The receipts from the first on, each naming the one before, for what the order's price gives; and two of those that
    contradict one another after it."""
    by_sequence: dict[int, list[Signed[Receipt]]] = defaultdict(list)
    for receipt in receipts:
        by_sequence[receipt.record.sequence].append(receipt)
    chain: list[Signed[Receipt]] = []
    while True:
        candidates = by_sequence[len(chain)]
        ids = {twin.id for twin in by_sequence[len(chain) - 1] if chain and twin.record == chain[-1].record}
        last = chain[-1].record if chain else None
        following = _told_once((r for r in candidates if _follows(order, last, ids, r.record)), known)
        if len(following) != 1 or len(chain) == WINDOWS_MAX:
            return tuple(chain), tuple(following[:2]) if len(following) > 1 else ()
        if following[0].record.amount_ucr != owed_ucr(order, following[0].record):
            return tuple(chain), ()  # both sides have agreed to the price: what it does not give is no claim
        chain += following


def _follows(order: JobOrder, last: Receipt | None, last_ids: set[bytes], record: Receipt) -> bool:
    """Whether the receipt may come next: after an open one that has tokens, and for no more of them, and of pay, than were
    ordered."""
    if record.amount_ucr > order.amount_ucr_max or record.first_token + record.tokens > order.planned_tokens:
        return False
    if last is None:
        return record.previous is None and record.first_token == 0
    return (
        (last.end, bool(last.tokens)) == (OPEN, True)
        and record.previous in last_ids
        and record.first_token == last.first_token + last.tokens
        and record.amount_ucr >= last.amount_ucr
    )


def _owner(order: Signed[JobOrder], found: _Found) -> bytes | None:
    """The owner under whose mandate the executor accepted; None if it named none, or more than one."""
    owners = {
        mandate.record.owner
        for accept in found.answers(Accept, order)
        if (mandate := found.of(Mandate).get(accept.record.mandate)) and _mandated(mandate, order.record)
    }
    return owners.pop() if len(owners) == 1 else None


def _mandated(mandate: Signed[Mandate], order: JobOrder) -> bool:
    try:
        check_mandate(mandate, order.executor, CHECKER if order.entry == SCORE else EXECUTOR, order.created_ms)
    except RemoteProtocolError:
        return False
    return True

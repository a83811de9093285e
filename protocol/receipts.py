"""The executor's signed claim of work, one per window, and the count that both sides keep to agree on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from .envelope import Signed
from .errors import Code, RemoteProtocolError
from .limits import OUTPUT_TOKENS_MAX, WINDOW_TOKENS
from .numerics import is_within, narrowed
from .orders import JobOrder
from .prices import CANCELLED as CANCELLED
from .prices import FINAL as FINAL
from .prices import OPEN as OPEN
from .prices import YIELDED as YIELDED
from .prices import Price, Ucr, Usage, amount_ucr
from .schema import Between, Hash, Text, Uint, Word
from .work import Values

ENDS = frozenset({OPEN, FINAL, YIELDED, CANCELLED})


@dataclass(frozen=True, slots=True)
class Receipt:
    """The executor says: under this order I delivered these tokens, with this transcript, worth so much in all."""

    RECORD: ClassVar[str] = "receipt"

    order: Hash
    """Id of the order."""
    sequence: Uint
    """0 for the first of the order."""
    previous: Hash | None
    """Id of the receipt of the window before."""
    first_token: Annotated[int, Between(0, OUTPUT_TOKENS_MAX)]
    """Position of the window's first token, counted from the order's first output token."""
    tokens: Annotated[int, Between(0, OUTPUT_TOKENS_MAX)]
    """The window covers `tokens` tokens from `first_token`, counted from the order's first output token."""
    transcript: Hash
    """Rolling hash over all pieces of the job so far. The order's id while there are none: the hash's start is salted, and
    the salt is known to the client and the worker only, which may be gone."""
    values_micro: Values
    """The window's proof values: a log-probability in micro-nats for each token; none for a `call`."""
    numerics_class: Text
    """As accepted, of its variants those alone that ran for the window; all of them where none did."""
    amount_ucr: Ucr
    """Cumulative over the order."""
    end: Word
    """`open`: more follow; `final`: the work is complete; `yielded` or `cancelled`: it was cut short."""

    def __post_init__(self) -> None:
        if len(self.values_micro) != self.tokens:
            raise ValueError("not one proof value for each token")
        if self.end not in ENDS:
            raise ValueError(f"a window does not end {self.end!r}")


def priced_ucr(price: Price, order: JobOrder, tokens: int, end: str, *, empty: bool) -> int:
    """What a receipt says by which so many tokens were delivered in all. `empty`: it is not the first, and adds none."""
    delivered = {"checked_tokens": tokens} if order.entry == "score" else {"output_tokens": tokens}
    usage = Usage(order.calls, order.input_tokens, **delivered)
    # What is paid at least for a cancelled job goes with tokens that can be checked, or is all that is paid.
    counted = YIELDED if end == CANCELLED and empty else end
    return amount_ucr(price, usage, planned_tokens=order.planned_tokens, end=counted)


def owed_ucr(order: JobOrder, receipt: Receipt) -> int:
    """What the receipt has to say: what the order's price gives for its tokens and those before."""
    empty, tokens = receipt.sequence > 0 and not receipt.tokens, receipt.first_token + receipt.tokens
    return priced_ucr(order.price, order, tokens, receipt.end, empty=empty)


@dataclass(slots=True)
class Delivery:
    """What was delivered under one order so far. Executor and client each keep one and must come to the same receipts."""

    order: Signed[JobOrder]
    price: Price
    numerics_class: str
    transcript: bytes
    """Rolling hash: the executor's from its worker, the client's from the pieces that it opened."""
    pieces: int = 0
    tokens: int = 0
    values: list[int] = field(default_factory=list)
    """Of the window that is open."""
    ran: set[str] = field(default_factory=set)
    """Variants of the programs that ran for it: the executor knows, the client believes its receipts."""
    receipts: list[Signed[Receipt]] = field(default_factory=list)

    def add(self, tokens: int, values: Sequence[int], transcript: bytes, ran: Iterable[str] = ()) -> None:
        """One more piece was delivered, computed by programs of these variants."""
        self.pieces += 1
        self.tokens += tokens
        self.values.extend(values)
        self.transcript = transcript
        self.ran.update(ran)

    @property
    def window_full(self) -> bool:
        """A receipt is due before the next piece."""
        return self.tokens - self._window_start >= WINDOW_TOKENS

    @property
    def amount_ucr(self) -> int:
        """What the receipts so far come to."""
        return self.receipts[-1].record.amount_ucr if self.receipts else 0

    def next_receipt(self, end: str) -> Receipt:
        """The receipt that is due now if the window ends as `end` says."""
        order = self.order.record
        empty = bool(self.receipts) and self.tokens == self._window_start
        return Receipt(
            order=self.order.id,
            sequence=len(self.receipts),
            previous=self.receipts[-1].id if self.receipts else None,
            first_token=self._window_start,
            tokens=self.tokens - self._window_start,
            transcript=self.transcript if self.pieces else self.order.id,
            values_micro=tuple(self.values),
            numerics_class=narrowed(self.numerics_class, self.ran),
            amount_ucr=priced_ucr(self.price, order, self.tokens, end, empty=empty),
            end=end,
        )

    def issued(self, receipt: Signed[Receipt]) -> None:
        """The executor signed `next_receipt`; a new window begins."""
        self.receipts.append(receipt)
        self.values, self.ran = [], set()

    def received(self, receipt: Signed[Receipt]) -> None:
        """The client got a receipt. Raises `RemoteProtocolError` unless it says exactly what was delivered."""
        expected = self.next_receipt(receipt.record.end)
        if is_within(receipt.record.numerics_class, self.numerics_class):
            expected = replace(expected, numerics_class=receipt.record.numerics_class)
        if receipt.record != expected:
            field_name = next(
                name
                for name in Receipt.__dataclass_fields__
                if getattr(receipt.record, name) != getattr(expected, name)
            )
            raise RemoteProtocolError(Code.BAD_RECORD, f"The receipt's {field_name} does not match what was delivered.")
        self.issued(receipt)

    @property
    def _window_start(self) -> int:
        return self.receipts[-1].record.first_token + self.receipts[-1].record.tokens if self.receipts else 0

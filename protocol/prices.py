"""Price lists, and what a job costs under one: both sides count the same integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from .errors import Code, RemoteProtocolError
from .limits import OUTPUT_TOKENS_MAX, WINDOW_TOKENS
from .schema import Between, Hash, Word

OPEN, FINAL, YIELDED, CANCELLED = "open", "final", "yielded", "cancelled"
"""How a window ended: more follow, the work is complete, the owner took the machine, the client had enough."""

Ucr = Annotated[int, Between(0, 2**53 - 1)]
"""Micro-credits. Below 2^53, so that every language's numbers hold it exactly."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one entry of one bundle costs, in micro-credits."""

    bundle: Hash
    """Id of the bundle's manifest."""
    entry: Word
    """`generate`, `score` or `call`."""
    call_ucr: Ucr
    """For each job, or each input of a `call`."""
    input_token_ucr: Ucr
    """For each token that is given."""
    output_token_ucr: Ucr
    """For each token that is generated."""
    checked_token_ucr: Ucr
    """For each token that is checked."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job used so far: everything that is priced."""

    calls: int
    input_tokens: int
    output_tokens: int = 0
    checked_tokens: int = 0


def find_price(prices: Sequence[Price], bundle: bytes, entry: str) -> Price:
    """The price of an entry. Raises `RemoteProtocolError(unknown_bundle)` if the list has none: nothing is free by omission."""
    for price in prices:
        if price.bundle == bundle and price.entry == entry:
            return price
    raise RemoteProtocolError(Code.UNKNOWN_BUNDLE, f"The price list has no price for this bundle's {entry}.")


def amount_ucr(price: Price, usage: Usage, *, planned_tokens: int, end: str) -> int:
    """What is owed for `usage` by a receipt with this end.

    A job that is not complete pays its start (call and input) in proportion to the tokens delivered of those planned,
    rounded down: a node that leaves early has not earned the prefill that its successor must repeat. One that its client
    cancelled pays one call and one window of input at least: who had enough before the first token has cost the node a place
    and perhaps the prefill, and a node that does nothing until it is cancelled gains no more than that.
    """
    whole = start = usage.calls * price.call_ucr + usage.input_tokens * price.input_token_ucr
    delivered = usage.output_tokens + usage.checked_tokens
    if end != FINAL:
        start = whole * min(delivered, planned_tokens) // max(planned_tokens, 1)
    if end == CANCELLED:
        least = min(usage.calls, 1) * price.call_ucr + min(usage.input_tokens, WINDOW_TOKENS) * price.input_token_ucr
        start = max(start, least)
    return start + usage.output_tokens * price.output_token_ucr + usage.checked_tokens * price.checked_token_ucr


def amount_ucr_max(price: Price, calls: int, input_tokens: int, planned_tokens: int) -> int:
    """The most that a job can come to, for price caps and credit."""
    tokens = min(planned_tokens, OUTPUT_TOKENS_MAX)
    dearest = max(price.output_token_ucr, price.checked_token_ucr)
    return calls * price.call_ucr + input_tokens * price.input_token_ucr + tokens * dearest

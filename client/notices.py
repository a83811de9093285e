"""What the user of a result should know though the result is there: of a text that nobody checks, what no receipt covers."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.errors import Code
from ..protocol.identity import peer_id, short
from ..protocol.receipts import FINAL, YIELDED
from .answers import Notice
from .judging import Attempt


def unsigned(attempts: Sequence[Attempt]) -> tuple[Notice, ...]:
    """One for each node that wrote tokens of the text for which it gave no receipt, or one that was refused: they are not paid.

    Where a text is checked there are none: what no receipt covers is checked along with the next window, or written again.
    """
    return tuple(_notice(each, last=each is attempts[-1]) for each in attempts if each.written > each.signed)


def _notice(attempt: Attempt, *, last: bool) -> Notice:
    assert attempt.execution is not None, "nobody writes without an order"
    tokens = attempt.written - attempt.signed
    whole_ucr = attempt.execution.delivery.next_receipt(FINAL if last else YIELDED).amount_ucr
    unpaid_ucr = max(0, whole_ucr - attempt.paid_ucr)
    why = (attempt.error.message if attempt.error else attempt.leaving or "it left").rstrip(".")
    message = (
        f"No receipt that counts covers {tokens} of the {attempt.written} tokens that node {short(attempt.node.key)} wrote"
        f" of this text: {why}. They are not paid for ({unpaid_ucr} ucr)."
    )
    return Notice(Code.UNSIGNED, message, peer_id(attempt.node.key), tokens, unpaid_ucr)

"""A voucher as the journal's columns: what it holds as bytes, and its rank so that SQLite sorts by it."""

from __future__ import annotations

from typing import Any, Final

from ..protocol.codec import decode_untrusted, encode
from ..protocol.holding import Held, Parts
from ..protocol.payment import Voucher, rank_of

LATEST_FIRST: Final = "rank DESC"
"""Of a channel's vouchers, each follows those after it."""
FIRST: Final = "rowid"
"""Of a receipt's vouchers, as they came: what a statement once said of a receipt, it says again."""
_RANK_ZERO: Final = 2**127


def held_column(parts: Parts) -> bytes:
    """What a voucher holds, encoded."""
    return encode([[part.ucr, part.release_at_ms] for part in parts])


def parts_of(held: bytes) -> Parts:
    """What `held_column` has encoded."""
    pairs: Any = decode_untrusted(held, bytes_max=len(held))
    return tuple(Held(ucr, release_at_ms) for ucr, release_at_ms in pairs)


def rank_column(voucher: Voucher) -> bytes:
    """Sorts as the ranks do."""
    promised_ucr, sooner, due_ucr = rank_of(voucher)
    return promised_ucr.to_bytes(8, "big") + (_RANK_ZERO + sooner).to_bytes(16, "big") + due_ucr.to_bytes(8, "big")


def held_column_of_5(held_ucr: int, release_at_ms: int) -> bytes:
    """As `held_column`, of a voucher of the journal's version 5: all that it held had one release."""
    return held_column(_one_part(held_ucr, release_at_ms))


def rank_column_of_5(due_ucr: int, held_ucr: int, forfeited_ucr: int, release_at_ms: int) -> bytes:
    """As `rank_column`, of such a voucher."""
    return rank_column(Voucher(bytes(32), bytes(32), due_ucr, _one_part(held_ucr, release_at_ms), forfeited_ucr))


def _one_part(ucr: int, release_at_ms: int) -> Parts:
    return (Held(ucr, release_at_ms),) if ucr else ()

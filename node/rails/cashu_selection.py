"""Coin selection: which of the tokens in a purse pay an amount. Those that a request has set aside are not among them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from ...protocol.errors import Code, Refused


def balance(db: sqlite3.Connection) -> int:
    """What is there to choose from, in the mint's unit."""
    return int(db.execute("SELECT coalesce(sum(amount), 0) FROM proofs WHERE spent = ''").fetchone()[0])


def choose(db: sqlite3.Connection, amount: int, fee: Callable[[int], int]) -> list[dict[str, Any]]:
    """Tokens for so much, the largest first, and for the mint's `fee` for so many. Raises `Refused(credit_exhausted)`."""
    rows = db.execute(
        "SELECT amount, keyset, secret, signature FROM proofs WHERE spent = '' ORDER BY amount DESC, secret"
    ).fetchall()
    chosen: list[dict[str, Any]] = []
    for each, keyset, secret, signature in rows:
        if sum(one["amount"] for one in chosen) >= amount + fee(len(chosen)):
            break
        chosen.append({"amount": each, "id": keyset, "secret": secret, "C": signature})
    if sum(one["amount"] for one in chosen) < (whole := amount + fee(len(chosen))):
        message = f"{whole} are to be paid with the mint's fee, and {balance(db)} are in the purse."
        raise Refused(Code.CREDIT_EXHAUSTED, message)
    return chosen

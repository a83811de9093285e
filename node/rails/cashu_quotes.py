"""How ecash gets into a purse: a mint's quotes, each paid by Lightning and then minted (NUT-04, NUT-23)."""

from __future__ import annotations

import sqlite3
from typing import Final

from ...protocol.errors import Code, Refused
from .cashu_crypto import amounts_of, blinded
from .cashu_mint import Mint
from .cashu_outbox import Outbox, Output

QUOTES_MAX: Final = 16
"""That nobody has paid yet: each is a line, and each is asked for again."""


class Quotes:
    """What one purse's mint gives tokens for once somebody has paid it. On disk until it is in the purse, or dropped."""

    def __init__(self, db: sqlite3.Connection, mint: Mint, outbox: Outbox) -> None:
        self._db = db
        self._mint = mint
        self._outbox = outbox

    def ask(self, amount: int) -> str:
        """What is to be paid, by Lightning, for so much ecash: on disk, for `fill`. Raises `Refused(busy)` for one too many."""
        if self._db.execute("SELECT count(*) FROM quotes").fetchone()[0] >= QUOTES_MAX:
            raise Refused(Code.BUSY, f"{QUOTES_MAX} bills of the mint are not paid yet: pay one of them, or wait.")
        with self._mint.reading():
            told = self._mint.ask("/v1/mint/quote/bolt11", {"amount": amount, "unit": "sat"})
            row = (str(told["quote"]), amount, str(told.get("request", "")))
        self._db.execute("INSERT OR REPLACE INTO quotes VALUES (?, ?, ?)", row)
        return row[0]

    def waiting(self) -> list[tuple[str, int, str]]:
        """Those that are not in the purse yet: id, amount, and the Lightning invoice by which each is paid."""
        return self._db.execute("SELECT * FROM quotes ORDER BY rowid").fetchall()

    def fill(self, amount: int, quote: str) -> None:
        """The mint's quote, paid by whoever, is in the purse."""
        id = f"mint {quote}"
        if self._outbox.fee_of(id) is None:
            outputs = [Output(each, blinded(), True) for each in amounts_of(amount)]
            self._outbox.ask_once(id, "/v1/mint/bolt11", {"quote": quote}, outputs)
        self.drop(quote)

    def is_over(self, quote: str, now_s: int) -> bool:
        """Whether the mint says that nobody has paid the quote, nor can any more: a day after its end."""
        with self._mint.reading():
            told = self._mint.ask(f"/v1/mint/quote/bolt11/{quote}")
            ends_s = int(told.get("expiry") or 0)
            return told.get("state") == "UNPAID" and bool(ends_s) and ends_s + 86_400 < now_s

    def drop(self, quote: str) -> None:
        """The quote is not waited for any more."""
        self._db.execute("DELETE FROM quotes WHERE id = ?", (quote,))

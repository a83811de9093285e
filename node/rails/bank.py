"""Bank transfers: a file for the payer's bank (`pain.001.001.09`), and the payee's own statement (`camt.053`) as the proof.

Nobody's word counts but that of the payee's bank: what a payer hands over only says which transfer to look for. A transfer is
known by its end-to-end id, which follows from payer, node and reference.
"""

from __future__ import annotations

import datetime
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from ...protocol.codec import encode
from ...protocol.errors import Code, ConfigError, Refused, RemoteProtocolError
from ...protocol.means import Means
from ..durable import put
from ..private import database, folder
from .rail import Invoice, Taken, check_paid, payment_id, read_means

SCHEMA: Final = "pain.001.001.09"
STATEMENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Some ten thousand entries."""
STATEMENTS_MAX: Final = 64
"""Of the directory, that are read again for a transfer that is not known: two months of days."""
CENTS_MAX: Final = 99_999_999_999
"""A SEPA transfer's."""

_TABLES = """
CREATE TABLE IF NOT EXISTS incoming (id TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS transfers (id TEXT PRIMARY KEY, means BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Of a party, at its bank."""

    name: str
    iban: str
    bic: str


class Bank:
    """One party's account; files for the bank go to `folder`."""

    name = "bank"

    def __init__(
        self,
        path: Path,
        key: bytes,
        account: Account,
        folder: Path,
        ucr_per_cent: int,
        today: datetime.date,
        statements: Path | None = None,
    ) -> None:
        """`key` is the node's own: transfers name it, for several nodes may have one account. Transfers are written to
        `folder`; in `statements`, if there is one, lie the bank's own (camt.053)."""
        self._statements = statements
        self._key = key
        self._account, self._folder, self._today = account, folder, today
        self._ucr_per_cent = ucr_per_cent
        self._db = database(path)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        """Everything is on disk."""
        self._db.close()

    @property
    def address(self) -> str:
        return f"{self._account.iban} {self._account.bic} {self._account.name}"

    def pay(self, invoice: Invoice) -> bytes:
        """By a file that the payer hands to its bank; it is written anew if it is gone. Raises `Refused(bad_config)` for what
        no bank takes."""
        iban, _, rest = invoice.address.partition(" ")
        bic, _, name = rest.partition(" ")
        cents, id = -(-invoice.ucr // self._ucr_per_cent), end_to_end(invoice.payer, invoice.payee, invoice.reference)
        if not 0 < cents <= CENTS_MAX:
            raise Refused(Code.BAD_CONFIG, f"No transfer is of {cents} cents.")
        means = Means(self.name, invoice.payer, invoice.reference, cents * self._ucr_per_cent, id.encode()).encode()
        if row := self._db.execute("SELECT means FROM transfers WHERE id = ?", (id,)).fetchone():
            means = bytes(row[0])
        check_paid(means, invoice, cents * self._ucr_per_cent)
        path = self._folder / f"{id}.xml"
        if not path.exists():
            order = self._order(Account(name, iban, bic), cents, id, invoice.reference)
            folder(self._folder)
            self._db.execute("INSERT OR IGNORE INTO transfers VALUES (?, ?)", (id, means))
            put(path, order)
        return means

    def read_statement(self, statement: bytes) -> int:
        """What our bank says has come in is known; again is no change. So many transfers were new.

        Raises `ConfigError(bad_config)` for what is no camt.053.
        """
        if len(statement) > STATEMENT_BYTES_MAX or b"<!DOCTYPE" in statement or b"<!ENTITY" in statement:
            raise ConfigError(Code.BAD_CONFIG, "This is no bank statement: too long, or with definitions of its own.")
        try:
            root = ElementTree.fromstring(statement)
        except ElementTree.ParseError as error:
            raise ConfigError(Code.BAD_CONFIG, f"This is no bank statement: {error}.") from None
        space = re.match(r"\{urn:iso:std:iso:20022:tech:xsd:camt\.053\.001\.\d\d\}", root.tag)
        if not space:
            raise ConfigError(Code.BAD_CONFIG, "This is no bank statement of the form camt.053.")
        new = 0
        for entry in root.iter(f"{space[0]}Ntry"):
            direction, status = entry.findtext(f"{space[0]}CdtDbtInd"), entry.findtext(f".//{space[0]}Sts//") or ""
            booked = "BOOK" in (status, entry.findtext(f"{space[0]}Sts/{space[0]}Cd"), entry.findtext(f"{space[0]}Sts"))
            for one in entry.iter(f"{space[0]}TxDtls") if direction == "CRDT" and booked else ():
                id, amount = one.findtext(f".//{space[0]}EndToEndId"), one.find(f".//{space[0]}Amt")
                if id and amount is not None and amount.get("Ccy") == "EUR" and (cents := _cents(amount.text or "")):
                    new += self._db.execute("INSERT OR IGNORE INTO incoming VALUES (?, ?)", (id, cents)).rowcount
        return new

    def take(self, means: bytes) -> Taken:
        """If it is on a statement that was read."""
        found = read_means(means, self.name)
        id = end_to_end(found.payer, self._key, found.reference)
        if found.body != id.encode():
            raise RemoteProtocolError(Code.BAD_RECORD, "These means are of another transfer.")
        found_row = "SELECT cents FROM incoming WHERE id = ?"
        if (row := self._db.execute(found_row, (id,)).fetchone()) is None:
            self._read_new()
            row = self._db.execute(found_row, (id,)).fetchone()
        if row is None:
            raise RemoteProtocolError(Code.UNPAID, "The transfer is on no statement of our bank yet.")
        payment = transfer_id(found.payer, self._key, found.reference)
        return Taken(payment, found.payer, row[0] * self._ucr_per_cent, 0, found.reference)

    def _read_new(self) -> None:
        """The newest statements in the directory are known. One that is none is left out: the others may have what is looked
        for."""
        files = list(self._statements.glob("*.xml")) if self._statements and self._statements.is_dir() else []
        for path in sorted(files, key=lambda path: path.stat().st_mtime)[-STATEMENTS_MAX:]:
            with suppress(ConfigError), path.open("rb") as stream:
                self.read_statement(stream.read(STATEMENT_BYTES_MAX + 1))

    def _order(self, to: Account, cents: int, id: str, reference: str) -> bytes:
        """Checked against the schema. Raises `ConfigError(package_missing)` without sepaxml, `Refused(bad_config)` for an
        account that the schema does not allow."""
        try:
            from sepaxml import SepaTransfer
            from sepaxml.validation import ValidationError
        except ModuleNotFoundError:
            raise ConfigError(
                Code.PACKAGE_MISSING, "Files for a bank need sepaxml, which comes with `pip install 'fallow[rails]'`."
            ) from None
        ours = self._account
        config = {"name": ours.name, "IBAN": ours.iban, "BIC": ours.bic, "batch": False, "currency": "EUR"}
        transfer = SepaTransfer(config, schema=SCHEMA, clean=True)
        payment = {"name": to.name, "IBAN": to.iban, "BIC": to.bic, "amount": cents, "execution_date": self._today}
        transfer.add_payment({**payment, "description": reference[:140], "endtoend_id": id})
        try:
            return bytes(transfer.export(validate=True))
        except ValidationError as error:
            raise Refused(Code.BAD_CONFIG, f"No bank takes this transfer: {str(error)[:200]}") from None


def end_to_end(payer: bytes, payee: bytes, reference: str) -> str:
    """At most 35 characters, as the banks' schema has it. Of one node: the owner's others do not count the transfer."""
    return payment_id(Bank.name, encode([payer, payee, reference])).hex()[:35]


def transfer_id(payer: bytes, payee: bytes, reference: str) -> bytes:
    """The payment's: the same if the owner writes the transfer down by hand."""
    return payment_id(Bank.name, end_to_end(payer, payee, reference).encode())


def _cents(text: str) -> int:
    """0 for what is no amount."""
    found = re.fullmatch(r"(\d{1,12})(?:\.(\d{1,2}))?", text.strip())
    return int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else 0

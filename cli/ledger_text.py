"""A statement as text for plain-text accounting: hledger's journal, and beancount's.

A credit is a million micro-credits, so six decimals are exact. What is due or held is receivable from its payer; a payment
moves it to the rail that it came by, less what the rail kept. A fee of a dispute that is owed to others is theirs to set off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from ..node.books import Credit, Statement
from ..node.paid import Fee, Payment
from ..protocol.identity import cid

COMMODITY = "FCR"
INCOME, FORFEITED, FEES, ENERGY, POWER = (
    "Income:Work",
    "Expenses:Forfeited",
    "Expenses:Fees",
    "Expenses:Energy",
    "Liabilities:Energy",
)

SET_OFF = "Assets:Rails:Ledger"
"""Where a set-off comes in: what the owner owes others lowers it first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction: its postings come to nothing together."""

    at_ms: int
    text: str
    name: str
    """`receipt`, `payment`, `decision` or `period`."""
    id: str
    postings: tuple[tuple[str, int], ...]

    @property
    def day(self) -> str:
        return datetime.fromtimestamp(self.at_ms / 1000, UTC).strftime("%Y-%m-%d")


def entries(statement: Statement) -> list[Entry]:
    """Every credit, payment and fee of the statement, oldest first. What no voucher covers is no promise, and not there."""
    found = [_credited(credit) for credit in statement.credits if credit.row.paid_ucr + credit.row.forfeited_ucr]
    found += map(_paid, statement.payments)
    found += map(_judged, statement.fees)
    if statement.energy_ucr:
        postings = ((ENERGY, statement.energy_ucr), (POWER, -statement.energy_ucr))
        name = statement.period.name
        found.append(Entry(statement.period.ends_ms - 1, f"Energy of {name}", "period", name, postings))
    return sorted(found, key=lambda entry: (entry.at_ms, entry.id))


def hledger(statement: Statement) -> str:
    """A journal that `hledger check --strict` accepts."""
    found = entries(statement)
    lines = [f"; fallow statement {statement.period.name}", f"commodity 1000.000000 {COMMODITY}"]
    lines += [f"account {account}" for account in _accounts(found)]
    for entry in found:
        lines += ["", f"{entry.day} {entry.text}  ; {entry.name}: {entry.id}"]
        lines += [f"    {account}  {credits(ucr)} {COMMODITY}" for account, ucr in entry.postings]
    return "\n".join(lines) + "\n"


def beancount(statement: Statement) -> str:
    """A ledger that `bean-check` accepts."""
    found = entries(statement)
    first = datetime.fromtimestamp(statement.period.begins_ms / 1000, UTC).strftime("%Y-%m-%d")
    lines = [f"; fallow statement {statement.period.name}", f'option "operating_currency" "{COMMODITY}"']
    lines += [
        f"{first} commodity {COMMODITY}",
        *(f"{first} open {account} {COMMODITY}" for account in _accounts(found)),
    ]
    for entry in found:
        lines += ["", f'{entry.day} * "{entry.text}"', f'  {entry.name}: "{entry.id}"']
        lines += [f"  {account}  {credits(ucr)} {COMMODITY}" for account, ucr in entry.postings]
    return "\n".join(lines) + "\n"


def credits(ucr: int) -> str:
    """Exact, with all six decimals."""
    whole, rest = divmod(abs(ucr), 1_000_000)
    return f"{'-' if ucr < 0 else ''}{whole}.{rest:06d}"


def _credited(credit: Credit) -> Entry:
    row, payer = credit.row, _component(credit.row.payer)
    postings = [
        (f"Assets:Due:{payer}", credit.due_ucr),
        (f"Assets:Held:{payer}", row.held_ucr),
        (FORFEITED, row.forfeited_ucr),
        (INCOME, -row.paid_ucr - row.forfeited_ucr),
    ]
    text = f"{row.entry} of {cid(row.bundle)[-8:]}, window {row.window}, {row.tokens} tokens"
    return Entry(
        row.issued_ms, text, "receipt", row.receipt.hex(), tuple(posting for posting in postings if posting[1])
    )


def _paid(payment: Payment) -> Entry:
    postings = [
        (f"Assets:Rails:{_rail(payment.rail)}", payment.ucr - payment.fee_ucr),
        (FEES, payment.fee_ucr),
        (f"Assets:Due:{_component(payment.payer)}", -payment.ucr),
    ]
    id = payment.id.hex()
    return Entry(
        payment.taken_ms, f"Payment by {_rail(payment.rail)}", "payment", id, tuple(p for p in postings if p[1])
    )


def _judged(fee: Fee) -> Entry:
    """What a party owes is due from it; what is owed to it can be set off."""
    account = f"Assets:Due:{_component(fee.party)}" if fee.ucr > 0 else SET_OFF
    postings = ((FEES, -fee.ucr), (account, fee.ucr))
    return Entry(fee.told_ms, "Fee of a dispute", "decision", fee.matter.hex(), postings)


def _component(payer: bytes) -> str:
    """Of an account's name: beancount wants a capital first, and no more than letters, digits and hyphens."""
    return f"P{payer.hex()[:16]}"


def _rail(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name).title() or "Other"


def _accounts(found: list[Entry]) -> Iterator[str]:
    yield from sorted({account for entry in found for account, _ in entry.postings})

"""`fallow statement`: a month or a year of a node, for its owner, their bookkeeping and their taxes."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..node.books import Credit, Statement, as_map, period_of
from ..node.books import statement as read
from ..node.paid import Fee, Payment
from ..protocol.disputes import reference_of
from ..protocol.errors import Code, ConfigError
from ..protocol.identity import cid, short
from . import ledger_text, tax
from .environment import AsJson, State, state_given
from .output import Json, line, print_json, remark, table

COLUMNS = (
    "time", "kind", "payer", "bundle", "entry", "window", "tokens", "id", "owed_ucr", "due_ucr", "held_ucr",
    "released_ucr", "forfeited_ucr", "unpaid_ucr", "settled_ucr", "fee_ucr", "reference",
)  # fmt: skip
WATT_HOURS_MAX = 10**12


def statement(
    *,
    state: State,
    month: Annotated[str | None, Parameter(help="As 2026-11, in UTC.")] = None,
    year: Annotated[str | None, Parameter(help="As 2026, in UTC: one row for each payer.")] = None,
    energy_wh: Annotated[
        int | None, Parameter(help="What the node used in that time, in watt-hours, if you know better than it does.")
    ] = None,
    kwh_ucr: Annotated[int, Parameter(help="What a kilowatt-hour costs you, in micro-credits.")] = 0,
    csv: Annotated[bool, Parameter(help="Every credit and payment as a line.")] = False,
    hledger: Annotated[bool, Parameter(help="As a journal of hledger.")] = False,
    beancount: Annotated[bool, Parameter(help="As a ledger of beancount.")] = False,
    columns: Annotated[Path | None, Parameter(help="With --year: the columns of a tax form, in TOML.")] = None,
    out: Annotated[Path | None, Parameter(help="With --columns: where the form's files go.")] = None,
    json: AsJson = False,
) -> None:
    """What was earned in a month or a year, receipt by receipt, what is held of it, and what has come in; the node may be
    running."""
    if (month is None) == (year is None) or sum((csv, hledger, beancount, json, columns is not None)) > 1:
        raise ConfigError(Code.BAD_CONFIG, "Say --month or --year, and one form of what is to come out.")
    state = state_given(state)
    if (columns is None) != (out is None) or (columns is not None and year is None):
        raise ConfigError(Code.BAD_CONFIG, "A tax form is of a --year, and needs --columns and --out.")
    found = read(state, period_of(month or year or ""), _energy_ucr(energy_wh, kwh_ucr))
    if columns is not None and out is not None:
        for path in tax.write(found, columns, out):
            line(str(path))
    elif json:
        print_json(_as_json(found))
    elif csv:
        _print_csv(found)
    elif hledger or beancount:
        sys.stdout.write(ledger_text.hledger(found) if hledger else ledger_text.beancount(found))
    else:
        _print(found)


def _energy_ucr(watt_hours: int | None, kwh_ucr: int) -> int | None:
    """Rounded up: the owner's costs are never made smaller than they are."""
    if watt_hours is None:
        return None
    if not 0 <= watt_hours <= WATT_HOURS_MAX or kwh_ucr < 0:
        raise ConfigError(Code.BAD_CONFIG, "Energy and its price are no less than nothing.")
    return -(-watt_hours * kwh_ucr // 1000)


def _print(found: Statement) -> None:
    if not found.credits and not found.payments and not found.fees:
        remark(f"Nothing was earned and nothing came in in {found.period.name}.")
        return
    columns = ("payer", "owed ucr ", "due ", "held ", "released ", "forfeited ", "unpaid ", "settled ", "fees ")
    rows = []
    for name, totals in [*((short(key), of) for key, of in found.payers().items()), ("all", found.totals)]:
        sums = (
            totals.owed_ucr, totals.due_ucr, totals.held_ucr, totals.released_ucr, totals.forfeited_ucr,
            totals.unpaid_ucr, totals.settled_ucr, totals.fee_ucr,
        )  # fmt: skip
        rows.append((name, *map(str, sums)))
    table(columns, rows[:-1], footer=rows[-1])
    energy = found.totals.energy_ucr
    line(f"energy: {'not known' if energy is None else f'{energy} ucr'}")
    for each in found.used:
        line(f"  {each}")
    line(f"net: {found.totals.net_ucr} ucr ({len(found.credits)} receipts, {len(found.payments)} payments)")


def _print_csv(found: Statement) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    writer.writerows(_lines(found))


def _lines(found: Statement) -> Iterator[tuple[str | int, ...]]:
    lines = [(credit.row.issued_ms, _credit_line(credit)) for credit in found.credits]
    lines += [(payment.taken_ms, _payment_line(payment)) for payment in found.payments]
    lines += [(fee.told_ms, _fee_line(fee)) for fee in found.fees]
    yield from (line for _, line in sorted(lines, key=lambda pair: pair[0]))


def _credit_line(credit: Credit) -> tuple[str | int, ...]:
    row = credit.row
    return (
        _time(row.issued_ms), "credit", row.payer.hex(), cid(row.bundle), row.entry, row.window, row.tokens,
        row.receipt.hex(), row.owed_ucr, credit.due_ucr, row.held_ucr, credit.released_ucr, row.forfeited_ucr,
        credit.unpaid_ucr, 0, 0, "",
    )  # fmt: skip


def _payment_line(payment: Payment) -> tuple[str | int, ...]:
    # A reference is what somebody else wrote: a spreadsheet must not take it for a formula.
    reference = (
        f"'{payment.reference}" if payment.reference[:1] in "=+-@\t\r" and payment.reference else payment.reference
    )
    return (
        _time(payment.taken_ms), f"payment by {payment.rail}", payment.payer.hex(), "", "", "", "", payment.id.hex(),
        0, 0, 0, 0, 0, 0, payment.ucr, payment.fee_ucr, reference,
    )  # fmt: skip


def _fee_line(fee: Fee) -> tuple[str | int, ...]:
    return (
        _time(fee.told_ms), "fee of a dispute", fee.party.hex(), "", "", "", "", fee.matter.hex(),
        0, 0, 0, 0, 0, 0, 0, -fee.ucr, reference_of(fee.matter),
    )  # fmt: skip


def _as_json(found: Statement) -> Json:
    names = COLUMNS
    return {
        "period": found.period.name,
        "lines": [dict(zip(names, line, strict=True)) for line in _lines(found)],
        "payers": {key.hex(): {**as_map(totals)} for key, totals in found.payers().items()},
        "totals": {**as_map(found.totals)},
        "energy": [
            {
                "source": each.source,
                "measured": each.measured,
                "jobs": each.jobs,
                "millijoules": each.millijoules,
                "ucr": each.ucr,
            }
            for each in found.used
        ],
    }


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

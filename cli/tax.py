"""A year's sums in the columns of somebody's tax form: the form is a file that its user keeps, nothing of it stands here.

rows_max = 250                      # of one file
currency_per_credit = "0.92"        # what a credit was worth
[[column]]
name = "Payer"
field = "payer"
[[column]]
name = "Box 1"
field = "settled"
decimals = 2
[[column]]
name = "Form"
text = "1099-NEC"
"""

from __future__ import annotations

import csv
import tomllib
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from pathlib import Path

from ..node.books import Statement, as_map
from ..protocol.errors import Code, ConfigError
from .environment import usable

ROWS_MAX = 1_000_000
COLUMNS_MAX = 100
DECIMALS_MAX = 6
FIELDS = ("owed", "due", "held", "released", "forfeited", "unpaid", "settled", "fee", "net")


@dataclass(frozen=True, slots=True)
class Column:
    """One of a form's."""

    name: str
    field: str = ""
    text: str = ""
    decimals: int = 2


@dataclass(frozen=True, slots=True)
class Form:
    """What a year is to look like."""

    columns: tuple[Column, ...]
    rows_max: int
    per_credit: Decimal


def write(statement: Statement, template: Path, folder: Path) -> list[Path]:
    """The form's files, numbered from 1: a row for each payer. Raises `ConfigError(bad_config)` naming what is wrong with the
    template."""
    form = read(template)
    rows = [
        [_cell(column, form, key, as_map(totals)) for column in form.columns]
        for key, totals in statement.payers().items()
    ]
    paths = []
    with usable("the folder for the form", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number, first in enumerate(range(0, len(rows), form.rows_max), 1):
            path = folder / f"{statement.period.name}-{number}.csv"
            with path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow([column.name for column in form.columns])
                writer.writerows(rows[first : first + form.rows_max])
            paths.append(path)
    return paths


def read(template: Path) -> Form:
    """Raises `ConfigError(bad_config)`."""
    try:
        table = tomllib.loads(template.read_text("utf-8"))
    except OSError as error:
        raise _bad(template, f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _bad(template, f"is not TOML: {error}") from None
    if strange := sorted(set(table) - {"rows_max", "currency_per_credit", "column"}):
        raise _bad(template, f"has no setting `{strange[0]}`")
    rows_max, columns = table.get("rows_max", 250), table.get("column", [])
    if type(rows_max) is not int or not 1 <= rows_max <= ROWS_MAX:
        raise _bad(template, f"`rows_max` is a whole number from 1 to {ROWS_MAX}")
    if not isinstance(columns, list) or not 1 <= len(columns) <= COLUMNS_MAX:
        raise _bad(template, f"needs 1 to {COLUMNS_MAX} columns")
    try:
        per_credit = Decimal(str(table.get("currency_per_credit", "1")))
    except InvalidOperation:
        raise _bad(template, "`currency_per_credit` is a decimal number in quotes") from None
    if not per_credit.is_finite() or per_credit <= 0:
        raise _bad(template, "`currency_per_credit` is more than nothing")
    return Form(tuple(_column(template, each) for each in columns), rows_max, per_credit)


def _column(template: Path, table: object) -> Column:
    known = {"name": str, "field": str, "text": str, "decimals": int}
    if not isinstance(table, dict) or any(type(value) is not known.get(key) for key, value in table.items()):
        raise _bad(template, f"a column has no more than {', '.join(known)}")
    column = Column(**table) if "name" in table else None
    if column is None or ("field" in table) == ("text" in table):
        raise _bad(template, "a column has a `name`, and a `field` or a `text`")
    if "field" in table and column.field not in (*FIELDS, "payer"):
        raise _bad(template, f"the field {column.field!r} is none of payer, {', '.join(FIELDS)}")
    if not 0 <= column.decimals <= DECIMALS_MAX:
        raise _bad(template, f"`decimals` is from 0 to {DECIMALS_MAX}")
    return column


def _cell(column: Column, form: Form, payer: bytes, totals: dict[str, int | None]) -> str:
    if not column.field:
        return column.text
    if column.field == "payer":
        return payer.hex()
    worth = Decimal(totals[f"{column.field}_ucr"] or 0) * form.per_credit / 1_000_000
    return str(worth.quantize(Decimal(1).scaleb(-column.decimals), rounding=ROUND_HALF_EVEN))


def _bad(template: Path, problem: str) -> ConfigError:
    return ConfigError(Code.BAD_CONFIG, f"The form {template} {problem}.")

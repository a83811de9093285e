"""`fallow purse`: the ecash at hand, and how it gets there."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import Parameter

from ..node.log import wall_ms
from ..protocol.errors import Code, ConfigError, RemoteProtocolError
from .environment import AsJson
from .output import Json, line, print_json, progress, remark, table
from .side import Whose, side_of

UNITS_MAX: Final = 10**9
"""At once: what a wallet holds in cash is what it can lose."""


def show(*, state: Whose = None, json: AsJson = False) -> None:
    """What is in the purse, at which mint, and the key to which others lock what is for you."""
    with side_of(state) as side:
        purse = side.purse
        units, per_unit = purse.balance, purse.ucr_per_unit
        _, mint, _ = purse.terms.split(" ")
        key, bills = purse.address, purse.quotes.waiting()
    if json:
        said: dict[str, Json] = {
            "key": key,
            "mint": mint,
            "units": units,
            "ucr_per_unit": per_unit,
            "ucr": units * per_unit,
        }
        print_json({**said, "bills": _bills(bills)})
        return
    line(f"{units} units, {units * per_unit} ucr at {per_unit} ucr a unit")
    line(f"mint {mint}")
    line(f"key  {key}")
    if bills:
        remark("Not paid yet, as far as is known here (`fallow purse fill` looks):")
        table(("units ", "Lightning invoice"), [(str(amount), invoice) for _, amount, invoice in bills])


def fill(
    units: Annotated[int, Parameter(help="Of the mint's unit; none: what was paid meanwhile is taken in.")] = 0,
    /,
    *,
    state: Whose = None,
    json: AsJson = False,
) -> None:
    """With a number, the mint's bill for so much, which any Lightning wallet pays. What was paid is in the purse then."""
    if not 0 <= units <= UNITS_MAX:
        raise ConfigError(Code.BAD_CONFIG, f"One unit to {UNITS_MAX} at once.")
    with side_of(state) as side, progress("asking the mint"):
        purse = side.purse
        if units:
            purse.quotes.ask(units)
        filled = 0
        for quote, amount, _ in purse.quotes.waiting():
            try:
                purse.quotes.fill(amount, quote)
                filled += amount
            except RemoteProtocolError:  # not paid yet
                if purse.quotes.is_over(quote, wall_ms() // 1000):
                    purse.quotes.drop(quote)
        bills, balance = purse.quotes.waiting(), purse.balance
    if json:
        print_json({"filled_units": filled, "units": balance, "bills": _bills(bills)})
        return
    for _, amount, invoice in bills:
        line(f"{amount} units: {invoice}")
    if bills:
        remark("Pay with any Lightning wallet, then `fallow purse fill` takes it in.")
    line(f"{filled} units are new in the purse, which has {balance}.")


def _bills(bills: list[tuple[str, int, str]]) -> Json:
    return [{"quote": quote, "units": amount, "invoice": invoice} for quote, amount, invoice in bills]

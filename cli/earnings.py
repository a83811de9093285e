"""`fallow earnings`: what a node earned by receipt, day and month, and what other preferences would have brought."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from ..node import whatif
from ..node.earnings import Earning
from ..node.earnings import earnings as earned
from ..node.income import Income, by_day, by_month, local_day, total
from ..node.log import wall_ms
from ..node.whatif import Answer
from ..protocol.errors import Code, ConfigError
from ..protocol.identity import cid
from .environment import AsJson, State, state_given
from .output import Json, line, print_json, remark, table

DAYS_MAX: Final = 3660
WHAT_IF_DAYS: Final = 31


def earnings(
    *,
    state: State,
    by: Annotated[Literal["receipt", "day", "month"], Parameter(help="What each line is of.")] = "receipt",
    what_if: Annotated[
        tuple[str, ...],
        Parameter(
            help="Another preference, as battery_charge_min_pct=40; several together, if given again.",
            negative=(),
            consume_multiple=False,
        ),
    ] = (),
    days: Annotated[int | None, Parameter(help="Only the last so many days, by this machine's clock.")] = None,
    json: AsJson = False,
) -> None:
    """What vouchers cover of each receipt, and what of that is held; by day or month, beside energy, wear and hours; the node
    may be running.

    With `--what-if`, the readings that the node has kept go through the policy again, under other preferences.
    """
    state = state_given(state)
    if days is not None and not 0 < days <= DAYS_MAX:
        raise ConfigError(Code.BAD_CONFIG, f"--days: say one to {DAYS_MAX} days.")
    today = local_day(wall_ms())
    if what_if:
        found = whatif.ask(state, whatif.parsed(what_if), today + 1 - (days or WHAT_IF_DAYS))
        print_json(_asked_json(found)) if json else _print_answer(found)
    elif by == "receipt" and days is None:
        _print_receipts(earned(state), json)
    else:
        sums = by_day(state, 0 if days is None else today + 1 - days)
        _print_sums(by_month(sums) if by == "month" else sums, json)


def _print_receipts(rows: list[Earning], json: bool) -> None:
    owed, paid = sum(row.owed_ucr for row in rows), sum(row.paid_ucr for row in rows)
    held, forfeited = sum(row.held_ucr for row in rows), sum(row.forfeited_ucr for row in rows)
    if json:
        totals: Json = {
            "receipts": len(rows),
            "owed_ucr": owed,
            "vouchered_ucr": paid,
            "held_ucr": held,
            "forfeited_ucr": forfeited,
        }
        print_json({"receipts": [_as_json(row) for row in rows], "totals": totals})
    elif rows:
        columns = ("time (UTC)", "bundle", "entry", "window ", "tokens ", "ucr ", "voucher")
        tokens = str(sum(row.tokens for row in rows))
        vouchered = f"{paid} ucr vouchered" + (f", {held} of it held" if held else "")
        vouchered += f", {forfeited} forfeited" if forfeited else ""
        footer = (f"{len(rows)} receipts", "", "", "", tokens, str(owed), vouchered)
        table(columns, [_row(row) for row in rows], footer=footer)
    else:
        remark("No receipt yet.")


def _print_sums(found: list[Income], json: bool) -> None:
    if json:
        print_json({"sums": [_sums_json(each) for each in found], "total": _sums_json(total("total", found))})
    elif found:
        columns = ("", "receipts ", "due ", "held ", "energy ", "wear ", "net ucr ", "Wh ", "lent h ", "not lent h ")
        table(columns, [_sums_row(each) for each in found], footer=_sums_row(total("total", found)))
    else:
        remark("Nothing was earned and nothing used.")


def _sums_row(each: Income) -> tuple[str, ...]:
    def known(value: int | None, unit: int = 1) -> str:
        return "not known" if value is None else str(value) if unit == 1 else f"{value / unit:.1f}"

    return (
        each.name, str(each.receipts), str(each.due_ucr), str(each.held_ucr), known(each.energy_ucr), known(each.wear_ucr),
        str(each.net_ucr), known(each.energy_wh), known(each.lent_min, 60), known(each.withheld_min, 60),
    )  # fmt: skip


def _sums_json(each: Income) -> dict[str, Json]:
    return {**asdict(each), "net_ucr": each.net_ucr}


def _print_answer(found: Answer) -> None:
    line(str(found))
    columns = ("day", "lent h ", "would have been h ", "an hour brought ucr ", "more ucr ")
    rows = [
        (
            day.name,
            f"{day.lent_h:.1f}",
            f"{day.would_h:.1f}",
            "not known" if day.ucr_per_h is None else f"{day.ucr_per_h:.0f}",
            "not known" if day.more_ucr is None else str(day.more_ucr),
        )
        for day in found.days
    ]
    table(columns, rows)
    for code, hours in found.against_h.items():
        line(f"{hours:.1f} h it was not lent for `{code}` alone.")
    remark(whatif.ASSUMPTION)


def _asked_json(found: Answer) -> Json:
    return {
        "changes": {
            word: value if isinstance(value, bool | int | float) else str(value)
            for word, value in found.changes.items()
        },
        "days": [{**asdict(day), "more_ucr": day.more_ucr} for day in found.days],
        "lent_h": found.total.lent_h,
        "would_h": found.total.would_h,
        "more_ucr": found.more_ucr,
        "withheld_alone_h": dict(found.against_h),
        "assumption": whatif.ASSUMPTION,
    }


def _row(row: Earning) -> tuple[str, ...]:
    time = datetime.fromtimestamp(row.issued_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return time, cid(row.bundle)[-8:], row.entry, str(row.window), str(row.tokens), str(row.owed_ucr), _answer(row)


def _answer(row: Earning) -> str:
    if row.voucher:
        return row.voucher.hex()[:8]
    if row.paid_ucr == row.owed_ucr:
        return "covered by a later one"
    return f"{row.paid_ucr} of it covered by a later one" if row.paid_ucr else "unpaid"


def _as_json(row: Earning) -> Json:
    return {
        "issued_ms": row.issued_ms,
        "payer": row.payer.hex(),
        "bundle": cid(row.bundle),
        "entry": row.entry,
        "window": row.window,
        "tokens": row.tokens,
        "added_ucr": row.owed_ucr,
        "paid_ucr": row.paid_ucr,
        "held_ucr": row.held_ucr,
        "forfeited_ucr": row.forfeited_ucr,
        "receipt": row.receipt.hex(),
        "voucher": row.voucher.hex() if row.voucher else None,
    }

"""`fallow earnings`: what a node earned, receipt by receipt."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..node import store
from ..node.store import Earning
from ..protocol.errors import Code, ConfigError
from ..protocol.identity import cid
from .environment import AsJson
from .output import Json, print_json, remark, table


def earnings(*, state: Annotated[Path, Parameter(help="The node's state directory.")], json: AsJson = False) -> None:
    """Every receipt that the node issued, what vouchers cover of it and what of that is held; the node may be running."""
    if not state.is_dir():
        raise ConfigError(Code.BAD_CONFIG, f"There is no state directory {state}; `state` in node.toml names it.")
    rows = store.earnings(state)
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

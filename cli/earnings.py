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
    """Every receipt that the node issued, and the voucher that answered it; the node may be running."""
    if not state.is_dir():
        raise ConfigError(Code.BAD_CONFIG, f"There is no state directory {state}; `state` in node.toml names it.")
    rows = store.earnings(state)
    owed, paid = sum(row.owed_ucr for row in rows), sum(row.owed_ucr for row in rows if row.voucher)
    if json:
        totals: Json = {"receipts": len(rows), "owed_ucr": owed, "vouchered_ucr": paid}
        print_json({"receipts": [_as_json(row) for row in rows], "totals": totals})
    elif rows:
        columns = ("time (UTC)", "bundle", "entry", "window ", "tokens ", "ucr ", "voucher")
        tokens = str(sum(row.tokens for row in rows))
        footer = (f"{len(rows)} receipts", "", "", "", tokens, str(owed), f"{paid} ucr vouchered")
        table(columns, [_row(row) for row in rows], footer=footer)
    else:
        remark("No receipt yet.")


def _row(row: Earning) -> tuple[str, ...]:
    time = datetime.fromtimestamp(row.issued_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    voucher = row.voucher.hex()[:8] if row.voucher else "unpaid"
    return time, cid(row.bundle)[-8:], row.entry, str(row.window), str(row.tokens), str(row.owed_ucr), voucher


def _as_json(row: Earning) -> Json:
    return {
        "issued_ms": row.issued_ms,
        "payer": row.payer.hex(),
        "bundle": cid(row.bundle),
        "entry": row.entry,
        "window": row.window,
        "tokens": row.tokens,
        "added_ucr": row.owed_ucr,
        "receipt": row.receipt.hex(),
        "voucher": row.voucher.hex() if row.voucher else None,
    }

"""`fallow settle`: who owes the owner of a node what, and what has come in for it."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

from blake3 import blake3
from cyclopts import Parameter

from ..node.debts import Debt, debts
from ..node.journal import Journal
from ..node.keys import load
from ..node.paid import Payment
from ..node.rails.bank import transfer_id
from ..node.rails.opening import BANK, LEDGER
from ..protocol.codec import encode
from ..protocol.errors import Code, ConfigError
from ..protocol.identity import short
from .environment import AsJson, State, hex_of_32, state_given
from .output import Json, line, print_json, remark, table

MANUAL = "manual"
UCR_MAX = 2**53 - 1


def settle(
    payer: str | None = None,
    ucr: int = 0,
    /,
    *,
    state: State,
    reference: Annotated[
        str, Parameter(help="What names the payment for you, as on the bank's statement: counted once.")
    ] = "",
    rail: Annotated[str, Parameter(help="How it came.")] = MANUAL,
    fee: Annotated[int, Parameter(help="Of the micro-credits, those that whoever moved it has kept.")] = 0,
    json: AsJson = False,
) -> None:
    """Without a payer, what each owes; with one, so many micro-credits have come in from them. The node may be running."""
    state = state_given(state)
    if payer is not None:
        _take(
            state,
            hex_of_32(payer, "client's public key in hex: `fallow settle` lists them."),
            ucr,
            reference,
            rail,
            fee,
        )
    rows = debts(state)
    if json:
        print_json({"debts": [_as_json(row) for row in rows]})
    elif rows:
        columns = ("payer", "receipts ", "owed ucr ", "promised ", "settled ", "open ")
        table(columns, [_row(row) for row in rows])
    else:
        remark("Nobody owes anything yet.")


def _take(state: Path, payer: bytes, ucr: int, reference: str, rail: str, fee: int) -> None:
    if not 0 < ucr <= UCR_MAX or not 0 <= fee <= ucr:
        raise ConfigError(
            Code.BAD_CONFIG, "A payment is of at least one micro-credit, and its fee no more than all of it."
        )
    if rail == LEDGER:
        raise ConfigError(Code.BAD_CONFIG, "A set-off is counted when it is taken (`fallow pay`), and never by hand.")
    if not reference.strip():
        raise ConfigError(Code.BAD_CONFIG, "Say by `--reference` which payment this is: the same one is counted once.")
    if not any(row.payer == payer for row in debts(state)):
        remark(f"Nothing was delivered to {short(payer)} so far: this is paid ahead.")
    if rail == BANK:  # the node may have counted it, or may yet be handed the same transfer
        id = transfer_id(payer, _node(state), reference)
    else:
        id = blake3(encode(["fallow/1/payment", rail, payer, reference])).digest()
    payment = Payment(id, payer, rail, ucr, fee, reference, time.time_ns() // 1_000_000)
    with closing(Journal(state)) as journal:
        counted = journal.add_payment(payment)
    line(
        f"{ucr} ucr of {short(payer)} are written down."
        if counted
        else "This reference was counted before: nothing changed."
    )


def _node(state: Path) -> bytes:
    try:
        return bytes(load(state / "node.key").verify_key)
    except FileNotFoundError:
        raise ConfigError(Code.BAD_CONFIG, f"{state} has no `node.key`: which node was paid is not known.") from None


def _row(row: Debt) -> tuple[str, ...]:
    return (
        row.payer.hex(), str(row.receipts), str(row.owed_ucr), str(row.promised_ucr), str(row.settled_ucr),
        str(row.open_ucr),
    )  # fmt: skip


def _as_json(row: Debt) -> Json:
    return {
        "payer": row.payer.hex(),
        "receipts": row.receipts,
        "owed_ucr": row.owed_ucr,
        "promised_ucr": row.promised_ucr,
        "settled_ucr": row.settled_ucr,
        "open_ucr": row.open_ucr,
    }

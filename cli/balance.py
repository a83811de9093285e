"""`fallow balance`: what each party owes and is owed, by the ledger of mutual debts."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..node.log import wall_ms
from ..node.rails.fates import Fate
from ..protocol.identity import short
from .environment import AsJson, hex_of_32
from .output import Json, line, print_json, progress, remark, table
from .side import Side, Whose, side_of


def balance(
    party: Annotated[str | None, Parameter(help="Only this one, entry by entry: its public key, in hex.")] = None,
    /,
    *,
    state: Whose = None,
    json: AsJson = False,
) -> None:
    """What is due by vouchers and by decisions, less what was paid: who owes you, and whom you owe. A node may be running.

    What is held back is not due yet. The other side's own ledger comes to the same once it has all your vouchers. A deposit
    that a node has taken counts as paid: the mint is asked about those that are open.
    """
    key = None if party is None else hex_of_32(party, "public key of 64 hex digits: `fallow balance` lists them.")
    with side_of(state) as side:
        unseen = _unseen(side)
        if key is not None:
            _show_entries(side, key, unseen, json=json)
        else:
            _show_parties(side, unseen, json=json)
    if unseen:
        names = ", ".join(repr(reference) for reference in unseen)
        remark(f"No mint says what became of {names}: what a node has taken of it is not counted here yet.")


def _unseen(side: Side) -> list[str]:
    """Deposits for nodes of which nobody says whether they were taken."""
    with progress("asking the mint"):
        deposits = side.fates.look(wall_ms() // 1000)
    return [each.made.reference for each in deposits if each.fate is Fate.UNKNOWN and each.made.for_node]


def _show_entries(side: Side, key: bytes, unseen: list[str], *, json: bool) -> None:
    entries = side.ledger.entries(key)
    ours, theirs = (sum(each.ours_ucr for each in entries), sum(each.theirs_ucr for each in entries))
    if json:
        said: Json = [{"reference": e.reference, "ours_ucr": e.ours_ucr, "theirs_ucr": e.theirs_ucr} for e in entries]
        print_json(
            {"party": key.hex(), "entries": said, "ours_ucr": ours, "theirs_ucr": theirs, "unseen_deposits": unseen}
        )
    elif entries:
        rows = [(e.reference, str(e.ours_ucr), str(e.theirs_ucr)) for e in entries]
        table(("entry", "owes you ucr ", "you owe ucr "), rows, footer=("all", str(ours), str(theirs)))
    else:
        remark(f"There is nothing between you and {short(key)}.")


def _show_parties(side: Side, unseen: list[str], *, json: bool) -> None:
    found = side.ledger.balances()
    if json:
        parties: Json = [
            {"party": key.hex(), "ours_ucr": ours, "theirs_ucr": theirs, "balance_ucr": ours - theirs}
            for key, (ours, theirs) in found.items()
        ]
        print_json({"of": side.party.hex(), "parties": parties, "unseen_deposits": unseen})
    elif found:
        rows = [(key.hex(), str(ours), str(theirs), str(ours - theirs)) for key, (ours, theirs) in found.items()]
        table(("party", "owes you ucr ", "you owe ucr ", "net ucr "), rows)
    else:
        line("Nobody owes you anything, nor you anybody.")

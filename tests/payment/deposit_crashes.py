"""Run as a program: a deposit is made and taken back, at a real mint, by a process that is killed at one write of its disk, for
each of its writes, and then does the same again.

    python -m ... FOLDER MINT
"""

from __future__ import annotations

import sys
from contextlib import closing
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from crashes import RUNS_MAX, Killer, in_a_process

from fallow.node.rails.cashu import Cashu
from fallow.node.rails.deposits import DepositBook, Made
from fallow.node.rails.rail import Invoice

KEY, PAYEE, UNIT_UCR = b"\x01" * 32, b"\x02" * 32, 1_000
FUNDED, UCR, OVER_S = 21, 8 * UNIT_UCR, 1_700_000_000
"""The deposit's time is over when it is made, so that it can be taken back at once."""
REFERENCE = "spring"


def purse_of(folder: Path, mint: str) -> Cashu:
    return Cashu(folder / "purse.sqlite", mint, KEY, UNIT_UCR)


def fund(folder: Path, mint: str) -> None:
    with closing(purse_of(folder, mint)) as purse:
        purse.quotes.fill(FUNDED, purse.quotes.ask(FUNDED))


def make_and_take_back(folder: Path, mint: str) -> None:
    """As the commands do it, one after the other."""
    with closing(purse_of(folder, mint)) as purse, closing(DepositBook(folder)) as book:
        address = Cashu(folder / "payee.sqlite", mint, PAYEE, UNIT_UCR).address
        made = book.begin(Made(REFERENCE, PAYEE, address, "here", UCR, OVER_S))
        means = purse.pay(Invoice(KEY, made.payee, made.address, made.ucr, made.reference), until_s=made.until_s)
        book.note_handed(REFERENCE, "here")
        purse.take_back(means, OVER_S)
        book.note_back(REFERENCE)


def look(folder: Path, mint: str) -> None:
    """As `deposit list` does: what its maker has taken back, its payee has not taken."""
    with closing(purse_of(folder, mint)) as purse, closing(DepositBook(folder)) as book:
        for made in book.all_made():
            invoice = Invoice(KEY, made.payee, made.address, made.ucr, made.reference)
            if means := purse.means_of(invoice):
                assert not purse.is_taken(means)


def main(folder: Path, mint: str) -> None:
    for before in (True, False):
        for number in range(1, RUNS_MAX):
            place = folder / f"{number}-{'before' if before else 'after'}"
            place.mkdir()
            assert not in_a_process(partial(fund, place, mint))
            killed = in_a_process(partial(make_and_take_back, place, mint), Killer(number, before=before))
            assert not in_a_process(partial(look, place, mint))
            assert not in_a_process(partial(make_and_take_back, place, mint))
            if not killed:
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

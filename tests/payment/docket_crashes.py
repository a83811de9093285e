"""Run as a module: a judge hears a dispute and decides it, and is asked again; it is killed at one write of its disk, for each
of its writes, and whoever asks begins anew.

    python -m tests.payment.docket_crashes FOLDER (answered|silent)      whether the accused answers

Each run leaves a folder with the judge's files, and in `told` what it said of the decision, a line each.
"""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import trio

from fallow.node.accounts import Accounts
from fallow.node.paying import Paying
from fallow.node.rails.journal_books import journal_books
from fallow.node.rails.ledger import Ledger
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Refused

from ..client.test_tribunal import Bench
from .crashes import RUNS_MAX, Killer, in_a_process

TOLD = "told"


def ledger_of(bench: Bench, folder: Path) -> Ledger:
    return Ledger(folder / "ledger.sqlite", bench.key, journal_books(folder))


async def hear(folder: Path, *, answered: bool) -> None:
    """All that is asked of the judge, from the first to the last, whatever came of it before."""
    bench = Bench(folder)
    with closing(bench.docket), closing(bench.journal), closing(ledger_of(bench, folder)) as ledger:
        accounts = Accounts(bench.journal, lambda: bench.now_ms)
        bench.tribunal.accounts = accounts
        bench.tribunal.owe = Paying({ledger.name: ledger}, accounts).owe
        with suppress(Refused):  # the accused may still answer
            await bench.says()
        pleas = [bench.opens()] if answered else []
        for plea in pleas:
            await bench.says(plea)
        bench.now_ms += 0 if answered else bench.dispute.record.answer_ms
        for _ in range(2):
            decision = await bench.brings(*pleas)
            with (folder / TOLD).open("a") as told:
                told.write(sign(decision, bench.key).envelope.hex() + "\n")


def main(folder: Path, how: str) -> None:
    hearing = partial(hear, answered=how == "answered")
    for before in (True, False):
        for number in range(1, RUNS_MAX):
            place = folder / f"{number}-{'before' if before else 'after'}"
            place.mkdir()
            killed = in_a_process(partial(trio.run, hearing, place), Killer(number, before=before))
            assert not in_a_process(partial(trio.run, hearing, place))
            if not killed:
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

"""Run as a program: a client has texts checked, and finds out who lies; it is killed at each point at which its wallet's or its
history's file changes, and whoever comes after it sees to what it left, and does nothing else.

    python -m ... FOLDER (friends|liar)

Each run leaves a folder with the files of the client and of its nodes, and `found.json`: what the successor found on disk.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent))

from crashes import RUNS_MAX, Killer, in_a_process
from village import CAROL, DAVE, ERIN, FRED, GRACE, PUBLISHED, RESIDENTS, Village, village

from fallow.client.history import Subject
from fallow.node.log import wall_ms
from fallow.protocol.identity import EXECUTOR

FILES = ("wallet.db", "history.sqlite")
FOUND = "found.json"
COUSIN, RECORD = b"\x77" * 32, 60
"""Another node of Erin's owner's, with so many good results behind it."""
CHECKED, UNCHECKED = "adaptive:20000", "audit:1"
"""All windows of a newcomer's are checked; of a million, one is."""


async def friends(at: Village) -> None:
    """Erin lies, at first unseen, then with Fred's word for it; once Fred is found out, so is she, by what was kept."""
    await at.text(CHECKED, ERIN, CAROL)
    at.lies(ERIN)
    await at.text(UNCHECKED, ERIN, CAROL)
    at.lies(FRED)
    await at.text(CHECKED, ERIN, FRED)
    at.only(*RESIDENTS)
    await at.team.auditor.failed(FRED.id, FRED.owner, "confirmed a transcript of which a token had been changed")
    at.team.late.suspect(FRED.owner)


async def liar(at: Village) -> None:
    """Erin was honest, and unchecked; then she lies, and is found out at once. Somebody else goes on."""
    await at.text(UNCHECKED, ERIN, CAROL)
    at.lies(ERIN)
    await at.text(CHECKED, ERIN, CAROL, DAVE, GRACE)
    at.only(*RESIDENTS)


STORIES: dict[str, Callable[[Village], Awaitable[None]]] = {"friends": friends, "liar": liar}


async def live(folder: Path, story: str) -> None:
    async with village(folder) as at:
        at.history.passed(Subject(COUSIN, ERIN.owner, PUBLISHED.id, "class"), EXECUTOR, wall_ms(), RECORD)
        await STORIES[story](at)


async def see_to(folder: Path) -> None:
    found = look(folder)
    async with village(folder) as at:
        found["distrusted"] = [node.hex() for node in at.team.desk.wallet.distrusted]
    (folder / FOUND).write_text(json.dumps(found))


def look(folder: Path) -> dict[str, list[str]]:
    """What lies on disk: receipts that are neither answered nor refused, and nodes at fault, if there is anything yet."""
    asked = {
        "open": ("wallet.db", "SELECT id FROM receipts WHERE NOT refused AND id NOT IN (SELECT receipt FROM vouchers)"),
        "at_fault": ("history.sqlite", "SELECT DISTINCT node FROM faults"),
    }
    found: dict[str, list[str]] = {}
    for name, (file, query) in asked.items():
        with closing(sqlite3.connect(folder / file)) as db:
            table = query.partition(" FROM ")[2].split()[0]
            there = db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
            found[name] = [row[0].hex() for row in db.execute(query)] if there else []
    return found


def main(folder: Path, story: str) -> None:
    for number in range(1, RUNS_MAX):
        place = folder / f"{number:03}"
        place.mkdir()
        killed = in_a_process(partial(trio.run, live, place, story), Killer(number, before=True, whole=True), FILES)
        assert not in_a_process(partial(trio.run, see_to, place))
        if not killed:
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

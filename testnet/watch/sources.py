"""What can be read of a test network without disturbing it: event logs, journals, wallets. Nothing here writes."""

from __future__ import annotations

import json
import os
import sqlite3
import tomllib
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...node.journal_file import JOURNAL
from ...node.transaction import read_only
from ...protocol.checks import Verdict
from ...protocol.envelope import verify_any_signer_untrusted
from ...protocol.errors import RemoteProtocolError

READ_BYTES_MAX: Final = 256 * 1024
"""Of one log in one look: what a node writes in some minutes under load. A longer backlog is caught up with over several."""
RECENT_MAX: Final = 12
"""Events of one node that are kept to be shown."""
VERDICTS_MAX: Final = 256
"""Read from one wallet in one look."""
BUSY_S: Final = 0.2
"""A writer holds SQLite's files for milliseconds; what cannot be read now is read at the next look."""
WALLETS_MAX: Final = 32
WALLET: Final = "wallet.db"
FAULTS: Final = "faults.jsonl"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a node's log, in few words."""

    time_ms: int
    what: str


class Tail:
    """A file of lines that grows, and perhaps begins anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._file = 0

    def lines(self) -> list[bytes]:
        """The whole lines that were written since the last time; none while the file cannot be read."""
        try:
            with self._path.open("rb") as stream:
                found, inode = stream.seek(0, os.SEEK_END), os.fstat(stream.fileno()).st_ino
                if found < self._offset or inode != self._file:
                    self._offset, self._file = 0, inode
                stream.seek(self._offset)
                part = stream.read(READ_BYTES_MAX)
        except OSError:
            return []
        whole = part[: part.rfind(b"\n") + 1]
        if not whole and len(part) == READ_BYTES_MAX:
            whole = part  # no line at all: it is skipped
        self._offset += len(whole)
        return whole.splitlines()


class LogTail:
    """A node's log, read as it grows: what was counted in it, and its last events."""

    def __init__(self, path: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.tokens = 0
        self.yield_ms: int | None = None
        """How long the last yield took."""
        self.recent: deque[Event] = deque(maxlen=RECENT_MAX)
        self._tail = Tail(path)

    def read(self) -> None:
        """What was written since the last time is counted."""
        for line in self._tail.lines():
            self._count(line)

    def _count(self, line: bytes) -> None:
        event = _object(line)
        name, time_ms = str(event.get("event", "")), _number(event.get("time_ms"))
        if not name or not time_ms:
            return
        self.counts[f"{name}:{event.get('state')}" if name == "job_ended" else name] += 1
        if name == "job_ended":
            self.tokens += _number(event.get("tokens"))
        elif name == "yielded":
            self.yield_ms = _number(event.get("took_ms"))
        if (words := _in_words(name, event)) is not None:
            self.recent.append(Event(time_ms, words))

    @property
    def jobs_settled(self) -> int:
        return self.counts["job_ended:settled"]

    @property
    def jobs_lost(self) -> int:
        """Ended in another way than by a last voucher."""
        return sum(n for name, n in self.counts.items() if name.startswith("job_ended:")) - self.jobs_settled


def _in_words(name: str, event: dict[str, Any]) -> str | None:
    """The event for a person; None for what is too common to be news."""
    match name:
        case "job_accepted":
            return None
        case "worker_gone":
            return f"worker gone: {event.get('why')}" if event.get("code") else None
        case "job_ended" if event.get("state") == "settled":
            return None
        case "job_ended":
            return f"job {event.get('state')}: {event.get('tokens')} tokens, {event.get('amount_ucr')} ucr"
        case "job_refused":
            return f"refused: {event.get('why')}"
        case "yielded":
            return f"yielded in {event.get('took_ms')} ms: {event.get('reason')}"
        case "stream_broken":
            return f"broken off: {_plain(event.get('why'))}"
        case _:
            rest = {key: _plain(value) for key, value in event.items() if key not in ("event", "time_ms", "why")}
            said = ", ".join(f"{key} {value}" for key, value in rest.items() if value)
            why = _plain(event.get("why"))
            return f"{name.replace('_', ' ')} {said}".strip() + (f": {why}" if why else "")


def _plain(value: object) -> str:
    """A field of an event in words; empty if it says nothing."""
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return "" if value is None or value == "none" else str(value)


class FaultTail:
    """What the testnet itself did to its nodes, as it wrote that down."""

    def __init__(self, directory: Path) -> None:
        self.recent: deque[Event] = deque(maxlen=RECENT_MAX)
        self._tail = Tail(directory / FAULTS)

    def read(self) -> None:
        """What was written since the last time is there."""
        for line in self._tail.lines():
            event = _object(line)
            nodes = event.get("nodes")
            where = ", ".join(map(str, nodes)) if isinstance(nodes, list) else "all"
            what = f"{event.get('fault')} {'ends' if event.get('act') == 'end' else 'begins'}: {where}"
            self.recent.append(Event(_number(event.get("time_ms")), what))


def _object(line: bytes) -> dict[str, Any]:
    """The object that the line is; an empty one if it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def money(state: Path) -> tuple[int, int]:
    """(ucr that the node's receipts claim, of them promised by vouchers). Raises `OSError` while it cannot be read."""
    path = state / JOURNAL
    if not path.exists():
        return 0, 0
    rows = _query(
        path,
        """SELECT (SELECT coalesce(sum(owed_ucr), 0) FROM receipts),
                  (SELECT coalesce(sum(promised), 0) FROM (
                      SELECT max(due_ucr + held_ucr) AS promised FROM vouchers GROUP BY channel))""",
    )
    return int(rows[0][0]), int(rows[0][1])


@dataclass(slots=True)
class WalletTail:
    """A client's wallet, read as it grows: its verdicts by outcome, and whom it found at fault."""

    path: Path
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[bytes, str] = field(default_factory=dict)
    """Node -> why."""
    _last: int = 0

    def read(self) -> None:
        """New verdicts are counted; one that does not hold is not. Raises `OSError` while it cannot be read."""
        asked = "SELECT rowid, envelope FROM verdicts WHERE rowid > ? ORDER BY rowid LIMIT ?"
        for number, envelope in _query(self.path, asked, self._last, VERDICTS_MAX):
            self._last = number
            try:
                verdict = verify_any_signer_untrusted(Verdict, envelope).record
            except RemoteProtocolError:
                continue
            self.outcomes[verdict.outcome] += 1
        self.faults = dict(_query(self.path, "SELECT node, reason FROM faults LIMIT ?", VERDICTS_MAX))


def wallets_in(directory: Path) -> list[Path]:
    """The wallets of clients whose homes lie in the network's directory."""
    found = [path for depth in ("", "*/", "*/*/") for path in directory.glob(f"{depth}{WALLET}")]
    return sorted(found)[:WALLETS_MAX]


def region_of(state: Path) -> str:
    """The region in the node's settings; empty if they name none."""
    try:
        region = tomllib.loads((state / "node.toml").read_text()).get("region", "")
    except (OSError, ValueError):
        return ""
    return region if isinstance(region, str) else ""


def _query(path: Path, statement: str, *values: int) -> list[Any]:
    """Rows of a database that others write. Raises `OSError` if it cannot be read now."""
    try:
        with read_only(path, BUSY_S) as db:
            return db.execute(statement, values).fetchall()
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None

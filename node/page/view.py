"""What the owner's page shows, gathered from the node's parts: of jobs never more than their sums."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import trio

from .. import diary
from ..availability import Availability
from ..earnings import earnings
from ..income import Income, begin_ms, by_day, by_month, local_day
from ..lending import Lending
from ..log import wall_ms
from ..machine import beside
from ..purse import Kept, purse
from ..recording import Recorder
from ..rules.hours import DAY_MS
from ..rules.preferences import WORDS, as_table
from ..rules.signals import Signal
from ..settings import line_of
from ..tally import Tally
from ..whatif import ASSUMPTION, Answer, parsed
from ..words import budget_in_words, next_in_words, now_in_words, said, temperature_in_words
from .asking import asked

DAYS_SHOWN: Final = 62
"""This month and the one before."""
WHAT_IF_DAYS: Final = 7
"""A week's replay takes a second or two of one core."""
SLOT_MS: Final = 5 * 60_000
"""Of the day's chart: 288 points."""
INCOME_S: Final = 30.0
DAY_S: Final = 10.0
TABLES: Final = ("tariff", "departures")
"""Words whose values are no single one."""
PAUSES: Final = ((3600, "1 hour"), (4 * 3600, "4 hours"), (24 * 3600, "1 day"))


@dataclass(frozen=True, slots=True)
class Preference:
    """One word, as the page shows it."""

    word: str
    value: str
    where: str
    """The line of the settings at which it is said; empty for what holds unless it is said."""


@dataclass(slots=True)
class View:
    """Everything that the page asks."""

    state_folder: Path
    settings: Path | None
    """The file that the node was started with."""
    lending: Lending
    availability: Availability
    tally: Tally
    recorder: Recorder
    metrics: Callable[[], bytes]
    assumption: str = ASSUMPTION
    _purse: Kept[Income] = field(init=False)
    _incomes: Kept[list[Income]] = field(init=False)
    _days: Kept[dict[str, Any]] = field(init=False)
    _asking: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    def __post_init__(self) -> None:
        self._purse = purse(self.state_folder)
        self._incomes = Kept(lambda: by_day(self.state_folder, local_day(wall_ms()) - DAYS_SHOWN + 1), INCOME_S)
        self._days = Kept(self._read_day, DAY_S)

    async def whole(self) -> dict[str, Any]:
        """All of it."""
        return {
            **await self.state(),
            **await self.income(),
            "preferences": await beside(self._preferences),
            "settings": str(self.settings or "the node's settings"),
            "words": [word for word in WORDS if word not in TABLES],
            "assumption": self.assumption,
            "what_if_days": WHAT_IF_DAYS,
        }

    async def state(self) -> dict[str, Any]:
        """How it stands now."""
        income = await self._purse.get()
        account, told = self.recorder.account, said(self.lending)
        codes = self.lending.codes
        return {
            "state": str(self.availability.state),
            "now": now_in_words(self.availability),
            "next": next_in_words(self.lending),
            "reasons": self.availability.reasons,
            "budget": budget_in_words(self.lending),
            "temperatures": temperature_in_words(self.lending),
            "sensors": told["sensors"],
            "known": told["known"],
            "watts": account.watts if account else 0.0,
            "income": income,
            "problems": [each for each in (self._purse.problem, self.recorder.problem) if each],
            "jobs": self.availability.jobs,
            "jobs_max": self.availability.jobs_max,
            "done": [
                (datetime.fromtimestamp(job.ended_ms / 1000).strftime("%H:%M:%S"), job) for job in self.tally.recent
            ],
            "pauses": PAUSES,
            "paused": "paused" in codes,
            "opted_out": "opted-out" in codes,
            "charge": self._charge(),
        }

    async def income(self) -> dict[str, Any]:
        """By day and month, the latest first."""
        found = await self._incomes.get() or []
        return {
            "by_day": found[:-15:-1],
            "by_month": by_month(found)[::-1],
            "income_problem": self._incomes.problem,
        }

    async def what_if(self, word: str, value: str) -> Answer:
        """Of the last week. Raises `FallowError`."""
        changes = parsed([f"{word}={value}"])
        first = local_day(wall_ms()) - WHAT_IF_DAYS + 1
        until = self.lending.now()
        async with self._asking:
            return await asked(self.state_folder, changes, first, until)

    async def day(self) -> dict[str, Any]:
        """This day's chart: seconds since 1970, watts of work, micro-credits promised so far, whether it was lent."""
        return await self._days.get() or {"problem": self._days.problem, "s": [], "watts": [], "ucr": [], "lent": []}

    def _read_day(self) -> dict[str, Any]:
        now_ms = wall_ms()
        begins_ms = begin_ms(local_day(now_ms))
        slots = [begins_ms + n * SLOT_MS for n in range(DAY_MS // SLOT_MS) if begins_ms + n * SLOT_MS <= now_ms]
        joules, seconds, ucr = [0.0] * len(slots), [0.0] * len(slots), [0] * len(slots)
        lent: list[bool | None] = [None] * len(slots)
        for entry in diary.entries(self.state_folder, begins_ms, now_ms + 1):
            slot = min(len(slots) - 1, (entry.moment.now.wall_ms - begins_ms) // SLOT_MS)
            joules[slot] += entry.joules
            seconds[slot] += entry.passed_ms / 1000
            lent[slot] = not entry.codes
        for row in earnings(self.state_folder, now_ms, begins_ms):
            slot = min(len(slots) - 1, max(0, (row.issued_ms - begins_ms) // SLOT_MS))
            ucr[slot] += row.paid_ucr
        total, sums = 0, []
        for each in ucr:
            total += each
            sums.append(total)
        watts = [round(j / s, 1) if s else None for j, s in zip(joules, seconds, strict=True)]
        return {"problem": "", "s": [at // 1000 for at in slots], "watts": watts, "ucr": sums, "lent": lent}

    def _preferences(self) -> list[Preference]:
        """Each word that holds, and where it is said."""
        wants = self.lending.rules.preferences
        written = ""
        if self.settings:
            with suppress(OSError, UnicodeDecodeError):
                written = self.settings.read_text("utf-8")
        found = []
        for word, value in as_table(replace(wants, said=frozenset(WORDS))).items():
            line = line_of(written, f"preferences.{word}") if word in wants.said and written else None
            where = f"line {line}" if line else "said" if word in wants.said else ""
            found.append(Preference(word, _shown(value), where))
        return sorted(found, key=lambda each: not each.where)

    def _charge(self) -> str:
        """Of its battery, in words; empty without one."""
        board, now_ms = self.lending.board, self.lending.now().ms
        for source, given in board.expects.items():
            if Signal.SOC_PCT in given:
                told = board.told(source, Signal.SOC_PCT, now_ms)
                return told.why or f"{told.values[0]:.0f} %"
        return ""


def _shown(value: object) -> str:
    """As TOML has it, more or less."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"{len(value)} of them" if value else "none"
    return f"{value:g}" if isinstance(value, int | float) else str(value)

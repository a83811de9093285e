"""What other preferences would have brought: the recorded moments through the same policy, hour by hour.

What an hour that was not lent would have brought nobody knows. It is assumed to have brought what an hour that was lent
brought on the same day, work and pauses together, and to have cost as much.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..protocol.errors import Code, ConfigError
from . import diary
from .config import KINDS
from .diary import Entry
from .income import Income, begin_ms, by_day, day_name
from .log import wall_ms
from .rules import preferences
from .rules.hours import DAY_MS, HOUR_MS, Now
from .rules.policy import Rules
from .rules.replay import Stretch, replay
from .rules.worth import Draw
from .settings import SettingError

ASSUMPTION: Final = (
    "An hour more would have brought what an hour that was lent brought on the same day (else, in the whole time), less its "
    "energy and wear. What was known of the machine is as it was recorded; that others would have asked is assumed."
)
CHANGES_MAX: Final = 8
HARDLY_H: Final = 0.05
"""Rounded, it is nothing."""


@dataclass(frozen=True, slots=True)
class Forgone:
    """One day, or all of them, as it was and as it would have been."""

    name: str
    lent_h: float
    """By the preferences as they are set now."""
    would_h: float
    """By the others."""
    ucr_per_h: float | None
    """What an hour that was lent brought beyond its energy and wear; None: nothing tells."""

    @property
    def more_ucr(self) -> int | None:
        """What the others would have brought beyond; less than nothing, if they lend less."""
        return None if self.ucr_per_h is None else round((self.would_h - self.lent_h) * self.ucr_per_h)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question."""

    changes: Mapping[str, object]
    days: tuple[Forgone, ...]
    total: Forgone
    against_h: Mapping[str, float]
    """Hours for which one reason alone stood against lending, as set now; by its code."""

    @property
    def more_ucr(self) -> int | None:
        """Of all days of which something tells."""
        known = [each.more_ucr for each in self.days if each.more_ucr is not None]
        return sum(known) if known else None

    def __str__(self) -> str:
        changed = ", ".join(f"{word} = {value}" for word, value in self.changes.items())
        more_h, ucr = self.total.would_h - self.total.lent_h, self.more_ucr
        if abs(more_h) < HARDLY_H:
            return f"With {changed} it would have been lent as long as it was, {self.total.lent_h:.1f} h."
        hours = (
            f"{abs(more_h):.1f} h {'more' if more_h >= 0 else 'less'} than the {self.total.lent_h:.1f} h that it was"
        )
        worth = "what that is worth is not known, since nothing was earned in this time"
        if ucr is not None:
            worth = f"about {abs(ucr)} ucr {'more' if ucr >= 0 else 'less'}"
        return f"With {changed} it would have been lent {hours}: {worth}."


def parsed(given: Iterable[str]) -> dict[str, object]:
    """Each `word=value` as in `[preferences]`; a text needs no quotes. Raises `ConfigError(bad_config)`."""
    found: dict[str, object] = {}
    for each in given:
        word, equals, value = each.partition("=")
        if not equals or not word.strip() or len(each) > 200 or "\n" in each:
            raise ConfigError(Code.BAD_CONFIG, f"{each[:80]!r} is no change such as battery_charge_min_pct=40.")
        try:
            found[word.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[word.strip()] = value.strip()
    if not 0 < len(found) <= CHANGES_MAX:
        raise ConfigError(Code.BAD_CONFIG, f"Ask for one to {CHANGES_MAX} changes of preferences at once.")
    return found


def ask(state: Path, changes: Mapping[str, object], first: int, until: Now | None = None) -> Answer:
    """What the changes would have made of the days from the first on.

    Raises `ConfigError(bad_config)` for what is no preference, or where no node has kept a diary; `StoreError`.
    """
    kept = diary.rules(state)
    entries = diary.entries(state, begin_ms(first))
    if not kept or not entries:
        raise ConfigError(
            Code.BAD_CONFIG, f"No diary of these days is in {state}: a node that runs there keeps one (`diary`)."
        )
    now_ms = until.wall_ms if until else wall_ms()
    is_, would = rules_of(kept, {}), rules_of(kept, changes)
    return _compared(changes, entries, is_, would, by_day(state, first, now_ms), until)


def kept_rules(rules: Rules) -> dict[str, Any]:
    """What a diary keeps of the rules, for `rules_of`."""
    table = preferences.as_table(rules.preferences)
    return {"kind": rules.kind, "sensed": rules.sensed, "settle_ms": rules.settle_ms, "preferences": table}


def rules_of(kept: Mapping[str, Any], changes: Mapping[str, object]) -> Rules:
    """The rules as they were kept, with changes. Raises `ConfigError(bad_config)`."""
    kind = kept["kind"] if kept["kind"] in KINDS else None
    table = {"preferences": {**kept["preferences"], **changes}}
    try:
        wants = preferences.parse(table, kind, sensed=bool(kept["sensed"]))
    except SettingError as error:
        raise ConfigError(Code.BAD_CONFIG, error.message) from None
    return Rules(kind, wants, int(kept["settle_ms"]), Draw(0.0, 0.0), sensed=bool(kept["sensed"]))


def _compared(
    changes: Mapping[str, object], entries: Sequence[Entry], is_: Rules, would: Rules, income: Sequence[Income],
    until: Now | None,
) -> Answer:  # fmt: skip
    moments = [entry.moment for entry in entries]
    before, after = list(replay(is_, moments, until)), list(replay(would, moments, until))
    lent, would_ms = _by_day(before), _by_day(after)
    rates = _rates(income)
    everywhere = rates.pop("", None)
    days = tuple(
        Forgone(day_name(day), lent[day] / HOUR_MS, would_ms[day] / HOUR_MS, rates.get(day_name(day), everywhere))
        for day in sorted(lent.keys() | would_ms.keys())
    )
    total = Forgone("total", sum(lent.values()) / HOUR_MS, sum(would_ms.values()) / HOUR_MS, everywhere)
    against: Counter[str] = Counter()
    for stretch in before:
        if len(stretch.codes) == 1:
            against.update(dict.fromkeys(stretch.codes, stretch.ms))
    return Answer(dict(changes), days, total, {code: ms / HOUR_MS for code, ms in against.most_common()})


def _by_day(stretches: Iterable[Stretch]) -> Counter[int]:
    """Milliseconds lent, by the owner's day; a day on which it was never lent has none, and is there."""
    found: Counter[int] = Counter()
    for stretch in stretches:
        at_ms, left_ms = stretch.wall_ms + stretch.offset_ms, stretch.ms
        while left_ms > 0:
            part_ms = min(left_ms, DAY_MS - at_ms % DAY_MS)
            found[at_ms // DAY_MS] += part_ms if stretch.lends else 0
            at_ms, left_ms = at_ms + part_ms, left_ms - part_ms
    return found


def _rates(income: Iterable[Income]) -> dict[str, float]:
    """What an hour that was lent brought beyond its costs, by day, and in all under the empty name."""
    found, ucr, hours = {}, 0, 0.0
    for day in income:
        if day.lent_min and day.promised_ucr:
            gain_ucr = day.promised_ucr - (day.energy_ucr or 0) - (day.wear_ucr or 0)
            found[day.name] = gain_ucr * 60 / day.lent_min
        if day.lent_min:
            hours += day.lent_min / 60
            ucr += day.promised_ucr - (day.energy_ucr or 0) - (day.wear_ucr or 0)
    if found:
        found[""] = ucr / hours
    return found

"""When an owner uses the machine: a pure function of the model, the node's seed and its local time.

`absences` is the whole of it: for a day, each node's times away. All else is asked of that, for a million nodes at once or for
one. Times are seconds of the node's own clock since Monday 00:00 of the first week; day 0 is that Monday.

The figures are assumptions in the range of what travel surveys say (a private car is driven about an hour a day, and stands
92 to 96 % of its time). A car that stands at work lends itself if its owner wants it to: `LENDS_AT_WORK`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .lots import Floats, Seeds, bells, lots, seeds_of

DAY_S: Final = 86_400.0
HOUR_S: Final = 3600.0
LENDS_AT_WORK: Final = 0.6
"""Of commuters: the others' machines are off the mesh until they are home again."""
DISTRICTS: Final = 16
"""Of a region: what one storm front passes one after another, or one utility feeds."""
FRONT_S: Final = 1200.0
"""From one district to the next."""

Absences = tuple[Floats, Floats]
"""When each begins and ends, by node and number; infinite where there is none."""


def absences(model: str, seeds: Seeds, day: int) -> Absences:
    """The times away that begin on that day: two arrays of (node, number). They may end on the next day; the number of a
    model's absences is the same for every day."""
    begins, ends = _MODELS[model](seeds, day)
    begins = np.where(ends > begins, begins + day * DAY_S, np.inf)
    return begins, np.where(np.isfinite(begins), ends + day * DAY_S, np.inf)


def away(model: str, seeds: Seeds, local_s: Floats | float) -> NDArray[np.bool_]:
    """Whether each node's owner has its machine at that time. All times must be of one day."""
    day = int(np.floor(np.max(local_s) / DAY_S))
    out = np.zeros(len(seeds), dtype=np.bool_)
    now = np.broadcast_to(np.asarray(local_s, dtype=np.float64), (len(seeds),))[:, None]
    for each in (day - 1, day):
        begins, ends = absences(model, seeds, each)
        out |= np.any((begins <= now) & (now < ends), axis=1)
    return out


def absences_of(model: str, seed: int, day: int) -> tuple[tuple[float, float], ...]:
    """The same of one node, in order: (from, until)."""
    begins, ends = absences(model, np.array([seed], dtype=np.uint64), day)
    return tuple(sorted((b, e) for b, e in zip(begins[0].tolist(), ends[0].tolist(), strict=True) if b < float("inf")))


def changes(model: str, seed: int, local_s: float, lasts_s: float) -> tuple[bool, list[tuple[float, bool]]]:
    """One node's day: whether the machine stands at that local time, and each change until `lasts_s` later.

    A change is (seconds since the beginning, whether the machine stands from then on).
    """
    until_s = local_s + lasts_s
    days = range(int(local_s // DAY_S) - 1, int(until_s // DAY_S) + 1)
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(each for day in days for each in absences_of(model, seed, day)):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    turns = [(at, stands) for begin, end in merged for at, stands in ((begin, False), (end, True))]
    stands_now = not any(begin <= local_s < end for begin, end in merged)
    return stands_now, [(at - local_s, stands) for at, stands in turns if local_s < at <= until_s]


def districts(seeds: Seeds) -> NDArray[np.int64]:
    """In which district of its region each node is."""
    return (lots(seeds, 900) * DISTRICTS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Storm:
    """A front over a region. Times are UTC, from Monday 00:00 of the first week."""

    begin_s: float
    first: int
    """The district that it comes to first; then the next ones, round the region."""
    width: int
    """So many districts are hit."""
    lasts_s: float
    """The power is back in half of what was hit by then."""
    seed: int


def storms(seed: int, region: int, week: int, per_week: float) -> tuple[Storm, ...]:
    """Those that begin in that week over the region of that number: one for each whole `per_week`, and by chance one more."""
    own = seeds_of(seed, 1, 910, region, week)
    count = int(per_week) + int(float(lots(own, 0)[0]) < per_week % 1)
    return tuple(
        Storm(
            begin_s=(week + float(lots(own, 1, number)[0])) * 7 * DAY_S,
            first=int(lots(own, 2, number)[0] * DISTRICTS),
            width=2 + int(lots(own, 3, number)[0] * DISTRICTS / 2),
            lasts_s=HOUR_S * (0.5 + 3 * float(lots(own, 4, number)[0])),
            seed=int(own[0]) + number & (1 << 63) - 1,
        )
        for number in range(count)
    )


def storm_outages(storm: Storm, seeds: Seeds, share: float) -> Absences:
    """When each node of the region has no power, and again has; infinite for those that the front spares."""
    behind = (districts(seeds) - storm.first) % DISTRICTS
    hit = (behind < storm.width) & (lots(seeds, 920, storm.seed) < share)
    begins = storm.begin_s + (behind + lots(seeds, 921, storm.seed)) * FRONT_S
    lasts_s = storm.lasts_s * 2.0 * lots(seeds, 922, storm.seed) + 60.0
    return np.where(hit, begins, np.inf), np.where(hit, begins + lasts_s, np.inf)


def _commuter(seeds: Seeds, day: int) -> Absences:
    """To work at half past seven and home at five, an errand in the evening; at the weekend, out for a while."""
    n = len(seeds)
    none = np.zeros(n)
    if day % 7 >= 5:
        first = HOUR_S * (9 + 9 * lots(seeds, 1, day))
        second = HOUR_S * (13 + 9 * lots(seeds, 2, day))
        long_s = HOUR_S * (0.3 + 2.2 * lots(seeds, 3, day))
        goes = [lots(seeds, 4, day) < 0.75, lots(seeds, 5, day) < 0.4]
        return _stacked(
            (first, np.where(goes[0], first + long_s, none)), (second, np.where(goes[1], second + 2400, none))
        )
    works = lots(seeds, 6, day) < 0.85
    usual = HOUR_S * (7.5 + 0.6 * bells(seeds, 7))
    leaves = usual + 60 * 8 * bells(seeds, 8, day)
    drive_s = 60 * (12 + 26 * lots(seeds, 9))
    back = HOUR_S * (17 + 0.9 * bells(seeds, 10, day))
    lends = lots(seeds, 11) < LENDS_AT_WORK
    errand = HOUR_S * (18.5 + 2.5 * lots(seeds, 12, day))
    runs = lots(seeds, 13, day) < 0.35
    arrives = leaves + drive_s
    return _stacked(
        (leaves, np.where(works, np.where(lends, arrives, back + drive_s), none)),
        (back, np.where(works & lends, back + drive_s, none)),
        (errand, np.where(runs, errand + 60 * (15 + 50 * lots(seeds, 14, day)), none)),
    )


def _taxi(seeds: Seeds, day: int) -> Absences:
    """A shift of nine to eleven hours with a break, six days a week; a third of them by night."""
    free = (lots(seeds, 21) * 7).astype(np.int64) == day % 7
    night = lots(seeds, 22) < 1 / 3
    begins = HOUR_S * (np.where(night, 17.0, 6.0) + 2 * lots(seeds, 23) + 0.5 * bells(seeds, 24, day))
    pause = begins + HOUR_S * (4 + lots(seeds, 25, day))
    resumes = pause + 60 * (20 + 30 * lots(seeds, 26, day))
    ends = begins + HOUR_S * (9 + 2 * lots(seeds, 27, day))
    none = np.zeros(len(seeds))
    return _stacked((begins, np.where(free, none, pause)), (resumes, np.where(free, none, ends)))


def _robot(seeds: Seeds, day: int) -> Absences:
    """Half an hour's round six times between eight and eight, docked in between; at the weekend every other one."""
    kept = 0.5 if day % 7 >= 5 else 0.9
    rounds = []
    first = 7 + 2 * lots(seeds, 30)
    for number in range(6):
        begins = HOUR_S * (first + 2 * number + 1.2 * lots(seeds, 31, day, number))
        lasts_s = 60 * (20 + 25 * lots(seeds, 32, day, number))
        goes = lots(seeds, 33, day, number) < kept
        rounds.append((begins, np.where(goes, begins + lasts_s, 0.0)))
    return _stacked(*rounds)


def _site(seeds: Seeds, day: int) -> Absences:
    """There but for maintenance now and then, and for the evening's peak, when the site needs its battery itself."""
    peak = HOUR_S * (17.5 + 1.5 * lots(seeds, 41, day))
    peaks = lots(seeds, 42, day) < 0.08
    work = HOUR_S * (9 + 6 * lots(seeds, 43, day))
    works = lots(seeds, 44, day) < 0.01
    return _stacked((peak, np.where(peaks, peak + 5400, 0.0)), (work, np.where(works, work + HOUR_S, 0.0)))


def _host(seeds: Seeds, day: int) -> Absences:
    """A restart in one night of twenty, and in one day of ten somebody who needs all of it for an hour or so."""
    restart = HOUR_S * (2 + 3 * lots(seeds, 51, day))
    restarts = lots(seeds, 52, day) < 0.05
    needed = HOUR_S * (9 + 10 * lots(seeds, 53, day))
    needs = lots(seeds, 54, day) < 0.1
    lasts_s = HOUR_S * (0.2 + 2 * lots(seeds, 55, day))
    return _stacked((restart, np.where(restarts, restart + 240, 0.0)), (needed, np.where(needs, needed + lasts_s, 0.0)))


def _stacked(*trips: tuple[Floats, Floats]) -> Absences:
    return np.stack([begin for begin, _ in trips], axis=1), np.stack([end for _, end in trips], axis=1)


_MODELS: Final[Mapping[str, Callable[[Seeds, int], Absences]]] = {
    "commuter": _commuter,
    "taxi": _taxi,
    "robot": _robot,
    "site": _site,
    "host": _host,
}
MODELS: Final = tuple(_MODELS)
KINDS: Final[Mapping[str, str]] = {
    "commuter": "vehicle",
    "taxi": "vehicle",
    "robot": "robot",
    "site": "site",
    "host": "host",
}
"""The kind of node (`node.config.KINDS`) that has such a day."""

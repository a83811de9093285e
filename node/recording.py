"""What goes into the diary, and when: each minute in which something has changed, and at once when lending begins or ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

import trio

from ..protocol.errors import StoreError
from .diary import Diary, Passed
from .lending import Lending
from .log import EventLog
from .machine import beside
from .power.account import Account
from .rules.policy import on_battery
from .rules.replay import Moment, seen
from .rules.worth import J_PER_KWH, kwh_ucr

MINUTE_S: Final = 60.0
QUIET_MS: Final = 5 * 60_000
"""Where nothing changes, so often it is written down that nothing has."""
SLEPT_MS: Final = 3 * 60_000
"""Between two looks: then the node was not running, though the clock was."""
BETWEEN_S: Final = 1.0
"""However often a reading flips."""


class Recorder:
    """Writes one node's diary. `problem` says why it does not."""

    def __init__(self, lending: Lending, open_diary: Callable[[], Diary], log: EventLog) -> None:
        self.problem = ""
        self.account: Account | None = None
        """What jobs use, once there is something that runs them."""
        self._lending = lending
        self._open = open_diary
        self._diary: Diary | None = None
        self._log = log
        self._last: Moment | None = None
        self._last_codes: frozenset[str] = frozenset()
        self._counted_j = 0.0
        self._looked_ms: int | None = None

    async def run(self) -> None:
        """Writes until cancelled; what could not be written is tried again with the next moment."""
        while True:
            changed = self._lending.changed
            await self.note()
            await trio.sleep(BETWEEN_S)
            with trio.move_on_after(MINUTE_S - BETWEEN_S):
                await changed.wait()

    async def note(self) -> None:
        """This moment is in the diary, if it differs from the last; or `problem` says why not."""
        try:
            if (diary := self._diary) is None:
                diary = self._diary = await beside(self._open)
            if (noted := self._noted(diary)) is not None:
                await beside(lambda: diary.write(*noted))
        except StoreError as error:
            if not self.problem:
                self._log.write("diary_failed", code=error.code, why=error.message)
            self.problem = error.message
        else:
            self._take(noted)

    def close(self) -> None:
        """The time since the last moment is in the diary, too, and its file is closed."""
        if self._diary:
            with suppress(StoreError):
                if (noted := self._noted(self._diary)) is not None:
                    self._diary.write(*noted)
            self._diary.close()

    def _noted(self, diary: Diary) -> tuple[Moment, frozenset[str], Passed] | None:
        """What there is to write; None: nothing new."""
        now_ms = self._lending.now().ms
        if self._looked_ms is not None and now_ms - self._looked_ms > SLEPT_MS:
            diary.run += 1  # the machine slept: nothing was lent meanwhile, whatever held before
            self._last = None
        self._looked_ms = now_ms
        moment, codes = self._moment(diary.run), self._lending.codes
        passed = self._passed(moment)
        return (moment, codes, passed) if self._is_news(moment, codes, passed) else None

    def _take(self, noted: tuple[Moment, frozenset[str], Passed] | None) -> None:
        self.problem = ""
        if noted:
            self._last, self._last_codes, passed = noted
            self._counted_j += passed.joules

    def _moment(self, run: int) -> Moment:
        lending = self._lending
        now = lending.now()
        known = seen(lending.board, now.ms)
        rules = lending.rules
        bounds = tuple(sorted(lending.board.bounds.items()))
        unread = tuple(sorted(lending.board.unread().items()))
        return Moment(
            now, run, known, lending.wish, lending.earned_ucr, rules.draw, rules.unmetered_only, lending.asked, bounds, unread
        )  # fmt: skip

    def _passed(self, moment: Moment) -> Passed:
        joules = self.account.total_j - self._counted_j if self.account else 0.0
        lending, now = self._lending, moment.now
        energy, wear = kwh_ucr(
            lending.rules.preferences,
            now.of_day_ms,
            on_battery=on_battery(lending.board, now.ms),
            now_ucr=moment.asked.kwh_ucr,
        )
        kwh = joules / J_PER_KWH
        ms = moment.now.ms - self._last.now.ms if self._last else 0
        return Passed(ms, self._last is not None and not self._last_codes, joules, energy * kwh, wear * kwh)

    def _is_news(self, moment: Moment, codes: frozenset[str], passed: Passed) -> bool:
        if self._last is None or codes != self._last_codes or passed.ms >= QUIET_MS or passed.joules > 0:
            return True
        return _told(self._last) != _told(moment)


def _told(moment: Moment) -> tuple[object, ...]:
    """What a replay decides by; not until when a bound holds that is said anew each second."""
    bounds = [(code, bound.watts, bound.whole, bound.until_ms > moment.now.ms) for code, bound in moment.bounds]
    asked = replace(moment.asked, changes_in_ms=0.0)
    return moment.known, moment.wish, moment.earns_ucr, asked, bounds, moment.unread, moment.draw, moment.unmetered_only

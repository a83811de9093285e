"""A VEN of OpenADR 3.1: asks its VTN again and again what is wanted, keeps to it, and reports what its owner lets it.

    unknown --registered, first list--> followed --each list--> followed
                                           |  ^
             anything goes wrong, in words |  | the next list
                                           v  |
                                          lost: what was in force goes on counting to its end

What the VTN last said is kept on disk, so that a stop order also outlasts a restart without a VTN. The VTN's own clock counts,
as it was when it last answered: nobody starts or ends an event by setting this machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final

import trio

from ..log import EventLog, wall_ms
from ..machine import chance
from ..rules.asked import Asked, words
from ..rules.hours import HOUR_MS, Now
from ..sensors.feed import boot_ms
from .openadr_config import OpenAdr
from .openadr_events import OddError
from .openadr_force import Force, in_force
from .openadr_http import ANSWER_S, PAGE, Vtn, VtnError, client
from .openadr_kept import STATE, Kept, load, save, understood
from .openadr_reports import Figures, Reporting

EVENTS_MAX: Final = 500
"""A VTN shows one VEN a handful; more than this is somebody else's list."""
PROGRAMS_MAX: Final = 500
PROGRAMS_S: Final = 3600.0
"""Programs change by the season; a new one is found within an hour."""
RETRY_S: Final = 5.0
RETRY_S_MAX: Final = 600.0
"""After a failure; twice as long after each further one."""
JITTER: Final = 0.1
"""So that a fleet that was started together does not ask together."""
SAVE_S: Final = 5.0
"""For the disk; then the next question to the VTN comes first."""
TOLD_MAX: Final = 32
"""Lines about events in `fallow node why`."""


class Ven:
    """This machine, as one VTN knows it."""

    def __init__(self, config: OpenAdr, state: Path, log: EventLog, changed: Callable[[], None]) -> None:
        self.figures: Callable[[], Figures] = Figures
        """What there is to report, at any moment."""
        self._config = config
        self._path = state / STATE
        self._log = log
        self._changed = changed
        self._programs: dict[str, Mapping[str, Any]] | None = None
        self._programs_at_s = -inf
        self._ven_id = ""
        self._ahead_ms: float | None = None
        """The VTN's time less the clock that never goes back; None: it has not said its time, and the wall clock serves."""
        self._heard_ms: float | None = None
        self._fault = "it has not been asked yet"
        self._remarks: tuple[str, ...] = ()
        self._force: tuple[float, float, Force] | None = None
        """From when to when it holds."""
        self._reporting = Reporting(config.ven_name, config.reports)
        self._seed, self._kept = load(self._path, log)
        self._saved = self._kept
        self._writer = trio.CapacityLimiter(1)
        """One place: what was given up on is over before anything is written again."""

    def asked(self, now: Now) -> Asked:
        """What the VTN asks at this moment, as far as it has been heard."""
        at = self._vtn_now(now)
        force = self._in_force(at)
        return replace(force.asked, changes_in_ms=force.changes_ms - at.wall_ms)

    def heard(self, now: Now) -> list[str]:
        """How it stands with the VTN, in words for the owner."""
        name = f"OpenADR as {words(self._config.ven_name)}"
        told = self._in_force(self._vtn_now(now)).told
        ago = "" if self._heard_ms is None else f", last heard {(now.ms - self._heard_ms) / 1000:.0f} s ago"
        if self._fault:
            held = "; what it asked for before goes on counting" if told else ""
            lines = [f"{name}: {self._fault}{ago}{held}"]
        else:
            lines = [f"{name}: followed{ago}, {len(self._kept)} events known"]
        return [*lines, *self._remarks, *(told or ("nothing of it is in force now",))][:TOLD_MAX]

    async def run(self) -> None:
        """The VTN is followed, until cancelled."""
        wait_s = min(RETRY_S, self._config.poll_s)
        while True:
            try:
                async with client(self._config.ca) as http:
                    config = self._config
                    vtn = Vtn(http, config.url, config.client_id, config.secret, config.token_url)
                    while True:
                        await self.poll(vtn)
                        wait_s = min(RETRY_S, config.poll_s)
                        await trio.sleep(_about(config.poll_s))
            except VtnError as error:
                self._lose(str(error))
                await trio.sleep(_about(max(wait_s, min(error.retry_s, RETRY_S_MAX))))
                wait_s = min(RETRY_S_MAX, 2 * wait_s)

    async def poll(self, vtn: Vtn) -> None:
        """What the VTN asks is known as of now, and reported what is due. Raises `VtnError`; then nothing has changed."""
        remarks: list[str] = []
        await vtn.authorised()
        if not self._ven_id:
            await self._register(vtn, remarks)
        try:
            if trio.current_time() - self._programs_at_s > PROGRAMS_S:
                await self._read_programs(vtn)
        except VtnError as error:
            if not self._chosen([]):
                raise  # there is no program yet of which events could be asked for
            remarks.append(f"its programs cannot be read: {error}")
        followed = self._chosen(remarks)
        raws: list[Any] = []
        for program in followed:
            query: dict[str, Any] = {"active": "true"}
            query |= {"programID": program} if program else {}
            query |= {"targets": list(self._config.targets)} if self._config.targets else {}
            raws += await vtn.pages("/events", query, EVENTS_MAX)
        await self._take(vtn, raws, followed, remarks)
        await self._report(vtn, remarks)
        self._remarks = tuple(remarks[:TOLD_MAX])

    async def _register(self, vtn: Vtn, remarks: list[str]) -> None:
        """The VTN knows this VEN, if it can be told. Where it keeps its VENs to itself, its operator has entered it."""
        name = self._config.ven_name
        try:
            self._ven_id = await self._entered(vtn) or ""
            if not self._ven_id:
                made = await vtn.call("POST", "/vens", body={"objectType": "VEN_VEN_REQUEST", "venName": name})
                self._ven_id = _id_of(made)
        except VtnError as error:
            remarks.append(f"it does not register {words(name)}: {error}")

    async def _entered(self, vtn: Vtn) -> str | None:
        found = await vtn.pages("/vens", {"venName": self._config.ven_name}, PAGE + 1)
        return next(
            (_id_of(ven) for ven in found if isinstance(ven, dict) and ven.get("venName") == self._config.ven_name),
            None,
        )

    async def _read_programs(self, vtn: Vtn) -> None:
        found = await vtn.pages("/programs", {}, PROGRAMS_MAX)
        self._programs = {_id_of(each): each for each in found if isinstance(each, dict)}
        self._programs_at_s = trio.current_time()

    def _chosen(self, remarks: list[str]) -> list[str]:
        """Ids of the programs that the owner named; an empty one stands for all."""
        if not self._config.programs:
            return [""]
        by_name = {str(program.get("programName")): id_ for id_, program in (self._programs or {}).items()}
        if missing := [name for name in self._config.programs if name not in by_name]:
            remarks.append(f"it has no program {', '.join(words(name) for name in missing)}")
            self._programs_at_s = -inf  # it is looked for with the next question
        return [by_name[name] for name in self._config.programs if name in by_name]

    async def _take(self, vtn: Vtn, rows: list[Any], followed: list[str], remarks: list[str]) -> None:
        """These are all events of the followed programs that there are, and count at once; one that is gone is cancelled."""
        if vtn.date_ms is not None:
            self._ahead_ms = vtn.date_ms - boot_ms()
        now_ms = float(self._vtn_now(Now(boot_ms(), wall_ms())).wall_ms)
        before = self._kept
        try:
            # In a thread: a few hundred events with all their intervals take longer than jobs' heartbeats may wait.
            kept, odd = await trio.to_thread.run_sync(understood, rows, self._programs, before, now_ms, self._seed)
        except OddError as error:
            raise VtnError(str(error)) from None
        remarks += odd
        if any(one.schedule.event.program not in (self._programs or {}) for one in kept.values()):
            self._programs_at_s = -inf  # its program is looked for with the next question
        if len(kept) > EVENTS_MAX:
            raise VtnError(f"it has more than {EVENTS_MAX} events")
        missing = [id_ for id_ in before if id_ not in kept]
        # A named program that is not to be found for a moment takes no event with it.
        unasked = [id_ for id_ in missing if self._is_unasked(before[id_], followed)]
        # A list that changed while its pages were read may have lost one.
        doubtful = [id_ for id_ in missing if id_ not in unasked] if len(rows) >= PAGE else []
        self._hold(kept | {id_: before[id_] for id_ in [*unasked, *doubtful][:EVENTS_MAX]})
        with trio.move_on_after(ANSWER_S):
            for id_ in doubtful:
                if id_ in self._kept and await _is_gone(vtn, id_):
                    self._hold({other: one for other, one in self._kept.items() if other != id_})
        await self._save()

    def _is_unasked(self, one: Kept, followed: list[str]) -> bool:
        return len(followed) < max(1, len(self._config.programs)) and one.schedule.event.program not in followed

    def _hold(self, kept: dict[str, Kept]) -> None:
        """These events count."""
        before, self._kept, self._force = self._kept, kept, None
        self._fault, self._heard_ms = "", boot_ms()
        self._changed()
        for id_ in before.keys() - kept.keys():
            self._log.write("grid_event_gone", id=id_)
        if kept != before:
            self._log.write("grid_events", count=len(kept))

    async def _save(self) -> None:
        """A restart finds them; a disk that hangs is left to it, and given the events of the time when it has come back."""
        kept = self._kept
        if kept == self._saved:
            return
        write = partial(save, self._path, self._seed, list(kept.values()), self._log)
        with trio.move_on_after(SAVE_S):
            await trio.to_thread.run_sync(write, limiter=self._writer, abandon_on_cancel=True)
            self._saved = kept

    async def _report(self, vtn: Vtn, remarks: list[str]) -> None:
        now_ms = float(self._vtn_now(Now(boot_ms(), wall_ms())).wall_ms)
        due = self._reporting.due((one.schedule for one in self._kept.values()), now_ms, self.figures())
        with trio.move_on_after(ANSWER_S) as limit:  # for all of them: what is asked next does not wait for them
            for body in due:
                try:
                    await vtn.call("POST", "/reports", body=body)
                except VtnError as error:
                    title = self._kept[body["eventID"]].schedule.event.title
                    remarks.append(f"a report of {title} was not taken: {error}")
        if limit.cancelled_caught:
            remarks.append(f"reports were not taken in {ANSWER_S:g} s")

    def _lose(self, why: str) -> None:
        if why != self._fault:
            self._log.write("grid_lost", why=why)
        self._fault = why
        self._changed()

    def _vtn_now(self, now: Now) -> Now:
        """The same moment by the VTN's clock, as far as it is known."""
        return now if self._ahead_ms is None else replace(now, wall_ms=round(now.ms + self._ahead_ms))

    def _in_force(self, now: Now) -> Force:
        """Kept until something of it changes, or the hour does: the rules ask many times a second."""
        if self._force is None or not self._force[0] <= now.wall_ms < self._force[1]:
            force = in_force([kept.schedule for kept in self._kept.values()], now, self._config.heeded)
            self._force = now.wall_ms, min(force.changes_ms, now.wall_ms + HOUR_MS), force
        return self._force[2]


async def _is_gone(vtn: Vtn, id_: str) -> bool:
    """Whether that is known."""
    try:
        await vtn.call("GET", f"/events/{id_}")
    except VtnError as error:
        return error.status in (403, 404, 405, 410, 501)
    return False


def _id_of(raw: Any) -> str:
    id_ = raw.get("id") if isinstance(raw, dict) else None
    if not isinstance(id_, str) or not 0 < len(id_) <= 128:
        raise VtnError("it has an object without an id")
    return id_


def _about(seconds: float) -> float:
    return seconds * chance().uniform(1 - JITTER, 1 + JITTER)

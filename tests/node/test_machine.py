"""What is due by the clock that counts on while a machine sleeps is done soon after it woke."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from fallow.node.availability import Availability
from fallow.node.lending import Lending
from fallow.node.log import EventLog
from fallow.node.machine import ASLEEP_S, HERE, boot_ms, wait_until
from fallow.node.rules.policy import Preferences, Rules
from fallow.node.rules.worth import Draw


class Suspended:
    """A machine whose timers stand still while it sleeps, and whose clock does not."""

    def __init__(self, *, sleeps: bool = True) -> None:
        self.slept_s = 0.0
        HERE.set(replace(HERE.get(), boot_ns=self._boot_ns, sleeps=sleeps))

    def _boot_ns(self) -> int:
        return round((trio.current_time() + self.slept_s) * 1e9)


async def test_whoever_waits_for_a_time_is_not_late_by_as_long_as_the_machine_slept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Suspended()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_until, boot_ms() + 60_000, trio.Event())
        await trio.sleep(9.5)
        machine.slept_s = 3600.0
    assert trio.current_time() <= 9.5 + ASLEEP_S


@pytest.mark.parametrize("sleeps", [True, False])
async def test_nobody_is_early_and_whoever_is_woken_waits_no_longer(
    autojump_clock: trio.testing.MockClock, sleeps: bool
) -> None:
    Suspended(sleeps=sleeps)
    await wait_until(boot_ms() + 59_500, trio.Event())
    assert trio.current_time() == pytest.approx(59.5)
    woken = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_until, boot_ms() + 60_000, woken)
        await trio.sleep(1.25)
        woken.set()
    assert trio.current_time() == pytest.approx(60.75)


async def test_a_machine_that_slept_into_what_its_owner_decided_keeps_to_it_when_it_wakes(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    machine = Suspended()
    availability = Availability(4)
    made = Lending(Rules("host", Preferences(), 0, Draw(0, 100)), availability, tmp_path, EventLog(tmp_path))
    availability.start()
    made.pause(50)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await trio.sleep(10)
        assert not availability.lends
        machine.slept_s = 45.0
        await trio.sleep(ASLEEP_S)
        await trio.testing.wait_all_tasks_blocked()
        assert availability.lends
        nursery.cancel_scope.cancel()

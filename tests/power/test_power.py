"""What jobs use, by counters and a clock of our own; the helper, as a process, with a library of NVML's names."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from fallow.node.log import EventLog
from fallow.node.power.account import CALIBRATED, GUESS, MODEL, Account, Used
from fallow.node.power.helper import Limits, serve
from fallow.node.power.keeping import Power
from fallow.node.power.meters import BatteryMeter, NvmlMeter, Rapl, found_meters, working_meters
from fallow.node.rules.policy import Decision, Memory, Reason
from fallow.node.rules.worth import Draw
from fallow.node.sensors.nvml import Accelerator, Nvml, NvmlError
from tests.sensors.conftest import nvml  # noqa: F401 - a fixture

GUESSED = Draw(10.0, 110.0)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Counter:
    """A meter whose machine draws `watts`."""

    name = "rapl"

    def __init__(self, clock: Clock) -> None:
        self._clock, self._at_s, self._joules, self.watts = clock, 0.0, 0.0, 0.0
        self.broken = False

    def joules(self) -> float | None:
        self._joules += self.watts * (self._clock.now_s - self._at_s)
        self._at_s = self._clock.now_s
        return None if self.broken else self._joules


async def advance(clock: Clock, account: Account, seconds: int) -> None:
    for _ in range(seconds):
        clock.now_s += 1
        await account.look()


async def test_what_is_measured_beyond_idling_is_shared_by_the_jobs_of_the_moment() -> None:
    clock = Clock()
    counter = Counter(clock)
    account = Account([counter], None, GUESSED, clock)
    counter.watts = 30.0
    await advance(clock, account, 10)
    first = await account.begin()
    counter.watts = 130.0
    await advance(clock, account, 5)
    second = await account.begin()
    await advance(clock, account, 5)
    used = await account.end(first)
    assert (used.joules, used.source) == (pytest.approx(750), "rapl")
    await advance(clock, account, 5)
    assert (await account.end(second)).joules == pytest.approx(750)
    assert account.total_j == pytest.approx(1500)
    counter.watts = 30.0
    await advance(clock, account, 5)
    assert account.total_j == pytest.approx(1500)


async def test_without_a_meter_a_model_stands_in_and_says_so() -> None:
    for said, source in ((None, GUESS), (Draw(0.0, 60.0), MODEL)):
        clock = Clock()
        account = Account([], said, GUESSED, clock)
        account.duty = 0.5
        begun = await account.begin()
        await advance(clock, account, 10)
        used = await account.end(begun)
        assert (used.joules, used.source) == (pytest.approx(300 if said else 600), source)


async def test_a_minute_of_measuring_calibrates_the_model_that_stands_in_when_the_meter_breaks() -> None:
    clock = Clock()
    counter = Counter(clock)
    account = Account([counter], None, GUESSED, clock)
    await advance(clock, account, 3)
    counter.watts = 80.0
    begun = await account.begin()
    await advance(clock, account, 60)
    assert account.draw == Draw(0.0, pytest.approx(80.0))
    counter.broken = True
    await advance(clock, account, 10)
    used = await account.end(begun)
    assert (used.joules, used.source) == (pytest.approx(5600), CALIBRATED)


async def test_a_machine_that_slept_charges_no_job() -> None:
    clock = Clock()
    account = Account([], Draw(0, 100), GUESSED, clock)
    begun = await account.begin()
    clock.now_s += 8 * 3600
    assert (await account.end(begun)).joules == 0


def test_a_budget_is_a_share_of_the_time() -> None:
    draw = Draw(50, 250)
    assert [draw.duty(budget) for budget in (40, 50, 150, 250, 900)] == [0, 0, 0.5, 1, 1]
    assert draw.watts(0.5) == 150


def test_rapl_counts_packages_and_goes_round(tmp_path: Path) -> None:
    package = tmp_path / "class" / "powercap" / "intel-rapl:0"
    package.mkdir(parents=True)
    (package / "max_energy_range_uj").write_text("10000000")
    (package.parent / "intel-rapl:0:0").mkdir()
    (package / "energy_uj").write_text("9000000")
    rapl = Rapl(tmp_path)
    assert rapl.joules() == 0
    (package / "energy_uj").write_text("1500000")
    assert rapl.joules() == 2.5
    assert [meter.name for meter in found_meters(tmp_path, None)] == ["rapl"]
    (package / "energy_uj").unlink()
    assert rapl.joules() is None and found_meters(tmp_path, None) == []


def test_a_battery_counts_while_it_is_what_feeds_the_machine(tmp_path: Path) -> None:
    cell, clock = tmp_path / "class" / "power_supply" / "BAT0", Clock()
    cell.mkdir(parents=True)
    for name, text in {"type": "Battery", "status": "Discharging", "power_now": "20000000"}.items():
        (cell / name).write_text(text)
    meter = BatteryMeter(tmp_path, clock)
    clock.now_s = 3.0
    assert meter.joules() == 60.0
    (cell / "status").write_text("Charging")
    assert meter.joules() is None


def test_nvml_counts_joules(nvml: str) -> None:  # noqa: F811
    meter = NvmlMeter(Nvml(nvml))
    before = meter.joules()
    assert before is not None and meter.joules() == before + 0.5


def test_an_accelerator_without_a_counter_is_summed_up_from_what_it_draws() -> None:
    found, clock = [Accelerator(0, 100.0, 50, None), Accelerator(1, 30.0, 50, 7_000)], Clock()

    class Library(Nvml):
        """As the driver of an older accelerator beside a newer one answers."""

        def __init__(self) -> None:
            pass

        def read(self) -> list[Accelerator]:
            return found

    meter = NvmlMeter(Library(), clock)
    before = meter.joules()
    clock.now_s = 2.0
    found[1] = Accelerator(1, 30.0, 50, 8_000)
    assert before == 7.0 and meter.joules() == 208.0
    found[0] = Accelerator(0, None, 50, None)
    assert meter.joules() is None


class Stuck(Counter):
    """A meter that answers when it is let."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.free = threading.Event()

    def joules(self) -> float | None:
        self.free.wait()
        return super().joules()


async def test_a_meter_that_hangs_holds_up_nobody_and_a_model_stands_in_until_it_comes_back() -> None:
    clock = Clock()
    stuck = Stuck(clock)
    stuck.watts = 50.0
    account = Account([stuck], Draw(0, 60), GUESSED, clock)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            begun = await account.begin()
            clock.now_s += 10
            used = await account.end(begun)
            assert (used, turns > 1) == (Used(600.0, MODEL), True)
            stuck.free.set()
            while account.source != "rapl":
                clock.now_s += 1
                await account.look()
            nursery.cancel_scope.cancel()


async def test_what_a_slow_meter_counts_while_it_is_read_is_of_that_time() -> None:
    class Slow(Counter):
        reading_s = 0.0

        def joules(self) -> float | None:
            clock.now_s += self.reading_s
            return super().joules()

    clock = Clock()
    slow = Slow(clock)
    account = Account([slow], None, GUESSED, clock)
    slow.watts = 50.0
    await account.begin()
    clock.now_s, slow.reading_s = 1.0, 1.0
    await account.look()
    assert account.watts == 50.0


async def test_a_meter_that_hangs_at_the_start_is_said_to_be_missing(tmp_path: Path, autojump_clock: object) -> None:
    package = tmp_path / "class" / "powercap" / "intel-rapl:0"
    package.mkdir(parents=True)
    os.mkfifo(package / "energy_uj")
    log = EventLog(tmp_path)
    assert await working_meters(tmp_path, None, log) == []
    assert '"meters_missing"' in log.path.read_text()
    (package / "energy_uj").write_text("1")  # lets its reader go


async def test_a_job_whose_task_is_cancelled_is_counted_all_the_same() -> None:
    clock = Clock()
    account = Account([Counter(clock)], Draw(0, 60), GUESSED, clock)
    begun, used = await account.begin(), None
    with trio.CancelScope() as scope:
        scope.cancel()
        used = await account.end(begun)
    assert used is not None and account._jobs == 0


@contextmanager
def helping(path: Path, limits: Limits, library: Nvml) -> Iterator[None]:
    """The helper's part, for whoever connects, in a thread of this process: so that its library can be asked."""

    def run() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    serve(connection, library, limits)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        thread = threading.Thread(target=run)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(30)


class Engine:
    def pace(self, duty: float) -> None:
        pass


async def test_an_accelerator_is_capped_while_its_machine_is_lent_and_no_longer(
    tmp_path: Path, nvml: str  # noqa: F811
) -> None:  # fmt: skip
    library = Nvml(nvml)
    library.cap(0, 280.0)  # its owner's own wish

    async def until(watts: float) -> None:
        while library.limit_w(0) != watts:
            await trio.lowlevel.checkpoint()

    power = Power(cast(Any, Engine()), Account([], Draw(0, 300), GUESSED), str(tmp_path / "sock"), EventLog(tmp_path))
    lent, withheld = (Decision(why, 120.0, inf, Memory()) for why in ((), (Reason("driving", "they drive"),)))
    with helping(tmp_path / "sock", Limits(library, tmp_path / "limits"), library), trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(power.run)
            for _ in range(2):
                power.obey(lent)
                await until(120.0)
                power.obey(withheld)
                await until(280.0)
            power.obey(lent)
            await until(120.0)
            power.release()
            power.obey(lent)
            await until(280.0)
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            power = Power(cast(Any, Engine()), power.account, str(tmp_path / "sock"), EventLog(tmp_path))
            power.obey(lent)
            nursery.start_soon(power.run)
            await until(120.0)
            nursery.cancel_scope.cancel()
        await until(280.0)


class Stubborn(Nvml):
    """A library that sets no limit for a while."""

    stuck = False

    def cap(self, index: int, watts: float) -> None:
        if self.stuck:
            raise NvmlError("it is busy")
        super().cap(index, watts)


def test_a_limit_that_cannot_be_set_back_is_set_back_the_next_time(tmp_path: Path, nvml: str) -> None:  # noqa: F811
    library, kept = Stubborn(nvml), tmp_path / "limits"
    library.cap(0, 280.0)
    limits = Limits(library, kept)
    limits.lower(0, 120.0)
    library.stuck = True
    limits.lift()
    assert kept.exists()
    library.stuck = False
    limits.lower(0, 150.0)
    limits.lift()
    assert library.limit_w(0) == 280.0 and not kept.exists()


def test_nothing_is_capped_of_which_nothing_can_be_kept(tmp_path: Path, nvml: str) -> None:  # noqa: F811
    library = Nvml(nvml)
    library.cap(0, 280.0)
    limits = Limits(library, tmp_path / "missing" / "limits")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            limits.lower(0, 120.0)
    assert library.limit_w(0) == 280.0


class Helper:
    """The helper as a process of its own."""

    def __init__(self, folder: Path, nvml: str) -> None:  # noqa: F811
        self.socket, self.caps = folder / "power.sock", folder / "caps"
        words = ["--socket", str(self.socket), "--user", str(os.getuid()), "--nvml", nvml]
        command = [sys.executable, "-m", "fallow.node.power.helper", *words]
        surroundings = {**os.environ, "NVML_CAPS": str(self.caps)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings)
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def end(self, number: int) -> int:
        """It got the signal, and has ended."""
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        return self.process.returncode

    @property
    def capped_w(self) -> float:
        """What was set last."""
        return int(self.caps.read_text()) / 1000


def test_the_helper_caps_for_its_user_within_what_is_allowed(tmp_path: Path, nvml: str) -> None:  # noqa: F811
    helper = Helper(tmp_path, nvml)
    try:
        assert helper.socket.stat().st_mode & 0o777 == 0o600
        with _connected(helper.socket) as say:
            assert [say("CAP 0 150\n"), helper.capped_w] == ["ok", 150.0]
            assert [say("CAP 0 5\n"), helper.capped_w] == ["ok", 100.0]  # the least that is allowed
            assert [say("CAP 0 340\n"), helper.capped_w] == ["ok", 300.0]  # no more than its owner lets it draw
            assert all(say(wish).startswith("no: ") for wish in ("CAP 7 150\n", "CAP 0 -1\n", "REBOOT\n"))
    finally:
        helper.end(signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_helper_that_is_told_to_end_sets_limits_back(tmp_path: Path, nvml: str, number: int) -> None:  # noqa: F811
    helper = Helper(tmp_path, nvml)
    with _connected(helper.socket) as say:
        assert say("CAP 0 150\n") == "ok"
        assert (helper.end(number), helper.capped_w) == (0, 300.0)
    assert not (tmp_path / "power.sock.limits").exists()


def test_what_a_helper_that_was_killed_left_behind_the_next_one_sets_back(tmp_path: Path, nvml: str) -> None:  # noqa: F811
    helper = Helper(tmp_path, nvml)
    with _connected(helper.socket) as say:
        assert say("CAP 0 150\n") == "ok"
        helper.end(signal.SIGKILL)
    assert helper.capped_w == 150.0
    helper = Helper(tmp_path, nvml)
    assert (helper.capped_w, helper.end(signal.SIGTERM)) == (300.0, 0)


@pytest.mark.parametrize(
    "left", ["", "[]", "{", '{"0": "x"}', '{"7": 120.0}', '{"0": 1e999}', '{"x": 1}', "9" * 9000, "[" * 4000]
)
def test_what_is_left_behind_and_makes_no_sense_sets_nothing(tmp_path: Path, nvml: str, left: str) -> None:  # noqa: F811
    library, kept = Nvml(nvml), tmp_path / "limits"
    library.cap(0, 200.0)
    kept.write_text(left)
    Limits(library, kept)
    assert library.limit_w(0) == 200.0 and not kept.exists()


@contextmanager
def _connected(path: Path) -> Iterator[Callable[[str], str]]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        with connection.makefile("rw") as stream:

            def say(wish: str) -> str:
                stream.write(wish)
                stream.flush()
                return stream.readline().strip()

            yield say

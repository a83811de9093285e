"""What jobs use, by counters and a clock of our own; the helper, as a process, with a library of NVML's names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fallow.node.power.account import CALIBRATED, GUESS, MODEL, Account
from fallow.node.power.helper import serve
from fallow.node.power.meters import BatteryMeter, NvmlMeter, Rapl, found_meters
from fallow.node.rules.worth import Draw
from fallow.node.sensors.nvml import Accelerator, Nvml
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


def advance(clock: Clock, account: Account, seconds: int) -> None:
    for _ in range(seconds):
        clock.now_s += 1
        account.look()


def test_what_is_measured_beyond_idling_is_shared_by_the_jobs_of_the_moment() -> None:
    clock = Clock()
    counter = Counter(clock)
    account = Account([counter], None, GUESSED, clock)
    counter.watts = 30.0
    advance(clock, account, 10)
    first = account.begin()
    counter.watts = 130.0
    advance(clock, account, 5)
    second = account.begin()
    advance(clock, account, 5)
    used = account.end(first)
    assert (used.joules, used.source) == (pytest.approx(750), "rapl")
    advance(clock, account, 5)
    assert account.end(second).joules == pytest.approx(750)
    assert account.total_j == pytest.approx(1500)
    counter.watts = 30.0
    advance(clock, account, 5)
    assert account.total_j == pytest.approx(1500)


def test_without_a_meter_a_model_stands_in_and_says_so() -> None:
    for said, source in ((None, GUESS), (Draw(0.0, 60.0), MODEL)):
        clock = Clock()
        account = Account([], said, GUESSED, clock)
        account.duty = 0.5
        begun = account.begin()
        advance(clock, account, 10)
        used = account.end(begun)
        assert (used.joules, used.source) == (pytest.approx(300 if said else 600), source)


def test_a_minute_of_measuring_calibrates_the_model_that_stands_in_when_the_meter_breaks() -> None:
    clock = Clock()
    counter = Counter(clock)
    account = Account([counter], None, GUESSED, clock)
    advance(clock, account, 3)
    counter.watts = 80.0
    begun = account.begin()
    advance(clock, account, 60)
    assert account.draw == Draw(0.0, pytest.approx(80.0))
    counter.broken = True
    advance(clock, account, 10)
    used = account.end(begun)
    assert (used.joules, used.source) == (pytest.approx(5600), CALIBRATED)


def test_a_machine_that_slept_charges_no_job() -> None:
    clock = Clock()
    account = Account([], Draw(0, 100), GUESSED, clock)
    begun = account.begin()
    clock.now_s += 8 * 3600
    assert account.end(begun).joules == 0


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


def test_a_limit_is_set_back_when_the_node_has_gone(nvml: str) -> None:  # noqa: F811
    library = Nvml(nvml)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"CAP 0 120\n")
        theirs.shutdown(socket.SHUT_WR)
        serve(ours, library)
        assert theirs.recv(100) == b"ok\n"
    assert library.read()[0].watts == 212.0


def test_the_helper_caps_for_its_user_within_what_is_allowed(
    tmp_path: Path, nvml: str  # noqa: F811
) -> None:  # fmt: skip
    path = tmp_path / "power.sock"
    command = [sys.executable, "-m", "fallow.node.power.helper", "--socket", str(path), "--user", str(os.getuid())]
    helper = subprocess.Popen([*command, "--nvml", nvml], stdout=subprocess.PIPE, text=True)
    try:
        assert helper.stdout is not None and helper.stdout.readline() == "ready\n"
        assert path.stat().st_mode & 0o777 == 0o600
        assert _say(path, "CAP 0 150\n", "CAP 0 5\n") == ["ok", "ok"]  # the second is the least that is allowed
        answers = _say(path, "CAP 7 150\n", "CAP 0 -1\n", "REBOOT\n")
        assert all(answer.startswith("no: ") for answer in answers)
    finally:
        helper.kill()
        helper.communicate()


def _say(path: Path, *wishes: str) -> list[str]:
    answers = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        with connection.makefile("rw") as stream:
            for wish in wishes:
                stream.write(wish)
                stream.flush()
                answers.append(stream.readline().strip())
    return answers

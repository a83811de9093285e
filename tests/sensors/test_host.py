"""This computer's signals: files like the kernel's, UPower on a bus of our own, a library with NVML's names."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
from jeepney import DBusAddress, HeaderFields, Message, new_method_return, new_signal

from fallow.node.rules.signals import Signal
from fallow.node.sensors.config import Host
from fallow.node.sensors.feed import boot_ms, keep
from fallow.node.sensors.host import _take_untrusted, read_host
from fallow.node.sensors.nvml import Nvml, NvmlError
from fallow.node.sensors.sysfs import batteries, temperatures, user_idle
from tests.connection.conftest import own_bus

from .servers import Watched


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


LAPTOP = {
    "class/power_supply/AC/type": "Mains", "class/power_supply/AC/online": "0",
    "class/power_supply/BAT0/type": "Battery", "class/power_supply/BAT0/status": "Discharging",
    "class/power_supply/BAT0/capacity": "64", "class/power_supply/BAT0/power_now": "11500000",
    "class/power_supply/BAT0/temp": "312", "class/power_supply/mouse/type": "Battery",
    "class/power_supply/mouse/scope": "Device", "class/power_supply/mouse/capacity": "3",
    "class/thermal/thermal_zone0/temp": "54500", "class/thermal/thermal_zone1/temp": "-274000",
    "class/thermal/cooling_device0/temp": "99000",
}  # fmt: skip


def test_a_laptops_battery_and_temperature_are_read_and_its_mouse_is_not(tmp_path: Path) -> None:
    root = tree(tmp_path, LAPTOP)
    assert dict(batteries(root)) == {
        Signal.ON_BATTERY: True, Signal.PLUGGED: False, Signal.CHARGING: False, Signal.SOC_PCT: 64.0,
        Signal.BATTERY_C: 31.2, Signal.BATTERY_W: 11.5,
    }  # fmt: skip
    assert dict(temperatures(root)) == {Signal.MACHINE_C: 54.5}
    tree(root, {"class/power_supply/AC/online": "1", "class/power_supply/BAT0/status": "Charging"})
    found = dict(batteries(root))
    assert (found[Signal.ON_BATTERY], found[Signal.PLUGGED], found[Signal.BATTERY_W]) == (False, True, -11.5)


def test_a_machine_without_a_battery_runs_on_mains_and_junk_is_nothing(tmp_path: Path) -> None:
    assert dict(batteries(tmp_path)) == {Signal.ON_BATTERY: False}
    tree(tmp_path, {"class/power_supply/BAT0/type": "Battery", "class/power_supply/BAT0/capacity": "full"})
    assert Signal.SOC_PCT not in dict(batteries(tmp_path))


def test_the_last_touch_of_any_input_device_counts(tmp_path: Path) -> None:
    assert dict(user_idle(tmp_path)) == {}
    tree(tmp_path, {"input/event0": "", "input/event1": "", "input/mice": "", "pts/0": "", "ptmx": ""})
    now = time.time()
    for name, ago in (("input/event0", 900), ("input/event1", 240), ("pts/0", 5000), ("input/mice", 1)):
        os.utime(tmp_path / name, (now - ago, now))
    assert dict(user_idle(tmp_path))[Signal.USER_IDLE_S] == pytest.approx(240, abs=5)


def test_accelerators_are_asked_through_the_library(nvml: str) -> None:
    library = Nvml(nvml)
    (found,) = library.read()
    assert (found.watts, found.celsius, library.limits_w(0)) == (212.0, 61, (100.0, 350.0))
    library.cap(0, 150.0)
    assert library.read()[0].watts == 150.0
    with pytest.raises(NvmlError, match="error 2"):
        library.cap(0, 20.0)
    library.cap(0, 300.0)
    library.close()
    with pytest.raises(NvmlError, match="not on this machine"):
        Nvml("libno-such-thing.so.7")


@dataclass
class Upower:
    """UPower, as the bus shows it."""

    on_battery: bool = False

    def answer(self, message: Message) -> Message:
        assert message.header.fields[HeaderFields.member] == "Get"
        assert message.body == ("org.freedesktop.UPower", "OnBattery")
        return new_method_return(message, "v", (("b", self.on_battery),))

    def news(self) -> Message:
        properties = DBusAddress("/org/freedesktop/UPower", interface="org.freedesktop.DBus.Properties")
        changed = ("org.freedesktop.UPower", {"OnBattery": ("b", self.on_battery)}, [])
        return new_signal(properties, "PropertiesChanged", "sa{sv}as", changed)


@pytest.mark.parametrize(
    ("file", "text", "signal", "said"),
    [
        ("power_supply/BAT0/capacity", "250", Signal.SOC_PCT, "250 % is not between 0 and 100"),
        ("power_supply/BAT0/capacity", "nan", Signal.SOC_PCT, "not a number"),
        ("power_supply/BAT0/power_now", "9" * 30, Signal.BATTERY_W, "beyond all bounds"),
        ("power_supply/BAT0/temp", "-3000", Signal.BATTERY_C, "is not between -60 and 150"),
    ],
)
async def test_a_value_that_cannot_be_is_a_fault_until_the_next_good_one(
    nursery: trio.Nursery, tmp_path: Path, file: str, text: str, signal: Signal, said: str
) -> None:
    watched, root = Watched("host"), tree(tmp_path / "sys", LAPTOP)
    config = Host("host", interval_s=0.02, sys_root=root, upower=False, user=False, nvml="")
    nursery.start_soon(keep, watched.feed, partial(read_host, config))
    await watched.until(lambda board: signal.value in watched.values())
    good = (root / "class" / file).read_text()
    tree(root, {f"class/{file}": text})
    await watched.until(lambda board: said in board.known(signal, boot_ms()).why)
    assert "capacity" in file or "soc_pct" in watched.values()
    (root / "class" / file).write_text(good)
    await watched.until(lambda board: signal.value in watched.values())


async def test_what_is_not_read_any_more_is_a_reason(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A battery that is pulled out had given what nobody gives now."""
    watched, root = Watched("host", good_ms=200), tree(tmp_path / "sys", LAPTOP)
    config = Host("host", interval_s=0.02, sys_root=root, upower=False, user=False, nvml="")
    nursery.start_soon(keep, watched.feed, partial(read_host, config))
    await watched.until(lambda board: "soc_pct" in watched.values())
    shutil.rmtree(root / "class/power_supply/BAT0")
    await watched.until(lambda board: "last read" in board.known(Signal.SOC_PCT, boot_ms()).why)
    assert "machine_c" in watched.values()


async def test_what_upower_never_says_is_not_heard(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Anybody on the bus may send a signal of its form."""
    watched = Watched("host")
    for changed in ({}, {"OnBattery": True}, {"OnBattery": ("s", "yes")}, {"OnBattery": ("b", 1)}, {"OnBattery": ()}):
        _take_untrusted(changed, watched.feed)
    assert not watched.values()
    _take_untrusted({"OnBattery": ("b", True)}, watched.feed)
    assert watched.values() == {"on_battery": True}


async def test_a_pulled_plug_comes_by_upower_at_once_and_the_rest_with_the_next_round(
    nursery: trio.Nursery, tmp_path: Path, nvml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with own_bus(tmp_path, Upower()) as bus:
        monkeypatch.setattr("fallow.node.sensors.host.BUS", bus.address)
        watched = Watched("host")
        root = tree(tmp_path / "sys", {"class/thermal/thermal_zone0/temp": "41000"})
        config = Host("host", interval_s=3600, sys_root=root, input_root=tmp_path / "dev", nvml=nvml)
        nursery.start_soon(keep, watched.feed, partial(read_host, config))
        await watched.until(lambda board: len(watched.values()) == 4)
        assert watched.values() == {
            "on_battery": False, "machine_c": 41.0, "accelerator_c": 61, "accelerator_w": 212.0,
        }  # fmt: skip
        bus.manager.on_battery = True
        await bus.signal()
        await watched.until(lambda board: watched.values()["on_battery"] is True)

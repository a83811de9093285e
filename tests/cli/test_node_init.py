"""`fallow node init`, times for `pause`, and the unit for systemd."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import fallow.node
from fallow.cli import run
from fallow.cli.node import seconds_of
from fallow.node import config
from fallow.node.rules.hours import Now
from fallow.node.rules.policy import Memory, Rules, Wish, decide
from fallow.node.rules.readings import Board
from fallow.node.rules.worth import Draw
from fallow.node.settings import SettingError, line_of
from fallow.protocol.errors import ConfigError


@pytest.mark.parametrize(
    ("kind", "sensor"),
    [
        ("vehicle", "viss"), ("robot", "rosbridge=ws://[::1]:9090"), ("site", "site"), ("host", "host"), ("host", "none"),
        ("vehicle", "scripted"),
    ],
)  # fmt: skip
def test_settings_are_written_for_each_kind_and_hold(tmp_path: Path, kind: str, sensor: str) -> None:
    folder = tmp_path / "machine"
    words = ["node", "init", str(folder), "--kind", kind, "--sensor", sensor, "--hours", "22-6.5"]
    assert run([*words, "--listen", "/ip4/127.0.0.1/tcp/0", "--bundles", "tiny-chat"]) == 0
    made = config.load(folder / "node.toml")
    assert (made.kind, bool(made.sensors), made.bundles) == (kind, sensor != "none", ("tiny-chat",))
    assert str(made.preferences.hours) == "22:00 to 06:30"
    for path in (folder / "node.toml", folder / "state" / "owner.key", folder / "state" / "node.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    before = (folder / "node.toml").read_text()
    assert run(words) == 1 and (folder / "node.toml").read_text() == before


def test_a_computer_without_a_sensor_is_asked_nothing_that_nobody_can_tell(tmp_path: Path) -> None:
    for sensor in ("none", "host"):
        words = ["node", "init", str(tmp_path / sensor), "--kind", "host", "--sensor", sensor, "--hours", "always"]
        assert run([*words, "--listen", "/ip4/127.0.0.1/tcp/0", "--bundles", "tiny-chat"]) == 0
        made = config.load(tmp_path / sensor / "node.toml")
        rules = Rules(made.kind, made.preferences, 0, Draw(1.0, 100.0), sensed=bool(made.sensors))
        found = decide(rules, Board(), Wish(), Memory(), Now(1_000, 1_000), None)
        assert found.lends is (sensor == "none"), found.reasons


def test_an_answer_that_is_no_good_leaves_nothing_behind(tmp_path: Path) -> None:
    words = ["node", "init", str(tmp_path), "--kind", "vehicle", "--sensor", "viss=http://car", "--hours", "always"]
    assert run([*words, "--listen", "/ip4/127.0.0.1/tcp/0", "--bundles", "tiny-chat"]) == 1
    assert not (tmp_path / "node.toml").exists()


def test_times_are_read_as_people_write_them() -> None:
    assert [seconds_of(span) for span in ("90s", "30m", "2h", "1d", "1h30m")] == [90, 1800, 7200, 86400, 5400]
    for span in ("", "2", "h", "0s", "900d", "-1h", "1m1h"):
        with pytest.raises(ConfigError):
            seconds_of(span)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('battery_charge_min_pc = 60', "line 4: Setting `preferences.battery_charge_min_pc`: there is no such preference; "
         "did you mean `preferences.battery_charge_min_pct`?"),
        ("battery_charge_min_pct = 160", "line 4: Setting `preferences.battery_charge_min_pct`: must be a number"),
        ("start_hour = 5", "must be set beside `start_hour`"),
        ('plugged_in = "demand"', "did you mean 'demanded'?"),
        ("battery_max_temperature = nan", "must be a number from 0 to 150"),
        ('[[preferences.tariff]]\nfrom = "22:00"\nto = "25:00"', "line 6: Setting `preferences.tariff[0].to`"),
        ('[[sensors]]\nkind = "vis"', "line 5: Setting `sensors[0].kind`: must be one of viss"),
        ('[[sensors]]\nkind = "viss"\nurl = "ws://car"\nstale = 5', "line 7: Setting `sensors[0].stale`"),
        ('[[sensors]]\nkind = "viss"\nurl = "ws://car"\n[sensors.paths]\nsoc_pct = "Vehicle.CurrentLocation.Latitude"',
         "tells neither where nor which one it is"),
        ("[power]\nidle_w = 50\nfull_w = 20", "line 6: Setting `power.full_w`: must be at least `idle_w`, 50"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_its_line_and_what_was_meant(tmp_path: Path, written: str, said: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f'state = "state"\nkind = "vehicle"\n[preferences]\n{written}\n')
    with pytest.raises(SettingError) as error:
        config.load(path)
    assert said in error.value.message


def test_a_line_is_found_in_whatever_toml_allows() -> None:
    source = 'a = """\nb = 1\n"""\n"b" = 2\n[c.d]\n e.f = 1\n[[g]]\nh = 1\n[[g]]\nh = 2\n'
    assert [line_of(source, each) for each in ("b", "c.d.e.f", "g[1].h", "c.x", "z")] == [4, 6, 10, 5, None]


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = Path(fallow.node.__path__[0], "systemd", "fallow.service")
    assert {"Type=notify", "WatchdogSec=30s", "DynamicUser=yes", "Delegate=yes"} <= set(unit.read_text().splitlines())
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd is not installed here")
    found = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("hours", ["22", "22-30", "-1-5", "a-b", "1-2-3", "nan-6", "22-"])
def test_hours_that_are_none_are_said_by_the_flag_that_gave_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hours: str
) -> None:
    assert run(["node", "init", str(tmp_path / "n"), "--kind", "host", "--sensor", "none", f"--hours={hours}"]) == 1
    assert f"--hours: '{hours}' are no hours from 0 to 24" in capsys.readouterr().err
    assert not (tmp_path / "n" / "node.toml").exists()


def test_an_address_that_is_none_is_said_before_anything_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["node", "init", str(tmp_path / "n"), "--kind", "host", "--sensor", "none", "--listen", "foo"]) == 1
    assert "Setting `listen`: foo is not of the form /ip4/ADDRESS/tcp/PORT" in capsys.readouterr().err
    assert not (tmp_path / "n" / "node.toml").exists()


def test_the_folder_of_the_settings_names_the_state_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["node", "init", str(tmp_path / "n"), "--kind", "host", "--sensor", "none"]) == 0
    for folder in (tmp_path / "n", tmp_path / "n" / "state"):
        assert run(["node", "status", "--state", str(folder)]) == 1
        assert f"No node is running in {tmp_path / 'n' / 'state'}." in capsys.readouterr().err.replace("\n", "")
    assert run(["node", "status", "--state", str(tmp_path)]) == 1

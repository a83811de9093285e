"""`fallow node init`: a node's settings with every choice explained in them, and its keys."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from ..node import config
from ..node.config import KINDS
from ..node.keys import load_or_create
from ..node.sensors.config import SHIPPED
from ..protocol.errors import Code, ConfigError
from .output import line, remark

SETTINGS: Final = "node.toml"
BUNDLES: Final = ("smollm2-135m-instruct", "minilm-l6")
_SENSORS: Final = {
    "viss": 'kind = "viss"\nurl = {place}            # KUKSA databroker, started with --enable-viss\n',
    "rosbridge": 'kind = "rosbridge"\nurl = {place}\n# dock_topic = "/is_docked"     # without it, who charges is docked\n',
    "site": 'kind = "site"\nurl = {place}            # JSON with grid_limit_w, chargers_w, site_load_w, soc_pct\n',
    "host": 'kind = "host"               # this computer: battery, temperatures, its user, its accelerators\n',
    "scripted": 'kind = "scripted"\nday = {place}               # an example day instead of real sensors\n',
}
_PLACES: Final = {
    "viss": "ws://127.0.0.1:8090",
    "rosbridge": "ws://127.0.0.1:9090",
    "site": "http://127.0.0.1:8000/",
    "scripted": SHIPPED[0],
}
_USUAL: Final = {"vehicle": "viss", "robot": "rosbridge", "site": "site", "host": "host"}
_WANTS: Final = {
    "vehicle": (
        ("battery_charge_min_pct", "50", "lend nothing below; without a cable the floor is 20 points higher"),
        ("plugged_in", '"preferred"', '"demanded": only with a cable; "any": the cable makes no difference'),
        ("battery_max_temperature", "45", "degrees Celsius; 0: no limit"),
        ("max_power_w", "1000", "what work may draw"),
    ),
    "robot": (
        ("battery_charge_min_pct", "50", "lend nothing below"),
        ("battery_max_temperature", "45", "degrees Celsius; 0: no limit"),
    ),
    "site": (("max_power_w", "0", "0: what the grid connection leaves beside the chargers"),),
    "host": (
        ("run_on_batteries", "false", "whether it is lent while it runs on its battery"),
        ("run_if_user_active", "false", "whether it is lent while somebody uses it"),
        ("idle_time_to_run", "3.0", "minutes for which nobody has"),
    ),
}  # fmt: skip


def init(
    directory: Annotated[Path, Parameter(help="Where settings, keys and journal are to lie.")],
    /,
    *,
    kind: Annotated[str | None, Parameter(help=f"What the machine is: {', '.join(KINDS)}.")] = None,
    sensor: Annotated[str | None, Parameter(
        help="Its sensor, KIND or KIND=URL: viss, rosbridge, site, host, scripted, none.",
    )] = None,
    hours: Annotated[str | None, Parameter(help="When it may be lent: 22-6, say; `always`.")] = None,
    listen: Annotated[str | None, Parameter(help="Where others reach it: /ip4/0.0.0.0/tcp/4001, say.")] = None,
    bundles: Annotated[str | None, Parameter(help="What it runs, comma-separated.")] = None,
) -> None:  # fmt: skip
    """Settings and keys are there, and the settings hold. What is not given is asked, where somebody can answer; nothing that
    is there is overwritten."""
    path = directory / SETTINGS
    if path.exists():
        raise ConfigError(Code.BAD_CONFIG, f"{path} is there already, and was kept; remove it to begin anew.")
    kind = _one_of(kind or _ask("What is this machine? vehicle, robot, site or host", "host"), KINDS, "--kind")
    sensor = sensor or _ask(
        "What tells whether it may be lent? viss, rosbridge, site, host, scripted or none", _USUAL[kind]
    )
    hours = hours or _ask("When may it be lent? Hours such as 22-6, or always", "always")
    listen = listen or _ask("Where may others reach it?", "/ip4/0.0.0.0/tcp/4001")
    bundles = bundles or _ask("What is it to run?", ",".join(BUNDLES))
    text = settings(kind, sensor, hours, listen, [each.strip() for each in bundles.split(",") if each.strip()])
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = directory / "state"
        state.mkdir(exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
    except OSError as error:
        raise ConfigError(Code.BAD_CONFIG, f"{error.filename} cannot be made: {error.strerror}.") from None
    try:
        made = config.load(path)
    except ConfigError:
        path.unlink()  # an answer was no good; what was there before is as it was
        raise
    owner = bytes(load_or_create(made.owner_key).verify_key).hex()
    load_or_create(made.state / "node.key")
    line(f"{path}: written; look through it, every choice is explained there")
    line(f"{made.owner_key}: the key that is paid, {owner[:16]}... (keep a copy; who has it has what was earned)")
    remark(f"Next: fallow node run --config {path}")


def settings(kind: str, sensor: str, hours: str, listen: str, bundles: list[str]) -> str:
    """The commented TOML. Raises `ConfigError(bad_config)` for an answer that means nothing."""
    name, _, place = sensor.partition("=")
    if name != "none" and name not in _SENSORS:
        raise ConfigError(Code.BAD_CONFIG, f"--sensor: {name[:40]!r} is none of {', '.join(_SENSORS)} and none.")
    lines = [
        "# A Fallow node's settings. A line that begins with # says nothing; docs/owner.md has all of them.",
        'state = "state"                 # keys, journal, log; nobody else may read it',
        f"kind = {_toml(kind)}",
        f"bundles = {_toml(bundles)}",
        f"listen = [{_toml(listen)}]",
        'page = "127.0.0.1:8781"         # your page, on this machine alone: `fallow node page` shows its address',
        "# diary = false                 # without one: no hours, no costs of energy, no `fallow earnings --what-if`",
        '# bootstrap = ["/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo..."]   # whom to join by, or set FALLOW_BOOTSTRAP',
        '# region = "u33"                # a geohash of at most 3 characters; nothing nearer is published',
        "# settle_s = 300                # so long it waits before it lends (again)",
        "# unmetered_only = true         # lend only while NetworkManager says that the link is not metered",
        "",
        "[preferences]                   # what you want of it; BOINC's words where it has one",
    ]
    # Nothing tells these of a computer without a sensor, and what is asked for and not known keeps it from being lent.
    mark = "# " if name == "none" and kind == "host" else ""
    lines += [f"{f'{mark}{word} = {value}':<32}# {what}" for word, value, what in _WANTS[kind]]
    lines += _hours(hours)
    lines += [
        "# tariff_ucr_per_kwh = 300000   # what energy costs you; work that does not pay for it is not done",
        "# margin_pct = 10               # and what it has to bring beyond",
        "# battery_wear_ucr_per_kwh = 50000",
        "# [[preferences.tariff]]        # another price at some hours",
        '# from = "22:00"',
        '# to = "06:00"',
        "# ucr_per_kwh = 180000",
        "# [[preferences.departures]]    # when you need it: work that would not be done by then is not begun",
        '# days = ["mon", "tue", "wed", "thu", "fri"]',
        '# at = "07:40"',
        "",
    ]
    lines += [
        "# [grid]                        # whom you let ask the machine for less",
        '# zones = ["home"]              # your own names for what it is part of; you tell them to the operator of the grid',
        '# keys = ["5f0c..."]            # public keys whose shed orders for these zones count',
        "# [grid.openadr]                # your utility's OpenADR 3.1 server",
        '# url = "https://vtn.example/openadr3/3.1.0"',
        '# client_id = "..."',
        '# secret = "vtn.secret"         # a file',
        '# ven_name = "..."',
        "# [grid.feeder]                 # the transformer behind which you and your neighbours share what it carries",
        '# name = "t-17"',
        '# grid_key = "5f0c..."          # by which its operator signs who its members are',
        '# roster = "roster"             # the file in which the operator puts that',
        "",
    ]
    if name != "none":
        place = place or _PLACES.get(name, "")
        lines += ["[[sensors]]", _SENSORS[name].format(place=_toml(place)).rstrip(), ""]
    return "\n".join(lines)


def _hours(written: str) -> list[str]:
    if written in ("", "always"):
        return [
            "# start_hour = 22.0             # lend from then on only, 6.5 is half past six,",
            "# end_hour = 6.5                # until then",
        ]
    start, _, end = written.partition("-")
    hour = r"\d{1,2}(?:\.\d{1,4})?"
    if not re.fullmatch(f"{hour}-{hour}", written) or max(first := float(start), last := float(end)) > 24:
        raise ConfigError(
            Code.BAD_CONFIG, f"--hours: {written[:40]!r} are no hours from 0 to 24, such as 22-6.5, or always."
        )
    return [f"start_hour = {first}", f"end_hour = {last}"]


def _ask(question: str, usual: str) -> str:
    """The answer; the usual one where nobody can be asked, or says nothing."""
    if not sys.stdin.isatty():
        return usual
    return input(f"{question} [{usual}]: ").strip() or usual


def _one_of(value: str, allowed: tuple[str, ...], flag: str) -> str:
    if value not in allowed:
        raise ConfigError(Code.BAD_CONFIG, f"{flag}: {value[:40]!r} is none of {', '.join(allowed)}.")
    return value


def _toml(value: object) -> str:
    """JSON's strings and lists are TOML's, too."""
    return json.dumps(value, ensure_ascii=False)

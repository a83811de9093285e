"""`fallow node`: lend this machine, and take it back."""

from __future__ import annotations

import re
import webbrowser
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from ..node import control
from ..node.page.shortcut import shortcut
from ..node.wish import PAUSE_S_MAX
from ..protocol.errors import Code, ConfigError
from .environment import AsJson, State, state_of
from .output import Json, line, needing, print_json


def run(
    *, config: Annotated[Path, Parameter(help="The node's settings, in TOML; `state` and `bundles` must be set.")]
) -> int:
    """One JSON line on stdout when the node takes orders. SIGTERM and Ctrl-C end it in order."""
    with needing("node"):
        from ..node.__main__ import main
    return main(["--config", str(config)])


def status(*, state: State, json: AsJson = False) -> None:
    """What the node does and why, what comes next, budget, temperatures, today's earnings; and how it is connected."""
    _command(state, control.STATUS, json)


def drive(*, state: State, json: AsJson = False) -> None:
    """Returns when the machine is the owner's: jobs have ended, with receipts for what was done."""
    _command(state, control.DRIVE, json)


def why(*, state: State, json: AsJson = False) -> None:
    """Why the machine is or is not lent: every reason, every reading and its age, the budget, and what comes next."""
    _command(state, control.WHY, json)


def page(
    *,
    state: State,
    show: Annotated[bool, Parameter(name="--open", help="In this machine's browser.", negative=())] = False,
    json: AsJson = False,
) -> None:
    """The address of the owner's page, with its key: whoever has it can do what you can.

    `--open` hands the browser a file that leads there: what a program is started with, other users can read.
    """
    state = state_of(state)
    address = str(control.request(state, control.PAGE)["address"])
    if json:
        print_json({"address": address})
    else:
        line(address)
    if show and not webbrowser.open(shortcut(state, address).as_uri()):
        raise ConfigError(Code.BAD_CONFIG, "This machine has no browser to open it in; the address is above.")


def pause(
    span: Annotated[str, Parameter(help="How long: 90s, 30m, 2h, 1d or 1h30m.")],
    /,
    *,
    state: State,
    json: AsJson = False,
) -> None:
    """The machine is not lent for so long, whatever its sensors say; over a restart, too."""
    _command(state, control.PAUSE, json, seconds_of(span))


def resume(*, state: State, json: AsJson = False) -> None:
    """A pause is over."""
    _command(state, control.RESUME, json)


def opt_out(*, state: State, json: AsJson = False) -> None:
    """The machine is not lent, until `fallow node opt-in`. What was earned stays earned."""
    _command(state, control.OPT_OUT, json)


def opt_in(*, state: State, json: AsJson = False) -> None:
    """The machine is lent again by its rules."""
    _command(state, control.OPT_IN, json)


def park(*, state: State, json: AsJson = False) -> None:
    """The machine may be lent again; a node that has just been taken back waits before it says so."""
    _command(state, control.PARK, json)


def seconds_of(span: str) -> int:
    """The seconds in `1h30m`. Raises `ConfigError(bad_config)` for what is no time, or more than a year."""
    parts = re.fullmatch(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,8})s)?", span)
    seconds = (
        sum(int(n or 0) * unit for n, unit in zip(parts.groups(), (86400, 3600, 60, 1), strict=True)) if parts else 0
    )
    if not 0 < seconds <= PAUSE_S_MAX:
        raise ConfigError(Code.BAD_CONFIG, f"{span[:40]!r} is no time such as 90s, 30m, 2h or 1d, of a year at most.")
    return seconds


def _command(state: Path, command: str, as_json: bool, seconds: int = 0) -> None:
    reply = control.request(state_of(state), command, seconds)
    if as_json:
        print_json({key: _plain(value) for key, value in reply.items()})
        return
    for key, value in reply.items():
        if value in ("", []):
            continue  # nothing is in it: programs are told that, too
        for index, words in enumerate(value if isinstance(value, list) and key in BY_LINE else [_joined(value)]):
            line(f"{'' if index else key.replace('_', ' '):<18} {words}")


BY_LINE: Final = ("reasons", "sensors", "known", "temperature", "grid")
"""What is read line by line."""


def _joined(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(value: object) -> Json:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)

"""`fallow node`: lend this machine, and take it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..node import control
from .environment import AsJson
from .output import Json, line, needing, print_json

State = Annotated[Path, Parameter(help="The node's state directory.")]


def run(
    *, config: Annotated[Path, Parameter(help="The node's settings, in TOML; `state` and `bundles` must be set.")]
) -> int:
    """One JSON line on stdout when the node takes orders. SIGTERM and Ctrl-C end it in order."""
    with needing("node"):
        from ..node.__main__ import main
    return main(["--config", str(config)])


def status(*, state: State, json: AsJson = False) -> None:
    """What the node says of itself."""
    _command(state, control.STATUS, json)


def drive(*, state: State, json: AsJson = False) -> None:
    """Returns when the machine is the owner's: jobs have ended, with receipts for what was done."""
    _command(state, control.DRIVE, json)


def park(*, state: State, json: AsJson = False) -> None:
    """The machine may be lent again; a node that has just been taken back waits before it says so."""
    _command(state, control.PARK, json)


def _command(state: Path, command: str, as_json: bool) -> None:
    reply = control.request(state, command)
    if as_json:
        print_json({key: _plain(value) for key, value in reply.items()})
        return
    for key, value in reply.items():
        words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        line(f"{key.replace('_', ' '):<16} {words}")


def _plain(value: object) -> Json:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)

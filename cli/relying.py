"""`fallow deposit rely`: an owner who has locked ecash to this user is one to rely on while that lasts."""

from __future__ import annotations

import json as json_text
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from ..node import private
from ..node.config import default_home
from ..node.durable import put
from ..node.log import wall_ms
from ..node.rails.rail import in_utc
from ..node.trust import TrustList, extend
from ..protocol.errors import Code, ConfigError, FallowError
from ..protocol.identity import short
from ..protocol.limits import HOLD_MS_MAX, MEANS_BYTES_MAX
from .environment import AsJson, hex_of_32, usable, usable_home
from .output import line, print_json
from .side import Side, side_of

FOLDER: Final = "deposits"
"""In a user's home: what others have locked to this user."""


def rely(
    file: Annotated[Path, Parameter(help="What the owner gave you: `fallow deposit make KEY UCR --out FILE`.")],
    /,
    *,
    owner: Annotated[str, Parameter(help="The owner's public key, in hex, as `fallow nodes --json` shows it.")],
    least: Annotated[int, Parameter(help="It counts while it is worth so many micro-credits.")] = 1,
    json: AsJson = False,
) -> None:
    """The owner's nodes count as anchors from now on, while the deposit lasts and no fault of theirs is known here.

    It is yours to take, if you like: `fallow pay` is not needed for it. Only its date gives it back to its owner.
    """
    key = hex_of_32(owner, "owner's public key of 64 hex digits.")
    if least <= 0:
        raise ConfigError(Code.BAD_CONFIG, "--least: one micro-credit, or more.")
    with usable("FILE", file), file.open("rb") as stream:
        means = stream.read(MEANS_BYTES_MAX + 1)
    with side_of(None) as side:
        until_s = side.purse.locked_until_s(means)
        kept = f"{FOLDER}/{side.purse.payment_of(means).hex()}.means"
    if until_s and until_s * 1000 <= wall_ms() + HOLD_MS_MAX:
        raise ConfigError(Code.BAD_CONFIG, f"It is locked until {in_utc(until_s)} only: a week's pay outlasts it.")
    home = default_home()

    def entry() -> str:
        """Empty if it is there already."""
        if any(each.means == home / kept and each.owner == key for each in TrustList.load(home).deposits):
            return ""
        put(home / kept, means)
        return f'\n[[deposit]]\nowner = "{key.hex()}"\nmeans = {json_text.dumps(kept)}\nleast_ucr = {least}\n'

    with usable_home():
        private.folder(home / FOLDER)
        extend(home, entry)
    if json:
        print_json({"owner": key.hex(), "file": str(home / kept), "until_s": until_s, "least_ucr": least})
    else:
        line(f"The nodes of {short(key)} are anchors here {'until ' + in_utc(until_s) if until_s else 'for ever'}.")


@dataclass(frozen=True, slots=True)
class Relied:
    """A deposit that the user's trust file names."""

    owner: bytes
    file: str
    ucr: int
    """What it is to be worth."""
    state: str
    """For people: whether it counts, and why not."""


def relied_on(side: Side) -> list[Relied]:
    """Every one, as the mint says it is now."""
    found = []
    for each in TrustList.load(default_home()).deposits:
        try:
            with each.means.open("rb") as stream:
                until_s = side.purse.locked_until_s(stream.read(MEANS_BYTES_MAX + 1))
            ends = f"until {in_utc(until_s)}" if until_s else "for ever"
            counts = not until_s or until_s * 1000 > wall_ms() + HOLD_MS_MAX
            why = f"counts, locked {ends}" if counts else f"counts no more: locked {ends}"
        except OSError as error:
            why = f"does not count: {each.means}: {error.strerror}"
        except FallowError as error:
            why = f"does not count: {error.message}"
        found.append(Relied(each.owner, str(each.means), each.least_ucr, why))
    return found

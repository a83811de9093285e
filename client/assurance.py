"""What a caller asks for: how a result is checked, and how many executors are asked at once.

    adaptive | audit:PPM | quorum:K/N | committee:K/N | none   [+anchor]   [+hedge:N]

`adaptive` is short for `adaptive:20000`, the least rate at which a node's windows are checked however good its record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..protocol.errors import Code, Refused
from ..protocol.policy import ADAPTIVE, Policy
from ..verifier.audits import FLOOR_PPM

HEDGE_MAX: Final = 4
"""Executors asked at once: each loser's work is thrown away, and paid for."""
DEFAULT: Final = ADAPTIVE

_HEDGE = re.compile(r"(.*?)\+hedge:(\d{1,2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Assurance:
    """A policy, which orders commit to, and the executors that race for the first piece."""

    policy: Policy
    hedge: int = 1

    def __str__(self) -> str:
        return str(self.policy) + (f"+hedge:{self.hedge}" if self.hedge > 1 else "")


def read_assurance(text: str) -> Assurance:
    """What `text` asks for. Raises `Refused(unsatisfiable_assurance)` for what cannot be kept."""
    match = _HEDGE.fullmatch(text)
    plain, hedge = (match[1], int(match[2])) if match else (text, 1)
    if match and not 2 <= hedge <= HEDGE_MAX:
        raise Refused(
            Code.UNSATISFIABLE_ASSURANCE,
            f"A hedge is over 2 to {HEDGE_MAX} executors, not {hedge}: the losers are paid.",
        )
    if plain == ADAPTIVE or plain.startswith(f"{ADAPTIVE}+"):
        plain = f"{ADAPTIVE}:{FLOOR_PPM}{plain.removeprefix(ADAPTIVE)}"
    return Assurance(Policy.parse(plain), hedge)

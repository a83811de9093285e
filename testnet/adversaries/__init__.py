"""Who attacks a test network: each adversary by name, what it does, and which rule stops it. No node contains any of it.

A worker adversary is the node's own worker with another `Run` (or other weights), a daemon adversary the node's own daemon
with one part exchanged, a client adversary a program that joins as anybody does. All else about them is as honest as can
be: sealing, signatures, transport and records are the real ones, so that only the rule named here can tell.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ...protocol.errors import Code, ConfigError


class Seat(StrEnum):
    """Which part of the mesh is not what it says."""

    WORKER = "worker"
    DAEMON = "daemon"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Adversary:
    """One way to attack."""

    name: str
    seat: Seat
    module: str
    """In this package."""
    does: str
    stopped_by: str
    """The rule that stops it, or, where nothing does yet, what remains of it."""
    mode: str = ""
    """Which of the module's ways."""
    nodes: int = 1
    """It takes so many to be one."""
    one_owner: bool = False
    """These nodes are one owner's."""
    lies: bool = False
    """What it delivers may be wrong: accepting it would be a wrong result."""

    def command(self) -> list[str]:
        """How it is started: a node with `--config FILE` appended, a client with `--bootstrap`, `--home` and `--bundle`."""
        if self.seat is Seat.WORKER:
            return [sys.executable, "-P", "-m", "fallow.node"]
        return [*self._words(), *([self.mode] if self.mode else [])]

    def settings(self) -> dict[str, object]:
        """What stands in the node's configuration beside what every node has."""
        return {"worker_command": [*self._words(), self.mode]} if self.seat is Seat.WORKER else {}

    def _words(self) -> list[str]:
        return [sys.executable, "-P", "-m", f"{__name__}.{self.module}"]


_W, _D, _C = Seat

_CHECKED: Final = "checkers who teacher-force the window: its proof values are not theirs, it is refused and unpaid"

_ALL: Final = (
    Adversary(
        "liar", _W, "liar", "computes, and then gives other tokens, findings and vectors", _CHECKED, "wrong", lies=True
    ),
    Adversary(
        "liar-drift", _W, "liar", "gives the true tokens with values twice the tolerance off, as worn numerics would",
        _CHECKED, "drift", lies=True,
    ),
    Adversary(
        "liar-truncates", _W, "liar", "says half-way that the model has ended, and leaves half of its vectors empty",
        "checkers: the end token is as much a claim as any other, and its value is not theirs", "truncates", lies=True,
    ),
    Adversary(
        "liar-stops", _W, "liar", "says after its first window that the model has ended, and sells the beginning as the whole",
        "checkers; such an end is drawn as if what it leaves unwritten, up to four windows, stood in it", "stops", lies=True,
    ),
    Adversary(
        "free-rider", _W, "free_rider", "computes nothing: guesses tokens, values, findings and vectors",
        "proof values can only come from running the model: as executor and as checker it is the one who disagrees",
        "guesses", lies=True,
    ),
    Adversary(
        "free-rider-copies", _W, "free_rider", "computes once, and then sells that answer to everybody",
        "as `free-rider`; what others computed it cannot copy: every answer is sealed to its client", "copies", lies=True,
    ),
    Adversary(
        "quantiser", _W, "quantiser", "runs weights rounded to int8 and sells the result as float32",
        "checkers: rounded weights move most proof values far beyond the tolerance", "int8", lies=True,
    ),
    Adversary(
        "colluder", _W, "colluder", "two owners make up texts by a secret of theirs, and confirm each other's",
        "a quorum in which they are no majority; where they are one, they win: anchors and spread are what is against that",
        "pair", nodes=2, lies=True,
    ),
    Adversary(
        "sybil", _W, "colluder", "many nodes with many keys, all of one owner, confirm each other's made-up texts",
        "quorums count owners: no two of them are ever asked about one window", "sybil", nodes=3, one_owner=True, lies=True,
    ),
    Adversary(
        "equivocator", _D, "equivocator", "signs two receipts for one window that say different things",
        "the second receipt breaks the job; both together prove the fault to anybody (`evidence`, equivocation)",
    ),
    Adversary(
        "denier", _D, "denier", "delivers, and signs for none of it", "no receipt, no voucher: the job breaks at the window",
        "silent",
    ),
    Adversary(
        "denier-disowns", _D, "denier", "signs its receipts with a key that it can disown",
        "a receipt counts only by the node's own key: the job breaks, unpaid", "disowns",
    ),
    Adversary(
        "closer", _D, "closer", "signs its text as whole after the first window, with not one token more",
        "a text ends by an end token or by the tokens ordered, whatever a receipt says: that receipt is not paid",
    ),
    Adversary(
        "deserter", _D, "deserter", "yields after a few tokens, though its owner does not want the machine",
        "its few tokens and as much of its start are paid; it counts as failed by what it left undone, and others come first",
        "soon",
    ),
    Adversary(
        "deserter-at-once", _D, "deserter", "accepts, and yields before its first token", "as `deserter`: for nothing, nothing",
        "at-once",
    ),
    Adversary(
        "staller", _D, "staller", "accepts, delivers a little, and then only says that it is there",
        "the order's own bound on the gap between chunks (15 s), whatever heartbeats say", "stops",
    ),
    Adversary(
        "staller-slow", _D, "staller", "delivers each token just within the order's bound",
        "nothing within one job; the rate that was measured keeps the next ones away (a hedge would bound the wait)", "slow",
    ),
    Adversary(
        "eclipse", _D, "eclipse", "as an index node names nobody but itself, and keeps nothing that it is given",
        "records stand at twenty index nodes and searches ask several ways at once: one honest answer is enough",
    ),
    Adversary(
        "double-spender", _C, "double_spender", "pays two receipts with one promise, takes a promise back, or spends it at"
        " another node", "vouchers are cumulative, name their receipt and one payee; two that contradict are kept as proof",
    ),
    Adversary(
        "non-payer", _C, "non_payer", "takes windows and signs no voucher", "two windows without a voucher, and no more;"
        " and all newcomers together get a share of a node's day (`strangers_ppm`, which a test network sets to all of it)",
    ),
    Adversary(
        "false-accuser", _C, "false_accuser", "says of good work before judges that it is wrong, to have back what it paid",
        "judges whom both sides agreed on run the work themselves; who accuses falsely bears the fee, and is heard no more",
    ),
)  # fmt: skip

ADVERSARIES: Final[Mapping[str, Adversary]] = MappingProxyType({each.name: each for each in _ALL})


def find(name: str) -> Adversary:
    """The adversary of that name. Raises `ConfigError(bad_config)` with the names that there are."""
    if name not in ADVERSARIES:
        raise ConfigError(Code.BAD_CONFIG, f"No adversary is called {name[:80]!r}; there are {', '.join(ADVERSARIES)}.")
    return ADVERSARIES[name]

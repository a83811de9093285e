"""What can befall nodes of a test network, by name, and when it does in a run: a pure function of seed and plan."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from types import MappingProxyType
from typing import Final

from ..protocol.errors import Code, ConfigError
from .plan import NodePlan, Plan

HEALTHY_MIN: Final = 3
"""Honest nodes that nothing befalls at any moment: a quorum of two of three owners, an executor among them."""
RATE_PER_MINUTE: Final = 6.0
CALM_MS: Final = 3_000
"""At a run's beginning, for the load's first jobs."""
RECOVERY_MS: Final = 5_000
"""At a run's end, without a fault: what was broken has to mend."""
NODES_MIN: Final = HEALTHY_MIN + 1


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    what: str
    """For people."""
    share: int
    """How often, among the others."""
    least_ms: int
    most_ms: int
    """How long it lasts in a run."""
    amounts: tuple[int, ...] = ()
    """Of these, one is drawn; empty: it has no amount."""
    network: bool = False
    """It befalls a node's network, and needs each node to have a namespace of its own."""
    honest: bool = False
    """It is made by what runs in an honest node's process."""


FAULTS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "kill": Kind("the node and its worker end without a word, and start again when it is over", 3, 1_000, 10_000),
        "restart": Kind("the node is told to end, and started again", 2, 0, 0),
        "freeze": Kind("SIGSTOP: it answers nothing, and its connections stay", 3, 1_000, 10_000),
        "drive-away": Kind("its owner takes the machine back, and parks when it is over", 4, 2_000, 15_000),
        "full-disk": Kind("nothing that it writes fits on its disk", 1, 3_000, 10_000, honest=True),
        "clock-skew": Kind(
            "its clock is off by so many milliseconds", 2, 5_000, 30_000,
            (-3_600_000, -300_000, -90_000, 90_000, 300_000, 3_600_000), honest=True,
        ),
        "blackhole": Kind("packets to and from it vanish", 3, 2_000, 12_000, network=True),
        "partition": Kind("these nodes reach each other, and nobody else", 2, 3_000, 15_000, network=True),
        "slow": Kind("its link carries so many kbit/s each way", 3, 5_000, 30_000, (64, 256, 1_000), network=True),
        "late": Kind("what goes either way takes so many ms longer", 2, 5_000, 30_000, (50, 150, 400), network=True),
        "lossy": Kind("of a thousand packets, so many vanish each way", 3, 5_000, 30_000, (20, 50, 150), network=True),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, for so long from then on, counted from the run's beginning."""

    name: str
    nodes: tuple[str, ...]
    amount: int = 0
    at_ms: int = 0
    for_ms: int = 0

    @property
    def end_ms(self) -> int:
        return self.at_ms + self.for_ms

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def schedule(seed: int, plan: Plan, run_ms: int, rate_per_minute: float = RATE_PER_MINUTE) -> tuple[Fault, ...]:
    """The faults of a run, in their order: at random moments, of random kinds, at random nodes.

    A node has one fault at a time, and at any moment at least `HEALTHY_MIN` honest ones have none. The same seed and plan
    give the same faults, on every machine. Raises `ConfigError(bad_config)` for a plan with too few honest nodes.
    """
    if len(plan.honest) < NODES_MIN:
        raise ConfigError(
            Code.BAD_CONFIG,
            f"Chaos needs {NODES_MIN} honest nodes, of which one may fail; here are {len(plan.honest)}.",
        )
    chance = Random(f"faults {seed}")
    names = [name for name, kind in FAULTS.items() if plan.namespaces or not kind.network]
    faults: list[Fault] = []
    at_ms = CALM_MS
    while rate_per_minute > 0:
        at_ms += round(chance.expovariate(rate_per_minute / 60_000))
        if at_ms >= run_ms - RECOVERY_MS:
            break
        name = chance.choices(names, [FAULTS[each].share for each in names])[0]
        kind = FAULTS[name]
        for_ms = min(chance.randint(kind.least_ms, kind.most_ms), run_ms - RECOVERY_MS - at_ms)
        amount = chance.choice(kind.amounts) if kind.amounts else 0
        free = _free(plan, kind, [fault for fault in faults if fault.end_ms + _AFTER_MS > at_ms])
        if free:
            count = min(len(free), 2) if name == "partition" else 1
            chosen = tuple(sorted(node.name for node in chance.sample(free, count)))
            faults.append(Fault(name, chosen, amount, at_ms, for_ms))
    return tuple(faults)


_AFTER_MS: Final = 3_000
"""A node counts as befallen for so long after a fault: it has to start, or to be found again."""


def _free(plan: Plan, kind: Kind, now: Sequence[Fault]) -> list[NodePlan]:
    """Those whom a fault of this kind may befall now."""
    befallen = {name for fault in now for name in fault.nodes}
    whole = [node for node in plan.nodes if node.name not in befallen]
    spare = sum(not node.adversary for node in whole) - HEALTHY_MIN
    most = 2 if kind is FAULTS["partition"] else 1
    return [node for node in whole if (not kind.honest and node.adversary) or (not node.adversary and spare >= most)]


_AT_START = re.compile(r"([^=@]+)=([a-z-]+)(?::(-?\d{1,9}))?")


def parse(text: str) -> tuple[Fault, ...]:
    """`2-vehicle=freeze,3-robot=slow:64` as faults that begin at once and last. Raises `ConfigError(bad_config)`."""
    return tuple(_parsed(part.strip()) for part in text.split(",") if part.strip())


def _parsed(part: str) -> Fault:
    if not (match := _AT_START.fullmatch(part)):
        raise ConfigError(Code.BAD_CONFIG, f"{part[:80]!r} is not NODE=FAULT or NODE=FAULT:AMOUNT.")
    node, name, amount = match.groups()
    return made(name, (node,), None if amount is None else int(amount))


def made(name: str, nodes: Iterable[str], amount: int | None = None) -> Fault:
    """The fault, of a middling amount if none is given. Raises `ConfigError(bad_config)`."""
    if name not in FAULTS:
        raise ConfigError(Code.BAD_CONFIG, f"There is no fault {name[:80]!r}; there are {', '.join(FAULTS)}.")
    amounts = FAULTS[name].amounts
    if amount is not None and not amounts:
        raise ConfigError(Code.BAD_CONFIG, f"The fault {name} has no amount.")
    if amount is not None and not (
        min(amounts) * 1000 <= amount <= max(amounts) * 1000 if amounts[0] < 0 else amount > 0
    ):
        raise ConfigError(Code.BAD_CONFIG, f"{amount} is no amount for the fault {name}.")
    middle = amounts[len(amounts) // 2] if amounts else 0
    return Fault(name, tuple(nodes), middle if amount is None else amount)

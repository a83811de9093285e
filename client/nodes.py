"""A node as this client knows it: what it said of itself when it was asked, and what we measured of it ourselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median_high

from ..protocol.envelope import Signed
from ..protocol.identity import Mandate, WorkerKey
from ..protocol.profiles import CapabilityProfile, ConnectivityProfile
from ..protocol.witness import Witness, believed

OWN_RTTS, OWN_RTTS_MIN = 8, 3
"""Round trips of our own that are kept of each node, and from how many on they count: one alone may have met a busy moment."""


class Shown:
    """What a node shows of others' statements about it. Reading them takes two thirds of the signatures of its whole answer, so
    they are read of those nodes alone that somebody thinks of choosing."""

    def __init__(self, read: Callable[[], tuple[Witness, ...]]) -> None:
        self._read = read

    @cached_property
    def statements(self) -> tuple[Witness, ...]:
        """Those that count."""
        return self._read()


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it described itself, everything verified. The state is of the moment when it was asked."""

    key: bytes
    mandate: Signed[Mandate]
    capability: CapabilityProfile
    connectivity: ConnectivityProfile
    worker_key: Signed[WorkerKey] | None
    state: str
    reasons: tuple[str, ...]
    jobs_running: int
    addresses: tuple[str, ...]
    rtt_ms: float
    """Of our own question to it; the first one includes connecting."""
    asked_at: float
    shown: Shown = field(default_factory=lambda: Shown(tuple))
    own_rtts_us: tuple[int, ...] = ()
    """Of our last questions over a connection that stood already, the newest last; at most `OWN_RTTS`."""

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """What nodes of other owners say of its connection."""
        return self.shown.statements

    @property
    def own_rtt_us(self) -> int | None:
        """Their median; None while they are too few to say anything."""
        return median_high(self.own_rtts_us) if len(self.own_rtts_us) >= OWN_RTTS_MIN else None

    @property
    def interactive(self) -> bool:
        """Whether a person can wait for it, by our own measurement, then the witnesses', then its own word."""
        return believed(self.connectivity, self.witnesses, self.own_rtt_us).interactive

    @property
    def owner(self) -> bytes:
        return self.mandate.record.owner


def busier(node: Node) -> Node:
    """The node as it must be by now that one more job was given to it."""
    return replace(node, jobs_running=node.jobs_running + 1)

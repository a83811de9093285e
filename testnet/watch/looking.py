"""One look at a test network after another: every node asked itself, its log and journal read, all of it added up."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from ...node import control
from ...node.log import LOG, wall_ms
from ...protocol.errors import FallowError
from ...protocol.identity import peer_id
from .. import record
from ..record import LocalNode
from .sources import FaultTail, LogTail, WalletTail, money, region_of, wallets_in

LOOK_S: Final = 1.0
"""From one look to the next."""
ANSWER_S: Final = 2.0
"""For all nodes to answer. One that does not is `silent`, and is not asked again before its answer has come or failed."""
NODES_MAX: Final = 1024
"""Shown; a network on one machine has 32."""
POINTS_MAX: Final = 900
"""Looks that are remembered: a quarter of an hour."""
EVENTS_MAX: Final = 24


@dataclass(frozen=True, slots=True)
class NodeLook:
    """One node as it is now."""

    name: str
    """Of its folder."""
    peer_id: str
    kind: str
    region: str
    adversary: str
    """Which one it is; empty for an honest node."""
    state: str
    reasons: tuple[str, ...]
    jobs: int
    """In flight."""
    settled: int
    lost: int
    tokens: int
    yields: int
    yield_ms: int | None
    claimed_ucr: int
    """By its receipts."""
    promised_ucr: int
    """Of that, by vouchers."""
    faults: int
    """Clients that do not deal with it any more."""


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that a node wrote into its log."""

    time_ms: int
    node: str
    what: str


@dataclass(frozen=True, slots=True)
class Point:
    """Sums over the network at one time."""

    time_ms: int
    ready: int
    jobs: int
    tokens: int
    yields: int
    accepted: int
    rejected: int
    promised_ucr: int


@dataclass(frozen=True, slots=True)
class Look:
    """The network as it is now."""

    nodes: tuple[NodeLook, ...]
    verdicts: dict[str, int]
    """By outcome, of all wallets that are known."""
    events: tuple[Happened, ...]
    """The last ones, the newest first."""
    point: Point

    def by_kind_and_region(self) -> list[tuple[str, str, Counter[str]]]:
        """(kind, region, nodes by state), in order."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for node in self.nodes:
            found.setdefault((node.kind, node.region), Counter())[node.state] += 1
        return [(kind, region, states) for (kind, region), states in sorted(found.items())]


class Watcher:
    """Looks at the network in a directory. `wallets` are those of clients elsewhere; those inside are found."""

    def __init__(self, directory: Path, wallets: Iterable[Path] = ()) -> None:
        self._directory = directory
        self._elsewhere = list(wallets)
        self._wallets: dict[Path, WalletTail] = {}
        self._logs: dict[str, LogTail] = {}
        self._money: dict[str, tuple[int, int]] = {}
        self._regions: dict[str, str] = {}
        self._faults = FaultTail(directory)
        self._asked: set[str] = set()
        """Nodes that have not answered yet."""
        self._replies: dict[str, dict[str, object]] = {}
        self.points: deque[Point] = deque(maxlen=POINTS_MAX)

    async def look(self, nursery: trio.Nursery) -> Look:
        """The network now. A node that keeps its answer keeps nobody else; its question waits in the nursery.

        Raises as `record.read`.
        """
        nodes = record.read(self._directory)[:NODES_MAX]
        answered = trio.Event()
        left = {node.peer_id for node in nodes if node.process.running} - self._asked
        for node in nodes:
            if node.peer_id in left:
                self._asked.add(node.peer_id)
                self._replies.pop(node.peer_id, None)
                nursery.start_soon(self._ask, node, left, answered)
        with trio.move_on_after(ANSWER_S if left else 0):
            await answered.wait()
        await trio.to_thread.run_sync(self._read, nodes)
        look = self._seen(nodes)
        self.points.append(look.point)
        return look

    async def _ask(self, node: LocalNode, left: set[str], answered: trio.Event) -> None:
        try:
            with suppress(FallowError):
                reply = await trio.to_thread.run_sync(
                    control.request, node.folder, control.STATUS, abandon_on_cancel=True
                )
                self._replies[node.peer_id] = reply
        finally:
            self._asked.discard(node.peer_id)
            left.discard(node.peer_id)
            if not left:
                answered.set()

    def _read(self, nodes: list[LocalNode]) -> None:
        for node in nodes:
            self._logs.setdefault(node.peer_id, LogTail(node.folder / LOG)).read()
            with suppress(OSError):
                self._money[node.peer_id] = money(node.folder)
            if node.peer_id not in self._regions:
                self._regions[node.peer_id] = region_of(node.folder)
        self._faults.read()
        for path in [*self._elsewhere, *wallets_in(self._directory)]:
            with suppress(OSError):
                self._wallets.setdefault(path, WalletTail(path)).read()

    def _seen(self, nodes: list[LocalNode]) -> Look:
        faults = Counter(peer_id(node) for wallet in self._wallets.values() for node in wallet.faults)
        seen = tuple(self._node(node, faults[node.peer_id]) for node in nodes)
        verdicts: Counter[str] = Counter()
        for wallet in self._wallets.values():
            verdicts.update(wallet.outcomes)
        events = [
            Happened(event.time_ms, node.name or node.folder.name, event.what)
            for node in nodes
            for event in self._logs[node.peer_id].recent
        ]
        events += [Happened(event.time_ms, "testnet", event.what) for event in self._faults.recent]
        events.sort(key=lambda event: event.time_ms, reverse=True)
        point = Point(
            wall_ms(),
            sum(node.state in ("ready", "busy") for node in seen),
            sum(node.jobs for node in seen),
            sum(node.tokens for node in seen),
            sum(node.yields for node in seen),
            verdicts["accepted"],
            verdicts["rejected"] + verdicts["inconclusive"],
            sum(node.promised_ucr for node in seen),
        )
        return Look(seen, dict(verdicts), tuple(events[:EVENTS_MAX]), point)

    def _node(self, node: LocalNode, faults: int) -> NodeLook:
        log, reply = self._logs[node.peer_id], self._replies.get(node.peer_id)
        reasons: tuple[str, ...] = ()
        jobs = 0
        claimed_ucr, promised_ucr = self._money.get(node.peer_id, (0, 0))
        if not node.process.running:
            state = "gone"
        elif reply is None:
            state, reasons = "silent", ("it has not answered",)
        else:
            state, reasons, jobs = str(reply.get("state")), _texts(reply.get("reasons")), _count(reply)
        return NodeLook(
            node.name or node.folder.name, node.peer_id, node.kind, node.region or self._regions[node.peer_id], node.adversary,
            state, reasons, jobs, log.jobs_settled, log.jobs_lost, log.tokens, log.counts["yielded"], log.yield_ms,
            claimed_ucr, promised_ucr, faults,
        )  # fmt: skip


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _count(reply: dict[str, object]) -> int:
    jobs = reply.get("jobs_running")
    return jobs if isinstance(jobs, int) else 0

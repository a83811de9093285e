"""Finding somebody for a piece of work, now: discovery, choice and memory of what went wrong, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import trio

from ..protocol.errors import Code, FallowError, Refused
from .discovery import Discovery, Node, busier
from .execution import Desk
from .scheduler import Experience, Need, choose, ineligible, unsuitable, why_nobody

WAIT_S = 20.0
"""How long work waits for a node to come free before the caller is told that there is none."""
OWNERS_WAIT_S = 5.0
"""How long a quorum waits for enough owners to be found: two searches of the DHT, and the answers of slow nodes."""
RETRY_S = 0.25
"""Between two looks at who has come free: a quarter of what a person notices."""


@dataclass
class Team:
    """What jobs of one client share beyond their desk."""

    desk: Desk
    discovery: Discovery
    experience: Experience
    random: Random

    async def pick(self, need: Need, preferred: Sequence[bytes] = (), wait_s: float = WAIT_S) -> Node:
        """A node for this work; its load here counts one more. Raises `Refused(no_executor)`, saying what each one lacks."""
        distrusted = self.desk.wallet.distrusted
        nodes: Sequence[Node] = self.discovery.known(need.bundle)
        wanted = [key for key in preferred if key not in need.avoid_nodes]
        if wanted and not self._any_of(nodes, need, wanted):
            nodes = await self.discovery.find(need.bundle, lambda found: self._any_of(found, need, wanted))
        patience = trio.current_time() + wait_s
        while (node := self._choose(nodes, need, preferred)) is None:
            nodes = await self.discovery.find(need.bundle, lambda found: self._eligible(found, need) > 0)
            if self._eligible(nodes, need):
                continue
            if trio.current_time() > patience or all(unsuitable(node, need, distrusted) for node in nodes):
                raise Refused(Code.NO_EXECUTOR, why_nobody(nodes, need, distrusted))
            await trio.sleep(RETRY_S)
        self.discovery.nodes[node.key] = busier(node)
        return node

    async def owners(self, need: Need, wanted: int) -> int:
        """How many distinct owners can take this work; when they seem too few, looks again while that may help."""
        distrusted = self.desk.wallet.distrusted
        nodes: Sequence[Node] = self.discovery.known(need.bundle)
        patience = trio.current_time() + OWNERS_WAIT_S
        while (count := self._eligible(nodes, need)) < wanted and trio.current_time() < patience:
            nodes = await self.discovery.find(need.bundle, lambda found: self._eligible(found, need) >= wanted)
            if self._eligible(nodes, need) < wanted:
                if nodes and all(unsuitable(node, need, distrusted) for node in nodes):
                    break  # waiting does not help
                await trio.sleep(RETRY_S)
        return count

    def _any_of(self, nodes: Sequence[Node], need: Need, wanted: Sequence[bytes]) -> bool:
        distrusted = self.desk.wallet.distrusted
        return any(node.key in wanted and ineligible(node, need, distrusted) is None for node in nodes)

    def _eligible(self, nodes: Sequence[Node], need: Need) -> int:
        """Distinct owners among the nodes that could take the work now."""
        distrusted = self.desk.wallet.distrusted
        return len({node.owner for node in nodes if ineligible(node, need, distrusted) is None})

    def failed(self, node: Node, error: FallowError) -> None:
        """The node did not do its work: remembered for the next choice, and asked again before it is used again."""
        self.discovery.forget(node.key)
        honest_no = isinstance(error, Refused) and error.code in _HONEST_NO
        if not honest_no:
            self.experience.failed(node.key, trio.current_time())

    def _choose(self, nodes: Sequence[Node], need: Need, preferred: Sequence[bytes]) -> Node | None:
        distrusted = self.desk.wallet.distrusted
        return choose(nodes, need, self.experience, distrusted, preferred, trio.current_time(), self.random)


_HONEST_NO = frozenset({Code.BUSY, Code.OWNER_NEEDS_MACHINE, Code.STALE_PRICES, Code.STALE_WORKER_KEY})
"""Refusals that say nothing against the node."""

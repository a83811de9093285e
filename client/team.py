"""Finding somebody for a piece of work, now: discovery, choice and memory of what went wrong, in one place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import trio

from ..protocol.errors import Code, FallowError, LocalProtocolError, Refused
from ..protocol.policy import Policy
from .auditing import Auditor
from .desk import Desk
from .discovery import Discovery
from .execution import way_broke
from .nodes import Node, busier
from .scheduler import Experience, Need, choose, ineligible, unsuitable, why_nobody

if TYPE_CHECKING:
    from .late import Late
    from .spotting import Spots

WAIT_S = 20.0
"""How long work waits for a node to come free before the caller is told that there is none."""
FIND_S = 5.0
"""How long it waits for nodes to be found at all: two searches of the DHT, and the answers of slow nodes."""
RETRY_S = 0.25
"""Between two looks at who has come free: a quarter of what a person notices."""
NO_CAP_UCR = 2**53


@dataclass
class Team:
    """What jobs of one client share beyond their desk."""

    desk: Desk
    discovery: Discovery
    experience: Experience
    random: Random
    auditor: Auditor
    spots: Spots
    late: Late

    async def pick(self, need: Need, preferred: Sequence[bytes] = (), wait_s: float = WAIT_S) -> Node:
        """A node for this work; its load here counts one more. Raises `Refused`, saying what each known node lacks."""
        nodes: Sequence[Node] = self.discovery.known(need.bundle)
        wanted = [key for key in preferred if key not in need.avoid_nodes]
        if wanted and not self._any_of(nodes, need, wanted):
            nodes = await self.discovery.find(need.bundle, lambda found: self._any_of(found, need, wanted))
        began = trio.current_time()
        while (node := self._choose(nodes, need, preferred)) is None:
            nodes = await self.discovery.find(need.bundle, lambda found: bool(self._owners(found, (need,))))
            if self._owners(nodes, (need,)):
                continue
            if trio.current_time() - began > min(wait_s, self._patience_s(nodes, need)):
                raise self._refusal(nodes, need)
            await trio.sleep(RETRY_S)
        self.discovery.nodes[node.key] = busier(node)
        return node

    async def require_owners(self, needs: Sequence[Need], policy: Policy) -> None:
        """As many distinct owners as the policy needs can take some of the work, and at least one the first part of it.

        Raises `Refused` (`unsatisfiable_assurance`, `price_too_high`, `no_executor`) otherwise.
        """

        def enough(nodes: Sequence[Node]) -> bool:
            return len(self._owners(nodes, needs)) >= policy.k and bool(self._owners(nodes, needs[:1]))

        bundle, began = needs[0].bundle, trio.current_time()
        nodes: Sequence[Node] = self.discovery.known(bundle)
        while not enough(nodes):
            nodes = await self.discovery.find(bundle, enough)
            if enough(nodes):
                return
            if trio.current_time() - began > min(FIND_S, self._patience_s(nodes, needs[0])):
                if not policy.checked or not self._owners(nodes, needs[:1]):
                    raise self._refusal(nodes, needs[0])
                count = len(self._owners(nodes, needs))
                message = (
                    f"{policy} needs {policy.k} distinct owners, and {count} can take this work now."
                    " Nothing was asked; with `none` nobody checks the result."
                )
                raise Refused(Code.UNSATISFIABLE_ASSURANCE, message)
            await trio.sleep(RETRY_S)

    def failed(self, node: Node, error: FallowError) -> None:
        """The node did not do its work: remembered for the next choice, and asked again before it is used again."""
        if isinstance(error, LocalProtocolError):
            raise error  # our own mistake: no node is to blame
        self.discovery.forget(node.key)
        if way_broke(error):
            self.desk.network.drop(node.key)
        if not (isinstance(error, Refused) and error.code in _HONEST_NO):
            self.experience.failed(node.key, trio.current_time())
            self.desk.book.worked(node.key, well=False)

    def left(self, node: Node, delivered: int, planned: int) -> None:
        """Its owner took the machine back from our work: who does so often is asked seldom, by the next process, too.

        Nobody publishes when they drive, and none of it can be read anywhere: each client goes by what it has seen itself.
        """
        self.discovery.forget(node.key)
        self.experience.left(node.key, delivered, planned, trio.current_time())
        self.desk.book.worked(node.key, well=False)

    def _choose(self, nodes: Sequence[Node], need: Need, preferred: Sequence[bytes]) -> Node | None:
        distrusted = self.desk.wallet.distrusted
        return choose(nodes, need, self.experience, distrusted, preferred, trio.current_time(), self.random)

    def _any_of(self, nodes: Sequence[Node], need: Need, wanted: Sequence[bytes]) -> bool:
        distrusted = self.desk.wallet.distrusted
        return any(node.key in wanted and ineligible(node, need, distrusted) is None for node in nodes)

    def _owners(self, nodes: Sequence[Node], needs: Iterable[Need]) -> set[bytes]:
        """Distinct owners among the nodes that could take any of the work now."""
        distrusted = self.desk.wallet.distrusted
        return {node.owner for need in needs for node in nodes if ineligible(node, need, distrusted) is None}

    def _patience_s(self, nodes: Sequence[Node], need: Need) -> float:
        """How long waiting may help: for nodes that are busy, for nodes to be found, or not at all."""
        distrusted = self.desk.wallet.distrusted
        if not nodes:
            return FIND_S
        return 0.0 if all(unsuitable(node, need, distrusted) for node in nodes) else WAIT_S

    def _refusal(self, nodes: Sequence[Node], need: Need) -> Refused:
        priceless = replace(need, amount_ucr_max=NO_CAP_UCR)
        code = Code.PRICE_TOO_HIGH if self._owners(nodes, (priceless,)) else Code.NO_EXECUTOR
        return Refused(code, why_nobody(nodes, need, self.desk.wallet.distrusted))


_HONEST_NO = frozenset(
    {Code.BUSY, Code.OWNER_NEEDS_MACHINE, Code.STALE_PRICES, Code.STALE_WORKER_KEY, Code.PREPAY, Code.CREDIT_EXHAUSTED}
)
"""Refusals that say nothing against the node."""

"""Which node gets the work: the client's own choice from its own measurements. Pure.

Expected time to finish decides, from round trip, load and measured rates, and where somebody waits for a text whether the
node is interactive (page 02); among the eligible, two are drawn and the
better one taken, so that clients with the same view do not all pick the same node. Who has read most of the same text before
is considered beside them: a conversation's next turn is read there in less time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from ..node.book import Met
from ..protocol.bundle import GENERATE
from ..protocol.errors import RemoteProtocolError
from ..protocol.identity import CHECKER, EXECUTOR
from ..protocol.prices import amount_ucr_max, find_price
from ..protocol.profiles import State
from .affinity import Affinity
from .nodes import Node

EXPLORE = 0.05
"""Share of choices that ignore the score, so that a node's first bad measurement is not its last."""
WORTH_KEEPING = 0.5
"""Of a text, the part that a node must have read to be considered for that: every chat begins with the same few words."""
REDRAWN = 0.5
"""Share of choices of a checker that do not look at who has read the text: an executor that knew who checks its next window
could lie whenever that is an accomplice."""
UNPROVEN_COST_S = 0.5
"""What a newcomer costs where work is checked by its record: every window of it waits for a checker, about so long on two
cores. Little enough that an idle newcomer is taken before a proven node with a queue."""
SPREAD = 0.5
"""Share of choices of a checker that look for another region than those that are in it already. Regions are what nodes say of
themselves: who named a rare one would otherwise be drawn each time."""
FAILURE_COST_S = 5.0
"""What a recent failure, or one that is sure to come, adds to the expected time: about what a failed attempt costs a reader."""
FAILURE_HALF_LIFE_S = 300.0
NEWCOMER_FAILURES, NEWCOMER_JOBS = 1.0, 10.0
"""What is counted of every node beside what is known of it: one job of ten fails, until a few have shown otherwise."""
MISSED_JOBS = 0.25
"""As how much of a failed job a question counts that had no answer: who comes and goes may go in mid-job, but seldom does."""
BATCH_COST_S = 2.0
"""What a node that nobody can wait for costs where somebody does: a reader would rather have an interactive node's answer two
seconds later than one that comes in fits. Where all are the same, it decides nothing."""


@dataclass(frozen=True, slots=True)
class Need:
    """What the work asks of a node."""

    bundle: bytes
    entry: str
    calls: int
    input_tokens: int
    planned_tokens: int
    amount_ucr_max: int
    role: str = EXECUTOR
    avoid_nodes: frozenset[bytes] = frozenset()
    avoid_owners: frozenset[bytes] = frozenset()
    tokens: tuple[int, ...] = ()
    """Of a text, all that is given: a node that has read it before need not read it again."""
    only_owners: frozenset[bytes] | None = None
    """Those whom chance drew for a committee; None: anybody."""
    wished_owners: frozenset[bytes] = frozenset()
    """One of these, if any can take it."""
    spread_from: frozenset[str] = frozenset()
    """Regions that are in it already: another one, if any can take it."""
    proven: frozenset[bytes] | None = None
    """Nodes whose record lets some of their work pass unchecked; None where that makes no difference."""


@dataclass(slots=True)
class Experience:
    """What this client has seen of nodes: rates by (node, bundle), and recent failures."""

    rate: dict[tuple[bytes, bytes], float] = field(default_factory=dict)
    """Output tokens per second as they arrived here."""
    failures: dict[bytes, tuple[float, float]] = field(default_factory=dict)
    """Node -> (weight, when)."""
    kept: Affinity = field(default_factory=Affinity)
    """Who read which text."""
    met: Callable[[bytes], Met | None] = lambda node: None
    """What is known of a node from all times."""

    def measured(self, node: bytes, bundle: bytes, tokens_per_s: float) -> None:
        """One more job's rate, averaged in."""
        before = self.rate.get((node, bundle), tokens_per_s)
        self.rate[node, bundle] = 0.7 * before + 0.3 * tokens_per_s

    def failed(self, node: bytes, now_s: float) -> None:
        """One more failure."""
        self.failures[node] = (self.recent_failures(node, now_s) + 1.0, now_s)

    def left(self, node: bytes, delivered: int, planned: int, now_s: float) -> None:
        """It took work and left before the end: as bad as what it left undone. An owner who has just come home may do so again,
        and whoever takes orders only to yield them has gained nothing by it."""
        undone = 1.0 - min(max(delivered, 0) / max(planned, 1), 1.0)
        self.failures[node] = (self.recent_failures(node, now_s) + undone, now_s)

    def recent_failures(self, node: bytes, now_s: float) -> float:
        """Failures, each halved every five minutes."""
        weight, when = self.failures.get(node, (0.0, now_s))
        return float(weight * 0.5 ** ((now_s - when) / FAILURE_HALF_LIFE_S))

    def failure_chance(self, node: bytes) -> float:
        """That a job there fails: of its jobs and questions so far, and of those that every newcomer begins with."""
        met = self.met(node)
        if met is None:
            return NEWCOMER_FAILURES / NEWCOMER_JOBS
        failed = met.jobs_failed + MISSED_JOBS * (met.tries - met.answers)
        jobs = met.jobs_done + met.jobs_failed + MISSED_JOBS * met.tries
        return (NEWCOMER_FAILURES + failed) / (NEWCOMER_JOBS + jobs)


def at_fault(node: Node, distrusted: Collection[bytes]) -> bool:
    """Whether the node is not dealt with: for what it did, or for what its owner, or its owner's issuer, has signed."""
    return not {node.key, node.owner, node.mandate.signer}.isdisjoint(distrusted)


def unsuitable(node: Node, need: Need, distrusted: Collection[bytes]) -> str | None:
    """Why the node cannot get this work, however long one waits, or None."""
    served = node.capability.served_bundle(need.bundle)
    if at_fault(node, distrusted):
        return "found at fault"
    if node.key in need.avoid_nodes:
        return "already tried"
    if need.only_owners is not None and node.owner not in need.only_owners:
        return "not of an owner who was drawn"
    if node.owner in need.avoid_owners:
        return "of an owner who is already part of this"
    if served is None or need.entry not in served.entries:
        return "without this entry"
    if need.role not in node.mandate.record.roles:
        return f"not mandated as {need.role}"
    return _price_problem(node, need)


def unready(node: Node) -> str | None:
    """Why the node cannot take work at this moment, or None."""
    if node.state not in (State.READY, State.BUSY) or node.worker_key is None:
        return "; ".join(node.reasons) or f"{node.state}"
    return None


def ineligible(node: Node, need: Need, distrusted: Collection[bytes]) -> str | None:
    """Why the node cannot get this work now, or None."""
    return unsuitable(node, need, distrusted) or unready(node)


def _price_problem(node: Node, need: Need) -> str | None:
    try:
        price = find_price(node.capability.prices, need.bundle, need.entry)
    except RemoteProtocolError:
        return "without a price"
    asked = amount_ucr_max(price, need.calls, need.input_tokens, need.planned_tokens)
    if asked > need.amount_ucr_max:
        return f"dearer than the cap of {need.amount_ucr_max} ucr"
    return None


def expected_s(node: Node, need: Need, experience: Experience, now_s: float, kept_tokens: int = 0) -> float:
    """Seconds until the work would be done there, if so many first tokens need not be read again."""
    served = node.capability.served_bundle(need.bundle)
    assert served is not None
    load = 1 + node.jobs_running
    rate = experience.rate.get((node.key, need.bundle), served.output_tokens_per_s_milli / 1000)
    reading = max(need.input_tokens - kept_tokens, 0) * 1000 / max(served.input_tokens_per_s_milli, 1)
    if need.entry == "call":
        reading = need.calls * 1000 / max(served.calls_per_s_milli, 1)
    writing = need.planned_tokens / max(rate, 0.001) if need.entry == GENERATE else 0.0
    waited_for = need.entry == GENERATE and need.role == EXECUTOR
    return (
        node.rtt_ms / 1000
        + load * (reading + writing)
        + FAILURE_COST_S * (experience.recent_failures(node.key, now_s) + experience.failure_chance(node.key))
        + (0.0 if node.interactive or not waited_for else BATCH_COST_S)
        + (UNPROVEN_COST_S if need.proven is not None and node.key not in need.proven else 0.0)
    )


def choose(
    nodes: Iterable[Node],
    need: Need,
    experience: Experience,
    distrusted: Collection[bytes],
    preferred: Sequence[bytes],
    now_s: float,
    random: Random,
) -> Node | None:
    """The node for this work: the first eligible one of `preferred`, else the best of two drawn and of those who have read
    the text before; None if nobody is eligible."""
    eligible = sorted((n for n in nodes if ineligible(n, need, distrusted) is None), key=lambda node: node.key)
    if not eligible:
        return None
    for key in preferred:
        if wanted := next((node for node in eligible if node.key == key), None):
            return wanted
    eligible = _wished(eligible, need, random)
    if random.random() < EXPLORE:
        return random.choice(eligible)
    drawn = random.sample(eligible, min(2, len(eligible)))
    if need.proven and (proven := [node for node in eligible if node.key in need.proven and node not in drawn]):
        drawn += random.sample(proven, min(2, len(proven)))
    kept = _worth_keeping(need, experience, random)
    drawn += [node for node in eligible if node.key in kept and node not in drawn]
    return min(drawn, key=lambda node: expected_s(node, need, experience, now_s, kept.get(node.key, 0)))


def _wished(eligible: list[Node], need: Need, random: Random) -> list[Node]:
    """Those of them that are wished for, or all if there are none."""
    if wished := [node for node in eligible if node.owner in need.wished_owners]:
        eligible = wished
    if need.spread_from and random.random() < SPREAD:
        elsewhere = [node for node in eligible if node.capability.region not in need.spread_from | {""}]
        eligible = elsewhere or eligible
    return eligible


def _worth_keeping(need: Need, experience: Experience, random: Random) -> dict[bytes, int]:
    """Nodes that have read most of the text, and how many tokens of it; none, now and then, where it is to be checked."""
    if need.role == CHECKER and random.random() < REDRAWN:
        return {}
    kept = experience.kept.find(need.bundle, need.tokens)
    return {node: tokens for node, tokens in kept.items() if tokens >= WORTH_KEEPING * len(need.tokens)}


def why_nobody(nodes: Iterable[Node], need: Need, distrusted: Collection[bytes]) -> str:
    """One sentence for a person: what each known node lacks."""
    reasons = [ineligible(node, need, distrusted) for node in nodes]
    if not reasons:
        return "No node that serves this bundle was found."
    counted = sorted({reason: reasons.count(reason) for reason in reasons if reason}.items())
    listed = ", ".join(f"{count} x {reason}" for reason, count in counted)
    return f"None of the {len(reasons)} nodes that serve this bundle can take the work ({listed})."

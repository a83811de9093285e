"""What a chaos run came to: figures of its jobs, its money and its processes, from what was written down meanwhile."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Final

from ..protocol.policy import AUDIT, QUORUM, Policy
from .adversaries import find
from .books import Books
from .errands import Job
from .plan import Plan
from .watching import Growth

CONFIDENCE: Final = 0.999
BOUND_MAX: Final = 100_000
"""No run has so many windows that a larger bound would say anything."""
LINE: Final = (
    "asked", "completed", "verified", "wrongly_accepted", "resumed", "lost", "first_token_ms", "handover_ms",
    "credits_conserved",
)  # fmt: skip
"""What the one line of `--json` says."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some times, in milliseconds; 0 where there are none."""

    p50: int
    p95: int
    p99: int
    most: int
    count: int


@dataclass(frozen=True, slots=True)
class Bound:
    """How many results may be wrong though they were accepted, at `CONFIDENCE`, by the assurance that was asked for."""

    results: int | None
    """None: there is none."""
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """A run's end."""

    asked: int
    completed: int
    verified: int
    """Of these, checked and accepted."""
    wrongly_accepted: int
    wrongly_accepted_max: int | None
    bound: str
    wrong_unchecked: int
    """Wrong results that nobody was asked to check."""
    resumed: int
    """Texts that went on at another node."""
    lost: int
    """Jobs without a result."""
    first_token_ms: Spread
    handover_ms: Spread
    took_ms: Spread
    credits_conserved: bool
    promised_ucr: int
    credits_apart_ucr: Mapping[str, int]
    unpaid_ucr: int
    faults: Mapping[str, int]
    """How many of each kind befell the network."""
    crashed: Sequence[str]
    """Nodes that ended though nobody had told them to."""
    broken: Sequence[str]
    """What could not be done: a fault that was not made or mended, a client that ended too early."""
    losses: Sequence[Mapping[str, object]]
    """Each lost job: who asked for what, when, and what was said."""
    growth: Sequence[Growth] = field(default=())
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Nothing came out that must not."""
        within = self.wrongly_accepted_max is None or self.wrongly_accepted <= self.wrongly_accepted_max
        return within and not self.lost and self.credits_conserved and not self.crashed and not self.broken

    def line(self) -> str:
        """One line of JSON, with the fields of `LINE`."""
        fields = asdict(self)
        return json.dumps({name: fields[name] for name in LINE})

    def whole(self) -> str:
        """All of it, for `report.json`."""
        return json.dumps({**asdict(self), "sound": self.sound}, indent=2)


def report(
    plan: Plan,
    assurance: str,
    clients: int,
    jobs: Sequence[Job],
    wrong: Collection[Job],
    books: Books,
    growth: Sequence[Growth],
    *,
    faults: Mapping[str, int],
    crashed: Sequence[str],
    broken: Sequence[str],
    seconds: float,
) -> Report:
    """The figures, from what the run wrote down and what an honest engine says of the results."""
    completed = [job for job in jobs if job.completed]
    lost = [job for job in jobs if not job.completed]
    limit = bound(plan, Policy.parse(assurance), clients)
    return Report(
        asked=len(jobs),
        completed=len(completed),
        verified=sum(job.accepted for job in completed),
        wrongly_accepted=sum(job.accepted for job in wrong),
        wrongly_accepted_max=limit.results,
        bound=limit.why,
        wrong_unchecked=sum(not job.accepted for job in wrong),
        resumed=sum(bool(job.gaps_ms) for job in completed),
        lost=len(lost),
        first_token_ms=spread([job.first_token_ms for job in completed if job.first_token_ms]),
        handover_ms=spread([gap for job in completed for gap in job.gaps_ms]),
        took_ms=spread([job.took_ms for job in completed]),
        credits_conserved=books.conserved,
        promised_ucr=books.total_ucr,
        credits_apart_ucr=books.differences(),
        unpaid_ucr=sum(books.unpaid_ucr.values()),
        faults=dict(faults),
        crashed=list(crashed),
        broken=list(broken),
        losses=[
            {
                "client": job.client, "number": job.number, "errand": asdict(job.errand), "began_ms": job.began_ms,
                "took_ms": job.took_ms, "code": job.code or "unfinished", "message": job.message,
            }
            for job in lost
        ],
        growth=list(growth),
        seconds=seconds,
    )  # fmt: skip


def spread(times_ms: Sequence[int]) -> Spread:
    """Percentiles by nearest rank: each is a time that was measured."""
    ranked = sorted(times_ms)
    if not ranked:
        return Spread(0, 0, 0, 0, 0)
    p50, p95, p99 = (ranked[ceil(len(ranked) * share) - 1] for share in (0.50, 0.95, 0.99))
    return Spread(p50, p95, p99, ranked[-1], len(ranked))


def bound(plan: Plan, policy: Policy, clients: int) -> Bound:
    """How many wrong results may be accepted in a run of this plan, by what its policy promises.

    Under a quorum none, as long as no `k` owners are in one plot. Under audits, each client finds each liar out at the first
    of its wrong windows that is drawn, and deals with it no more: before that, a number of windows passes that is geometric
    in the rate of audits, and over all pairs of client and liar negative binomial.
    """
    liars = [node for node in plan.nodes if node.adversary and find(node.adversary).lies]
    plotters = {node.owner or node.name for node in liars if find(node.adversary).nodes > 1}
    if not policy.checked:
        return Bound(None, "nothing was checked: there is no bound")
    if not liars:
        return Bound(0, "nobody lies")
    if policy.kind == QUORUM:
        if len(plotters) >= policy.k:
            return Bound(
                None, f"{len(plotters)} owners are in one plot, and {policy.k} make a quorum: there is no bound"
            )
        return Bound(0, f"no {policy.k} owners are in one plot: a quorum accepts nothing that is wrong")
    if policy.kind == AUDIT:
        pairs, rate = clients * len({node.owner or node.name for node in liars}), policy.ppm / 1_000_000
        return Bound(
            passes_max(pairs, rate),
            f"{pairs} pairs of client and liar, each found out at its first audit, of {100 * rate:g} % of windows",
        )
    return Bound(None, "this policy has no bound of its own")


def passes_max(pairs: int, rate: float) -> int:
    """Wrong windows that pass before each of so many pairs has been audited once, at most, with probability `CONFIDENCE`."""
    passed, term = 0, rate**pairs
    total = term
    while total < CONFIDENCE and passed < BOUND_MAX:
        passed += 1
        term *= (1 - rate) * (passed + pairs - 1) / passed
        total += term
    return passed

"""Invariants of the design, each in one function: what a run shows against it, in sentences.

They know nothing of how a simulation works, only what it left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb
from typing import TYPE_CHECKING, Final

from ....client.discovery import FRESH_S
from ....node.credit import UNANSWERED_PPM
from ....protocol.job import UNPAID_RECEIPTS_MAX
from ....protocol.policy import ADAPTIVE, AUDIT, NONE, QUORUM
from ....verifier.audits import MILLION, Deterrence
from ...report import passes_max
from ..scenario import Scenario
from .accusations import (
    false_words_cost,
    faults_reach_everybody,
    fees_conserved,
    judgements_are_true,
    nobody_honest_is_blamed,
)
from .connections import DEAD_S
from .ledgers import ledgers
from .load import policy_of

if TYPE_CHECKING:
    from .simulation import Run

YIELD_S: Final = 0.25
"""From the owner's word until the accelerator is idle: the design's yield bound."""
GHOST_ORDER_S: Final = FRESH_S + DEAD_S
"""Nobody sends an order to a node that has been gone for longer: what a node said of itself counts so long at most, and the
connection by which one would notice its end as long."""
LATE_S: Final = 1.0
"""After its deadline, a job has ended within so long."""
CONFIDENCE: Final = 0.999
WINDOWS_UNPAID_MAX: Final = UNPAID_RECEIPTS_MAX + 1
"""Of one job: the window after an unpaid one is delivered, and no further."""


def check(run: Run) -> tuple[str, ...]:
    """What all checkers found."""
    return tuple(f"{checker.__name__}: {found}" for checker in CHECKERS for found in checker(run))


def owner_first(run: Run) -> Iterator[str]:
    """No accelerator works for others once its owner has wanted it for as long as the yield bound."""
    for node in run.nodes:
        late = [after_s for after_s in node.worked if after_s > YIELD_S]
        if late:
            most = f"{max(late):.3f} s after its owner's word"
            yield f"node {node.place.number} worked for others {len(late)} times, up to {most}"


def credits_conserved(run: Run) -> Iterator[str]:
    """What payees count is what payers promised, and nobody is paid for more than was done, nor twice."""
    for ledger in ledgers(run):
        where = f"client {ledger.client} and node {ledger.node}"
        if ledger.honoured_ucr > ledger.promised_ucr:
            yield f"{where}: the payee holds {ledger.honoured_ucr} ucr, the payer promised {ledger.promised_ucr}"
        if ledger.promised_ucr > ledger.claimed_ucr:
            yield f"{where}: {ledger.promised_ucr} ucr were promised for receipts over {ledger.claimed_ucr}"
        if ledger.covered_ucr > ledger.honoured_ucr:
            yield f"{where}: receipts over {ledger.covered_ucr} ucr count as paid, and {ledger.honoured_ucr} ucr were promised"
        if ledger.named_twice:
            yield f"{where}: {ledger.named_twice} receipts were paid twice"


def work_unpaid_bounded(run: Run) -> Iterator[str]:
    """Nobody gets more windows of one job without a voucher than the protocol lets it, nor more from a node than that lends."""
    specs = {node.place.number: node for node in run.nodes}
    for ledger in ledgers(run):
        where, spec = f"client {ledger.client} at node {ledger.node}", specs[ledger.node]
        if ledger.unpaid_windows > WINDOWS_UNPAID_MAX:
            yield f"{where}: {ledger.unpaid_windows} windows of one job have no voucher, and {WINDOWS_UNPAID_MAX} may have none"
        # Jobs side by side are admitted before any of them has left anything.
        beside_ucr = spec.jobs_max * WINDOWS_UNPAID_MAX * ledger.dearest_ucr
        most_ucr = max(spec.unanswered_ucr, ledger.honoured_ucr * UNANSWERED_PPM // 1_000_000) + beside_ucr
        if (unpaid_ucr := ledger.claimed_ucr - ledger.honoured_ucr) > most_ucr:
            yield f"{where}: {unpaid_ucr} ucr have no voucher, and {most_ucr} ucr may have none"


def wrong_results_bounded(run: Run) -> Iterator[str]:
    """Wrong results are accepted no more often than the policy's bound has it, at 99.9 % confidence."""
    completed = [job for job in run.jobs if job.completed]
    wrong, most = sum(job.wrong for job in completed), wrong_max(run.scenario, len(completed), _pairs(run))
    if wrong > most:
        yield f"{wrong} of {len(completed)} accepted results are wrong, and at most {most} may be"


def every_job_ends(run: Run) -> Iterator[str]:
    """Every job ends with a result or a reason, in time, and no more are without a result than the scenario allows."""
    for job in run.jobs:
        if job.ended_s is None:
            yield f"job {job.number} of client {job.client} never ended"
        elif job.ended_s - job.asked_s > run.scenario.load.deadline_s + LATE_S:
            yield f"job {job.number} ended {job.ended_s - job.asked_s:.1f} s after it was asked"
        elif job.lost:
            yield f"job {job.number} ended with what is no reason: {job.why}"
    unserved = [job for job in run.jobs if not job.completed and not job.lost]
    if len(unserved) > run.scenario.bounds.unserved_share * len(run.jobs):
        whys = sorted({job.why for job in unserved})
        yield f"{len(unserved)} of {len(run.jobs)} jobs ended without a result ({', '.join(whys)})"


def ghosts_vanish(run: Run) -> Iterator[str]:
    """Who is gone is named no longer than the bound, and gets no orders once everybody must have noticed."""
    bound_s = run.scenario.bounds.ghost_s
    if stale := [(age_s, node) for age_s, node in run.medium.named if age_s > bound_s]:
        age_s, node = max(stale)
        yield f"node {node} was named {age_s:.0f} s after it had gone, {len(stale)} times beyond {bound_s:.0f} s"
    if late := [(age_s, node) for age_s, node in run.medium.ordered_gone if age_s > GHOST_ORDER_S]:
        age_s, node = max(late)
        yield f"an order was to go to node {node}, gone for {age_s:.0f} s; {len(late)} did beyond {GHOST_ORDER_S:.0f} s"


def index_load_bounded(run: Run) -> Iterator[str]:
    """No index node is asked more in its busiest minute than the bound."""
    bound = run.scenario.bounds.index_records_s
    for node in run.nodes:
        busiest = max(node.place.asked.values(), default=0) / 60
        if busiest > bound:
            yield f"index node {node.place.number} was asked {busiest:.1f} times a second, and {bound:.1f} are the bound"


def judges_are_just(run: Run) -> Iterator[str]:
    """Nobody loses pay for good work, and no payee counts more as forfeited than its payer does."""
    specs = {node.place.number: node for node in run.nodes}
    for ledger in ledgers(run):
        where = f"client {ledger.client} and node {ledger.node}"
        lost_ucr = max(ledger.forfeited_ucr, ledger.given_up_ucr)
        if lost_ucr and specs[ledger.node].character.honest:
            yield f"{where}: {lost_ucr} ucr of good work are forfeited"
        if ledger.given_up_ucr > ledger.forfeited_ucr:
            yield f"{where}: the payee gave up {ledger.given_up_ucr} ucr, and {ledger.forfeited_ucr} ucr were forfeited"


def caps_hold(run: Run) -> Iterator[str]:
    """No feeder carries more than its cap, and no site draws more than a shed order that has reached it allows."""
    for feeder in run.feeders:
        if feeder.most_w > feeder.cap_w:
            yield f"feeder {feeder.number} carried {feeder.most_w} W, and {feeder.cap_w} W is its cap"
        for member in feeder.members:
            if member.over_cap_w > 0:
                yield f"node {member.spec.place.number} drew {member.over_cap_w} W more than it was told"


CHECKERS: Final[tuple[Callable[[Run], Iterator[str]], ...]] = (
    owner_first,
    credits_conserved,
    wrong_results_bounded,
    every_job_ends,
    ghosts_vanish,
    index_load_bounded,
    caps_hold,
    work_unpaid_bounded,
    judges_are_just,
    nobody_honest_is_blamed,
    faults_reach_everybody,
    false_words_cost,
    fees_conserved,
    judgements_are_true,
)


def wrong_max(scenario: Scenario, completed: int, pairs: int) -> int:
    """Of so many completed jobs, at most so many are wrong at that confidence, with so many pairs of client and liar.

    Under audits each client finds each liar out at the first wrong window that is drawn and refuted: before that, a number of
    windows passes that is geometric, and over all pairs negative binomial. While nothing of a node's pay is held, adaptive
    audits look at all of it: so whoever lies from its first window on gets none accepted, unless others confirm it.
    """
    policy, faults = policy_of(scenario.assurance), scenario.faults
    most = quantile(completed, wrong_share(scenario), CONFIDENCE)
    if policy.kind not in (AUDIT, ADAPTIVE):
        return most
    colluding = faults.colluders + faults.sybils
    if policy.kind == ADAPTIVE and not colluding and faults.lies >= 1 and not faults.lies_after_jobs:
        return 0
    seen = Deterrence(policy.ppm / MILLION, colluding, 1, 1, 0)
    return min(most, passes_max(pairs, seen.checked * seen.convicted))


def _pairs(run: Run) -> int:
    """Of clients that ask honestly and owners who may lie."""
    honest = sum(not client.attack for client in run.clients)
    liars = {bytes(node.owner.verify_key) for node in run.nodes if node.character.generates or node.character.calls}
    return honest * len(liars)


def wrong_share(scenario: Scenario) -> float:
    """Of completed jobs, the share that may be wrong, whoever met whom.

    A quorum K/N accepts a false window only if its executor is one of the colluders, who are a share c of the nodes, and
    K-1 of the N-1 first checkers are too. Liars who do not know of one another agree with nobody: for them the share is 0.
    Under any other policy that checks, the scenario says it; without checks all may be.
    """
    policy = policy_of(scenario.assurance)
    if policy.kind == NONE:
        return 1.0
    if policy.kind != QUORUM:
        return scenario.bounds.wrong_share
    c, needed, asked = scenario.faults.colluders + scenario.faults.sybils, policy.k - 1, policy.n - 1
    friends = sum(comb(asked, n) * c**n * (1 - c) ** (asked - n) for n in range(needed, asked + 1))
    windows = max(1, -(-scenario.tokens[1] // 32))
    return float(min(1.0, 1.0 - (1.0 - c * friends) ** windows))


def quantile(count: int, share: float, confidence: float) -> int:
    """Of so many, each with that chance, the most that are hit at that confidence."""
    chance, total = (1.0 - share) ** count, 0.0
    for hits in range(count + 1):
        total += chance
        if total >= confidence or share >= 1.0:
            return hits if share < 1.0 else count
        chance *= (count - hits) / (hits + 1) * share / (1.0 - share)
    return count

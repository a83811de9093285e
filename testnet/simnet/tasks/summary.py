"""The figures of one simulation with every task and message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ....node.network.index import Message
from ....protocol.errors import Code
from ..figures import FeederUse, Figures, Spread, spread
from .feeders import Feeder

if TYPE_CHECKING:
    from .simulation import Run

START_MINUTES: Final = 2
"""In which everybody starts: what index nodes are asked meanwhile is no measure of anything."""


def figures_of(run: Run) -> Figures:
    jobs = run.jobs
    completed = [job for job in jobs if job.completed]
    unserved = [job for job in jobs if not job.completed and not job.lost]
    firsts = sorted(job.first_token_s * 1000 for job in completed if job.first_token_s is not None)
    handovers = sorted(float(gap) for job in completed for gap in job.handovers_ms)
    checks_s = sum(node.busy_s.get("score", 0.0) for node in run.nodes)
    work_s = sum(node.busy_s.get("generate", 0.0) + node.busy_s.get("call", 0.0) for node in run.nodes)
    medium = run.medium
    named = medium.named_there + len(medium.named)
    in_class = sum(first <= run.scenario.load.first_token_ms_max for first in firsts)
    return Figures(
        nodes=len(run.nodes),
        duration_s=run.scenario.duration_s,
        asked=len(jobs),
        completed=len(completed),
        verified=sum(job.verified for job in completed),
        wrongly_accepted=sum(job.wrong for job in completed),
        lies_caught=sum(len(client.team.desk.wallet.distrusted) for client in run.clients if client.team),
        interrupted=sum(bool(job.handovers_ms) for job in completed),
        resumed=sum(bool(job.handovers_ms) for job in completed),
        unserved=len(unserved),
        unserved_nobody=sum(job.why == Code.NO_EXECUTOR for job in unserved),
        lost=sum(job.lost for job in jobs),
        in_class=in_class / len(completed) if completed else None,
        first_token_ms=spread(firsts) if firsts else Spread(),
        handover_ms=spread(handovers) if handovers else Spread(),
        verification_overhead=checks_s / work_s if work_s else None,
        nodes_up=sum(run.up) / len(run.up) if run.up else None,
        lookup_peers=medium.exchanged[Message.GET_PROVIDERS] / medium.finds if medium.finds else None,
        lookup_found=None,
        ghosts=len(medium.named) / named if named else None,
        index_records_s=max((_busiest(node.place.asked) for node in run.nodes if node.index), default=None),
        index_load_s=_mean_load(run),
        index_bytes_s=None,
        node_bytes_s=None,
        feeder=_feeders(run.feeders),
    )


def _feeders(feeders: Sequence[Feeder]) -> FeederUse | None:
    whole_ws = sum(feeder.time_s * feeder.cap_w for feeder in feeders)
    if not whole_ws:
        return None
    return FeederUse(
        max(feeder.most_w / feeder.cap_w for feeder in feeders),
        sum(feeder.used_ws for feeder in feeders) / whole_ws,
        sum(feeder.alone_ws for feeder in feeders) / whole_ws,
        sum(feeder.ideal_ws for feeder in feeders) / whole_ws,
        sum(feeder.portions_ws for feeder in feeders) / whole_ws,
        sum(feeder.reached_ws for feeder in feeders) / whole_ws,
    )


def _busiest(by_minute: Counter[int]) -> float:
    """In its busiest minute, but for those in which everybody starts: so often a second."""
    return max((count / 60 for minute, count in by_minute.items() if minute >= START_MINUTES), default=0.0)


def _mean_load(run: Run) -> float | None:
    """Without those first two minutes, over whole minutes of the scenario."""
    minutes = range(START_MINUTES, int(run.scenario.duration_s // 60))
    index = [node.place for node in run.nodes if node.index]
    asked = sum(place.asked[minute] for place in index for minute in minutes)
    return asked / (60 * len(minutes) * len(index)) if minutes and index else None

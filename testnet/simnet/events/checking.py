"""What must hold of every simulation, looked at afterwards and apart from it: each invariant is one function."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..figures import Figures
from ..scenario import Scenario
from .jobs import Jobs
from .timeline import Timeline

SLACK_S = 1e-6


def violations(scenario: Scenario, timeline: Timeline, jobs: Jobs, figures: Figures) -> tuple[str, ...]:
    """Everything that does not hold, a sentence each."""
    found = [*_owner_first(timeline, jobs), *_every_job_ends(figures), *_bounded(scenario, figures)]
    return tuple(found)


def _owner_first(timeline: Timeline, jobs: Jobs) -> Iterator[str]:
    """No job runs while its node's owner has the machine, or while the node is not there."""
    if not jobs.pieces or not len(timeline.nodes):
        return
    nodes, begins, ends = (np.concatenate([piece[part] for piece in jobs.pieces]) for part in range(3))
    # Intervals in one line, node after node: the last that begins before a piece ends must have ended before it began.
    line = timeline.nodes * 1e9 + timeline.begins
    last = np.searchsorted(line, nodes * 1e9 + ends - SLACK_S) - 1
    same = (last >= 0) & (timeline.nodes[last] == nodes)
    overlap = same & (timeline.ends[last] > begins + SLACK_S)
    if overlap.any():
        first = int(np.flatnonzero(overlap)[0])
        yield (
            f"{int(overlap.sum())} pieces of work ran on machines that were not lent; the first on node {int(nodes[first])} "
            f"from {begins[first]:.3f} s."
        )


def _every_job_ends(figures: Figures) -> Iterator[str]:
    """With a result, or with a reason."""
    if figures.lost:
        yield f"Of {figures.asked} jobs {figures.lost} were lost: they ended with neither a result nor a reason."


def _bounded(scenario: Scenario, figures: Figures) -> Iterator[str]:
    """What the scenario says may be at most."""
    bounds = scenario.bounds
    if figures.index_records_s is not None and figures.index_records_s > bounds.index_records_s:
        yield f"An index node was asked {figures.index_records_s:.1f} times a second; at most {bounds.index_records_s:g}."
    if figures.wrongly_accepted > bounds.wrong_share * max(figures.completed, 1):
        yield f"{figures.wrongly_accepted} of {figures.completed} results were wrong; at most {bounds.wrong_share:.2%}."
    if figures.unserved > bounds.unserved_share * max(figures.asked, 1):
        yield f"{figures.unserved} of {figures.asked} jobs had no result; at most {bounds.unserved_share:.2%}."

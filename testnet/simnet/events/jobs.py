"""Jobs of many clients in steps of two seconds: placed, interrupted, resumed, checked, done or lost, each at its own moment.

Times are exact within a step; only how busy nodes are is as of the step before. A piece of work is one attempt of one job at
one node: when it is placed, all that will become of it is known here, and to nobody in the simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ....client.discovery import FRESH_S, GRACE_S, WARM_S
from ....client.search import SEARCH_S
from ....client.team import WAIT_S
from ....node.network.walk import PARALLEL
from ....protocol.limits import ACCEPT_MS_MAX, SILENCE_MS_MAX, WINDOW_TOKENS
from ..figures import Trace
from ..lots import Floats
from ..population import Bools, Population
from ..scenario import FUNCTIONS, Bundle, Scenario
from .audits import Audits, windows_of
from .clients import Clients, Ints, expected_s, two_of
from .discovery import NOBODY, Discovery
from .timeline import YIELDS, Timeline

STEP_S: Final = 2.0
TOGETHER: Final = ((1, 4, 8, 16), (1.0, 1.95, 2.96, 3.62))
"""Slots, and how many times one slot they write together (benchmarks/README.md)."""
UNEVEN: Final = 1.075
"""A step takes so many times its best, on average, on a quiet machine."""
OPENING: Final = 1.0
"""Round trips until a job's stream is open and the order can go."""
BELIEF: Final = 0.02
"""By so much, one standard deviation, the rates differ that a client has measured of like nodes."""
NOTICE_S: Final = 0.05
"""From a yield until its notice is on every stream (design.md)."""
SILENT_S: Final = SILENCE_MS_MAX / 1000 + 0.05
UNANSWERED_S: Final = ACCEPT_MS_MAX / 1000
RETRANSMIT_S: Final = 0.2
TRIES_MAX: Final = 50
"""Of one job: more than that many nodes have failed it, and its client says that nobody can do it (`client.text`)."""

DONE, YIELDED, LOST_EXECUTOR, CAUGHT = 0, 1, 2, 3

JOB: Final = np.dtype(
    [
        ("id", "i8"),
        ("client", "i8"),
        ("bundle", "i8"),
        ("asked_s", "f8"),
        ("at_s", "f8"),  # when it is to be placed next; of one that runs, when the piece ends
        ("since_s", "f8"),  # since when nobody was found for it
        ("broke_s", "f8"),  # when its executor was lost, while the reader waits
        ("first_s", "f8"),
        ("left", "i8"),  # tokens still to be written
        ("done", "i8"),  # of these, by the piece that runs
        ("node", "i8"),
        ("avoid", "i8"),
        ("tries", "i8"),
        ("end", "i8"),
        ("wrong", "?"),
        ("looked", "?"),
        ("searched", "?"),  # it asks for a new search
    ]
)
Batch = NDArray[Any]


@dataclass(slots=True)
class Count:
    """What became of the jobs so far, and when: a row in `at` for each tenth of an hour or so."""

    asked: int = 0
    completed: int = 0
    verified: int = 0
    wrongly_accepted: int = 0
    caught: int = 0
    interrupted: int = 0
    resumed: int = 0
    unserved: int = 0
    unserved_nobody: int = 0
    """As in `Figures`."""
    work_s: float = 0.0
    check_s: float = 0.0
    first: list[Floats] = field(default_factory=list)
    """Milliseconds to the first token, of all jobs that have one."""
    first_at: list[Floats] = field(default_factory=list)
    handover: list[Floats] = field(default_factory=list)
    events: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """What happened in each step: (when, how much)."""

    def note(self, what: str, at_s: float, amount: float) -> None:
        if amount:
            self.events.setdefault(what, []).append((at_s, float(amount)))


class Jobs:
    """All jobs of a simulation."""

    def __init__(
        self,
        scenario: Scenario,
        population: Population,
        timeline: Timeline,
        discovery: Discovery,
        audits: Audits,
        chance: np.random.Generator,
        trace: Trace,
    ) -> None:
        self.count = Count()
        self.clients = Clients(scenario, population)
        self.pieces: list[tuple[Ints, Floats, Floats]] = []
        """Nodes, and from when until when each worked: for the checkers."""
        self._scenario = scenario
        self._timeline = timeline
        self._discovery = discovery
        self._audits = audits
        self._chance = chance
        self._trace = trace
        self._speed = population.speed
        self._jobs_max = np.array([crowd.jobs_max for crowd in scenario.population])[population.crowd]
        self._running = np.zeros(len(population), dtype=np.int64)
        self._pending: Batch = np.zeros(0, dtype=JOB)
        self._active: Batch = np.zeros(0, dtype=JOB)
        index_regions = np.bincount(population.region[population.index], minlength=8).astype(np.float64)
        self._index_regions = index_regions / index_regions.sum()
        self._input, self._output = scenario.tokens
        self._is_call = scenario.load.workload == FUNCTIONS
        bundles = scenario.bundles
        self._demand = np.array([each.demand for each in bundles]) / max(sum(each.demand for each in bundles), 1e-12)
        self._asked_from = np.zeros(len(bundles))
        for event in scenario.events:
            if event.what == "appear" and event.bundle:
                names = [each.name for each in bundles]
                self._asked_from[names.index(event.bundle)] = event.at_h * 3600.0
        self._in_rate = self._rates(bundles, lambda each: each.input_tokens_per_s)
        self._out_rate = self._rates(
            bundles, lambda each: each.calls_per_s if self._is_call else each.output_tokens_per_s
        )
        self._check_factor = self._rates(bundles, lambda each: 1.0 if self._is_call else each.check_factor)

    def run(self, from_s: float, until_s: float, arriving: bool = True) -> bool:
        """All that happens in that time has happened; whether any job is left."""
        if arriving:
            self._arrive(from_s, until_s - from_s)
        at_s = from_s
        while at_s < until_s:
            soon_s = min(self._next(self._active), self._next(self._pending))
            at_s = max(at_s, np.floor(soon_s / STEP_S) * STEP_S)
            if at_s < until_s:
                self._step(at_s + STEP_S)
            at_s += STEP_S
        return bool(len(self._pending) or len(self._active))

    def _next(self, jobs: Batch) -> float:
        return float(jobs["at_s"].min()) if len(jobs) else np.inf

    def _step(self, until_s: float) -> None:
        ended = self._take("_active", until_s)
        if len(ended):
            self._end(ended)
        due = self._take("_pending", until_s)
        if len(due):
            self._place(due[np.argsort(due["at_s"], kind="stable")])

    def _rates(self, bundles: tuple[Bundle, ...], of: Callable[[Bundle], float]) -> Floats:
        return np.array([of(each) for each in bundles])

    def _take(self, which: str, until_s: float) -> Batch:
        jobs: Batch = getattr(self, which)
        due = jobs["at_s"] < until_s
        if due.any():
            setattr(self, which, jobs[~due])
        return jobs[due]

    def _arrive(self, at_s: float, lasts_s: float) -> None:
        level, regions = self.clients.demand(self._scenario.start_s + at_s)
        number = int(self._chance.poisson(self._scenario.load.jobs_per_hour / 3600 * level * lasts_s))
        jobs = np.zeros(number, dtype=JOB)
        jobs["at_s"] = at_s + np.sort(self._chance.random(number)) * lasts_s
        jobs["bundle"] = np.searchsorted(np.cumsum(self._demand), self._chance.random(number), side="right").clip(
            0, len(self._demand) - 1
        )
        jobs["client"] = self.clients.drawn(number, regions, self._chance)
        jobs = jobs[jobs["at_s"] >= self._asked_from[jobs["bundle"]]]
        jobs["id"] = self.count.asked + np.arange(len(jobs))
        jobs["asked_s"] = jobs["since_s"] = jobs["at_s"]
        jobs["broke_s"] = jobs["first_s"] = np.nan
        jobs["left"] = self._output
        jobs["avoid"] = jobs["node"] = NOBODY
        self.count.asked += len(jobs)
        self.count.note("asked", at_s, len(jobs))
        self._pending = np.concatenate([self._pending, jobs])

    def _place(self, jobs: Batch) -> None:
        """Each gets a node, another try, or a reason why there is no result."""
        nobody = (jobs["at_s"] > jobs["since_s"] + WAIT_S) | (jobs["tries"] > TRIES_MAX)
        over = nobody | (jobs["at_s"] > jobs["asked_s"] + self._scenario.load.deadline_s)
        self._refuse(jobs[over], nobody=int(nobody.sum()))
        jobs = jobs[~over]
        if not len(jobs):
            return
        rows = self.clients.rows(jobs["client"], jobs["bundle"])
        delay_s, view, ready = self._known(jobs, rows)
        none = ~ready.any(axis=1)
        waiting = jobs[none]
        waiting["at_s"] += SEARCH_S + delay_s[none]
        waiting["searched"] = True
        self._pending = np.concatenate([self._pending, waiting])
        some = np.flatnonzero(~none)
        if len(some):
            self._begin(jobs[some], delay_s[some], self._choose(jobs[some], view[some], ready[some]))

    def _known(self, jobs: Batch, rows: Ints) -> tuple[Floats, Ints, Bools]:
        """For each job: how long finding nodes takes, those known, and which of them say that they take work."""
        clients, at_s = self.clients, jobs["at_s"]
        cold = (at_s - clients.used_at[rows] > WARM_S) | jobs["searched"]
        delay_s = np.zeros(len(jobs))
        if cold.any():
            delay_s[cold] = self._find(jobs[cold], rows[cold])
        clients.used_at[rows] = at_s
        jobs["searched"] = False
        view = clients.view[rows].astype(np.int64)
        there = view != NOBODY
        age_s = np.where(cold, 0.0, self._chance.random(len(jobs)) * FRESH_S / 2)
        when = np.broadcast_to((at_s + delay_s - age_s)[:, None], view.shape)
        ready = there & (view != jobs["avoid"][:, None])
        ready[ready] = ~self._timeline.down(view[ready], when[ready])
        return delay_s, view, ready

    def _find(self, jobs: Batch, rows: Ints) -> Floats:
        """Those whose knowledge is old have searched; how long it took until there was somebody to choose from."""
        clients, at_s = self.clients, jobs["at_s"]
        fresh, first = np.unique(rows, return_index=True)
        who = jobs["client"][first]
        before = clients.view[fresh].astype(np.int64)
        known = before != NOBODY
        rtt_s = clients.rtt_s(who[:, None], np.maximum(before, 0))
        known[known] = ~self._timeline.down(before[known], np.broadcast_to(at_s[first][:, None], before.shape)[known])
        nearest_s = np.where(known, rtt_s, np.inf).min(axis=1)
        rounds = -(-self._discovery.searching.asked // PARALLEL)
        search_s = np.zeros(len(fresh))
        for bundle in np.unique(jobs["bundle"][first]):
            mine = np.flatnonzero(jobs["bundle"][first] == bundle)
            mine_rows = fresh[mine]
            found, clients.depth[mine_rows], lookups = self._discovery.find(
                int(bundle), clients.depth[mine_rows], float(at_s[0])
            )
            found = found[:, : clients.view.shape[1]]
            bad = self._audits.distrusted(np.repeat(who[mine], found.shape[1]), np.maximum(found, 0).ravel())
            found[bad.reshape(found.shape)] = NOBODY
            clients.view[mine_rows] = found
            search_s[mine] = lookups * rounds * 2 * clients.index_rtt_s(who[mine], self._index_regions)
            met = found != NOBODY
            ask_s = clients.rtt_s(who[mine][:, None], np.maximum(found, 0))
            search_s[mine] += 2 * np.where(met, ask_s, np.inf).min(axis=1, initial=UNANSWERED_S)
        # Whoever is known still is asked at once; the search goes on beside it. Dialling takes one round trip, asking another.
        took_s = np.minimum(2 * nearest_s, search_s) + GRACE_S
        return np.asarray(took_s[np.searchsorted(fresh, rows)])

    def _choose(self, jobs: Batch, view: Ints, ready: Bools) -> Ints:
        first, second, explore = two_of(ready, self._chance)
        row = np.arange(len(jobs))
        nodes = np.stack([view[row, first], view[row, second]], axis=1)
        bundle = jobs["bundle"][:, None]
        speed = self._speed[nodes]
        reading_s, writing_s = self._times(bundle, (jobs["left"])[:, None], speed)
        rtt_s = self.clients.rtt_s(jobs["client"][:, None], nodes)
        patient = self.clients.interactive(rtt_s) | np.bool_(self._is_call)
        belief = np.asarray(1 + BELIEF * self._chance.standard_normal(nodes.shape), dtype=np.float64)
        load = np.asarray(1 + self._running[nodes], dtype=np.float64)
        took = expected_s(rtt_s, load, reading_s * belief, writing_s * belief, patient)
        better = np.where(explore | (took[:, 0] <= took[:, 1]), 0, 1)
        return nodes[row, better]

    def _times(self, bundle: Ints, left: Ints, speed: Floats) -> tuple[Floats, Floats]:
        """Reading what is given and writing what is left, alone on the node."""
        if self._is_call:
            return 1.0 / (self._out_rate[bundle] * speed), np.zeros(speed.shape)
        given = self._input + self._output - left
        return given / (self._in_rate[bundle] * speed), left / (self._out_rate[bundle] * speed)

    def _begin(self, jobs: Batch, delay_s: Floats, nodes: Ints) -> None:
        """The nodes are asked. Those that are not there, or are full, cost another try."""
        jobs["tries"] += 1
        jobs["node"] = nodes
        rtt_s = self.clients.rtt_s(jobs["client"], nodes)
        rtt_s = rtt_s * (1 + self._scenario.faults.jitter * self._chance.random(len(jobs)))
        if self._scenario.faults.loss:
            again = self._chance.geometric(1 - min(self._scenario.faults.loss, 0.99), (2, len(jobs))).sum(axis=0) - 2
            rtt_s = rtt_s + again * (rtt_s + RETRANSMIT_S)
        arrives_s = jobs["at_s"] + delay_s + (OPENING + 0.5) * rtt_s
        down = self._timeline.down(nodes, arrives_s)
        silent = down & self._timeline.silent(nodes, arrives_s)
        ahead = self._running[nodes] + _rank(nodes)
        full = ~down & (ahead >= self._jobs_max[nodes])
        fails = down | full
        if fails.any():
            failed = jobs[fails]
            failed["at_s"] += delay_s[fails] + np.where(silent[fails], UNANSWERED_S, rtt_s[fails])
            failed["avoid"] = nodes[fails]
            self.clients.forget(failed["client"][silent[fails]], failed["node"][silent[fails]])
            self._pending = np.concatenate([self._pending, failed])
        good = np.flatnonzero(~fails)
        if len(good):
            self._run(jobs[good], arrives_s[good], rtt_s[good], sharing(1 + ahead[good]))

    def _run(self, jobs: Batch, arrives_s: Floats, rtt_s: Floats, slow: Floats) -> None:
        """The pieces run; all that will become of them follows."""
        nodes = jobs["node"]
        reading_s, writing_s = self._times(jobs["bundle"], jobs["left"], self._speed[nodes])
        token_s = writing_s / np.maximum(jobs["left"], 1) * slow
        writes_s = arrives_s + reading_s * slow
        finish_s = writes_s + writing_s * slow
        down_s, how = self._timeline.next_down(nodes, arrives_s)
        breaks = down_s < finish_s
        if self._is_call:
            written = np.where(breaks, 0, jobs["left"])
        else:
            written = np.floor((down_s - writes_s) / np.maximum(token_s, 1e-9)).clip(0, jobs["left"]).astype(np.int64)
            written = np.where(breaks, written, jobs["left"])
        end_s = np.where(breaks, down_s, finish_s)
        end = np.where(breaks, np.where(how == YIELDS, YIELDED, LOST_EXECUTOR), DONE)
        self._first(jobs, writes_s + token_s + rtt_s / 2, end_s)
        prefix_s, window_s = self._check_times(jobs, self._speed[nodes])
        delivered = np.where(breaks & (written == 0), 0, windows_of(written))
        looked = self._audits.look(jobs["client"], nodes, jobs["bundle"], delivered, prefix_s, window_s)
        caught_s = writes_s + (looked.at_window + 1) * WINDOW_TOKENS * token_s + prefix_s + window_s + rtt_s
        end_s = np.where(looked.caught, np.minimum(caught_s, end_s), end_s)
        jobs["done"] = np.where(looked.caught, np.minimum(looked.sound * WINDOW_TOKENS, written), written)
        jobs["end"] = np.where(looked.caught, CAUGHT, end)
        jobs["wrong"] |= looked.wrong
        jobs["looked"] |= looked.checked > 0
        self.count.work_s += float((reading_s + written * token_s / slow + self._is_call * 0.0).sum())
        self.count.check_s += float(looked.check_s.sum())
        self.count.note("check_s", float(jobs["at_s"][0]), float(looked.check_s.sum()))
        self.count.note("work_s", float(jobs["at_s"][0]), float((reading_s + written * token_s / slow).sum()))
        jobs["at_s"] = end_s
        np.add.at(self._running, nodes, 1)
        self.pieces.append((nodes.copy(), arrives_s, end_s))
        self._active = np.concatenate([self._active, jobs])
        moments = np.rint(np.stack([arrives_s, end_s]) * 1e6).astype("<i8")
        self._trace.add_bytes(
            "run", np.stack([jobs["id"], nodes]).astype("<i8").tobytes() + moments.tobytes(), len(jobs)
        )

    def _first(self, jobs: Batch, token_at_s: Floats, end_s: Floats) -> None:
        """The reader has the first token, or the next one after a handover, if the piece lived to write one."""
        writes = token_at_s <= end_s + 1.0
        fresh = writes & np.isnan(jobs["first_s"])
        jobs["first_s"][fresh] = token_at_s[fresh]
        self.count.first.append((token_at_s - jobs["asked_s"])[fresh] * 1000)
        self.count.first_at.append(jobs["asked_s"][fresh].copy())
        again = writes & ~np.isnan(jobs["broke_s"])
        self.count.handover.append((token_at_s - jobs["broke_s"])[again] * 1000)
        self.count.resumed += int(again.sum())
        jobs["broke_s"][again] = np.nan
        jobs["since_s"] = np.inf

    def _check_times(self, jobs: Batch, speed: Floats) -> tuple[Floats, Floats]:
        """Of a checker as quick as the node: reading the prompt and half the text, and teacher-forcing a window."""
        bundle = jobs["bundle"]
        if self._is_call:
            return np.zeros(len(jobs)), 1.0 / (self._out_rate[bundle] * speed)
        prefix_s = (self._input + jobs["left"] / 2) / (self._in_rate[bundle] * speed)
        return prefix_s, WINDOW_TOKENS / (self._out_rate[bundle] * self._check_factor[bundle] * speed)

    def _end(self, jobs: Batch) -> None:
        jobs = jobs[np.argsort(jobs["at_s"], kind="stable")]
        np.subtract.at(self._running, jobs["node"], 1)
        end, at_s = jobs["end"], float(jobs["at_s"][0])
        jobs["left"] -= jobs["done"]
        over = (end == DONE) | ((end != CAUGHT) & (jobs["left"] <= 0))
        in_time = jobs["at_s"] <= jobs["asked_s"] + self._scenario.load.deadline_s
        self._complete(jobs[over & in_time], at_s)
        self._refuse(jobs[over & ~in_time], nobody=0)
        goes_on = jobs[~over].copy()
        if not len(goes_on):
            return
        end = goes_on["end"]
        caught = end == CAUGHT
        self._audits.distrust(goes_on["client"][caught], goes_on["node"][caught])
        gone = caught | (end == LOST_EXECUTOR)
        self.clients.forget(goes_on["client"][gone], goes_on["node"][gone])
        self.count.caught += int(caught.sum())
        self.count.interrupted += int((~caught).sum())
        self.count.note("caught", at_s, int(caught.sum()))
        self.count.note("interrupted", at_s, int((~caught).sum()))
        goes_on["broke_s"] = np.where(caught, np.nan, goes_on["at_s"])
        notice_s = np.where(end == YIELDED, NOTICE_S, np.where(caught, 0.0, SILENT_S))
        goes_on["at_s"] += notice_s + self.clients.rtt_s(goes_on["client"], goes_on["node"]) / 2
        goes_on["since_s"] = goes_on["at_s"]
        goes_on["avoid"] = goes_on["node"]
        self._pending = np.concatenate([self._pending, goes_on])

    def _complete(self, jobs: Batch, at_s: float) -> None:
        wrong = int(jobs["wrong"].sum())
        self.count.completed += len(jobs)
        self.count.verified += int(jobs["looked"].sum())
        self.count.wrongly_accepted += wrong
        self.count.note("completed", at_s, len(jobs))
        self.count.note("wrong", at_s, wrong)

    def _refuse(self, jobs: Batch, *, nobody: int) -> None:
        """They end with a reason: that there is nobody, for so many of them, or that their time is over."""
        if len(jobs):
            self.count.unserved += len(jobs)
            self.count.unserved_nobody += nobody
            self.count.note("unserved", float(jobs["at_s"][0]), len(jobs))
            self._trace.add_bytes("unserved", jobs["id"].astype("<i8").tobytes(), len(jobs))


def sharing(slots: Ints) -> Floats:
    """How many times longer a job's step takes beside others, so many altogether."""
    return UNEVEN * slots / np.interp(slots, *TOGETHER)


def _rank(nodes: Ints) -> Ints:
    """Of each, how many before it are the same."""
    order = np.argsort(nodes, kind="stable")
    ordered = nodes[order]
    starts = np.ones(len(nodes), dtype=np.bool_)
    starts[1:] = ordered[1:] != ordered[:-1]
    since = np.maximum.accumulate(np.where(starts, np.arange(len(nodes)), 0))
    rank = np.empty(len(nodes), dtype=np.int64)
    rank[order] = np.arange(len(nodes)) - since
    return rank

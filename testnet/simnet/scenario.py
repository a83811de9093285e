"""What is simulated: one frozen record, the same for both fidelities, read from TOML by `scenario_file`.

Shares lie between 0 and 1. What is not said is not there: a scenario without faults has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from .days import MODELS
from .regions import REGIONS

EVENTS, TASKS = "events", "tasks"
FIDELITIES: Final = (EVENTS, TASKS)
NODES_MAX: Final = 2_000_000
"""Of the fidelity without tasks: a node takes about a kilobyte."""
TASKS_NODES_MAX: Final = 2_000
"""With every task and message, twice what the fidelity is meant for."""
DURATION_H_MAX: Final = 14 * 24.0
JOBS_PER_HOUR_MAX: Final = 20_000_000.0
LIST_MAX: Final = 64
"""Crowds, bundles and events of one scenario."""

CHAT, LONG, FUNCTIONS = "chat", "long", "functions"
WORKLOADS: Final[Mapping[str, tuple[int, int]]] = {CHAT: (40, 200), LONG: (1000, 50), FUNCTIONS: (0, 0)}
"""Tokens in and out: the two workloads of the design. A function is one call."""

OUTAGE, DEPART, SHED, PARTITION, APPEAR = "outage", "depart", "shed", "partition", "appear"
KILL, FREEZE, BLACKHOLE, SLOW, LOSSY, SKEW = "kill", "freeze", "blackhole", "slow", "lossy", "skew"
EVENT_KINDS: Final = (OUTAGE, DEPART, SHED, PARTITION, APPEAR, KILL, FREEZE, BLACKHOLE, SLOW, LOSSY, SKEW)


def _share(default: float = 0.0) -> Any:
    return field(default=default, metadata={"least": 0.0, "most": 1.0})


def _number(default: float, least: float, most: float) -> Any:
    return field(default=default, metadata={"least": least, "most": most})


def _word(default: str, *words: str) -> Any:
    return field(default=default, metadata={"words": words})


@dataclass(frozen=True, slots=True)
class Faults:
    """Everything that may go wrong, and how often. Adversaries are shares of the nodes, drawn by the seed."""

    # The network. A message is one frame of a stream, or one datagram of the simulated network.
    loss: float = _share()
    """Of messages; a lost one is sent again after a round trip and 200 ms, as TCP does."""
    duplication: float = _share()
    reordering: float = _share()
    latency_factor: float = _number(1.0, 0.0, 1000.0)
    """Times what `regions` says."""
    jitter: float = _number(0.1, 0.0, 10.0)
    """A message takes up to so many times its latency longer."""
    bandwidth_factor: float = _number(1.0, 0.001, 1000.0)
    partitions_per_day: float = _number(0.0, 0.0, 1000.0)
    """How often a region is cut off from all others, for each region."""
    partition_s: float = _number(60.0, 0.0, 86_400.0)
    # Machines; rates are for each node.
    kills_per_day: float = _number(0.0, 0.0, 1000.0)
    """It ends without a word, and starts anew `restart_s` later."""
    restart_s: float = _number(60.0, 0.0, 86_400.0)
    freezes_per_day: float = _number(0.0, 0.0, 1000.0)
    """It answers nothing for `freeze_s`, though its connections stay."""
    freeze_s: float = _number(30.0, 0.0, 86_400.0)
    churn: float = _number(0.0, 0.0, 60.0)
    """Departures of a node an hour, besides those of its day: the owner takes the machine, for `churn_s`."""
    churn_s: float = _number(600.0, 1.0, 86_400.0)
    storms_per_week: float = _number(0.0, 0.0, 7.0)
    """Of each region: a front passes its districts and takes `storm_share` of each one's nodes."""
    storm_share: float = _share(0.6)
    clock_skew_ms: float = _number(0.0, 0.0, 600_000.0)
    """Each clock is off by up to so much, either way."""
    # Executors that cheat.
    liars: float = _share()
    """Give wrong results."""
    newcomer_liars: float = _share()
    """The same, of the newcomers alone."""
    lies: float = _share(1.0)
    """Of a liar's windows, so many are wrong."""
    lies_after_jobs: int = field(default=0, metadata={"least": 0, "most": 100_000})
    """A liar works honestly so long, to earn a record first."""
    free_riders: float = _share()
    """Copy what others say, or guess."""
    equivocators: float = _share()
    """Sign two statements that contradict."""
    quantisers: float = _share()
    """Sell int8 as float32."""
    deniers: float = _share()
    """Give no receipt, or disown it."""
    stallers: float = _share()
    """Accept, and then take their time."""
    colluders: float = _share()
    """As checkers they agree with each other's lies, whatever they find."""
    sybils: float = _share()
    """Nodes of one and the same owner, under as many names."""
    # The table.
    hostile_index: float = _share()
    """Of index nodes: they name only each other, and hide whoever they are asked for."""
    # Clients.
    double_spenders: float = _share()
    non_payers: float = _share()
    false_accusers: float = _share()
    """Say of good work, before judges, that it is wrong."""
    misopeners: float = _share()
    """Do not pay, and open before judges another prompt than they had ordered. Nobody asks them without `courts`."""
    slanderers: float = _share()
    """Pass on as evidence against nodes what proves nothing."""
    # Judges; there are as few as make a committee.
    corrupt_judges: float = _share()
    """Find whatever they look at to be wrong. With two of three, who is judged has nobody left."""
    # Members of feeders.
    feeder_liars: float = _share()
    """Lend what they do not have, to everybody, and in others' names."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """A part of the population: so large a share of the nodes, in one region, of one day."""

    model: str = _word("commuter", *MODELS)
    region: str = _word("eu-central", *REGIONS)
    share: float = _number(1.0, 0.0, 1e9)
    """A weight among the crowds; they need not add up to 1."""
    speed: float = _number(1.0, 0.001, 1000.0)
    """Of its accelerators, times what the bundle says."""
    jobs_max: int = field(default=4, metadata={"least": 1, "most": 64})
    """At one time, on each node."""
    settle_s: float = _number(0.0, 0.0, 86_400.0)
    """From the owner's leaving the machine until it may work."""


@dataclass(frozen=True, slots=True)
class Load:
    """What clients ask for, all together."""

    jobs_per_hour: float = _number(1000.0, 0.0, JOBS_PER_HOUR_MAX)
    workload: str = _word(CHAT, *WORKLOADS)
    input_tokens: int = field(default=0, metadata={"least": 0, "most": 32_768})
    output_tokens: int = field(default=0, metadata={"least": 0, "most": 4096})
    """Instead of the workload's, if they are not 0."""
    clients: int = field(default=10, metadata={"least": 1, "most": NODES_MAX})
    """They are where the nodes are, and each has its own view and records."""
    daily: bool = False
    """Demand follows the clients' local day instead of being the same at every hour."""
    deadline_s: float = _number(120.0, 1.0, 86_400.0)
    """A job that has no result by then ends without one."""
    first_token_ms_max: float = _number(2000.0, 1.0, 600_000.0)
    """The latency class that is asked for: a first token by then, or the class was missed."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model on the mesh."""

    name: str = "chat"
    demand: float = _number(1.0, 0.0, 1e9)
    """A weight among the bundles: of the jobs, its share."""
    held: float = _share(1.0)
    """Of the nodes, so many hold it at the start and serve it."""
    wanted: float = _share()
    """Of the nodes that do not hold it, so many fetch it once they hear of demand for it."""
    size_mb: float = _number(270.0, 0.001, 1_000_000.0)
    input_tokens_per_s: float = _number(400.0, 0.1, 1e7)
    """Of a node of speed 1, one job alone."""
    output_tokens_per_s: float = _number(28.0, 0.01, 1e6)
    calls_per_s: float = _number(20.0, 0.01, 1e6)
    check_factor: float = _number(5.0, 1.0, 100.0)
    """So many times quicker is checking a token than writing it (design: 5 to 7 at one slot)."""


@dataclass(frozen=True, slots=True)
class Assurance:
    """How results are checked. The parameters are those of the design's adaptive audits.

    With every task the clients' own code has all of them but policy and floor; what is held is the price of real receipts,
    and whoever is found to lie forfeits it before judges.
    """

    policy: str = "adaptive"
    """As `protocol.policy` has it (`none`, `quorum:2/3`, `audit:50000`), or `adaptive`."""
    floor: float = _share(0.02)
    """No node's windows are checked less often."""
    newcomer: int = field(default=10, metadata={"least": 0, "most": 100_000})
    """Valid checked results before any is taken unchecked."""
    price_ucr: float = _number(800.0, 0.0, 1e12)
    """Of a job: what a cheat may win by one."""
    held_ucr: float = _number(80_000.0, 1.0, 1e15)
    """What a payee lets its client hold, and so loses."""
    colluding: float = _number(0.2, 0.0, 0.999)
    """The share of checkers assumed to be the executor's friends."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens at a time, to a share of the nodes of a region and of a day (all, where nothing is said)."""

    what: str = _word(OUTAGE, *EVENT_KINDS)
    """`outage`: no power, no word. `depart`: owners take their machines, and jobs are handed over. `shed`: the grid asks for
    the load, with the same yield. `partition`: the region is cut off. `appear`: a bundle is published and asked for. `kill`:
    the process ends without a word. `freeze`: it answers nothing, and its connections stay. `blackhole`: what is sent to it
    is gone. `slow`, `lossy`: its link. `skew`: its clock."""
    at_h: float = _number(0.0, 0.0, DURATION_H_MAX)
    """Since the simulation's beginning."""
    over_s: float = _number(0.0, 0.0, 86_400.0)
    """Not all at once, but evenly over so long."""
    lasts_s: float = _number(3600.0, 0.0, 1e7)
    share: float = _share(1.0)
    amount: float = _number(0.0, 0.0, 1e9)
    """Of `slow` (times the latency), `lossy` (the share lost), `skew` (milliseconds)."""
    region: str = _word("", "", *REGIONS)
    model: str = _word("", "", *MODELS)
    district: int = field(default=-1, metadata={"least": -1, "most": 63})
    """One district of the region alone, as `days` numbers them."""
    bundle: str = ""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the checkers hold against a run, besides what always holds (owner first, no double pay, credits conserved)."""

    index_records_s: float = _number(200.0, 0.0, 1e9)
    """Records and searches that any index node is asked for in a second, over its busiest minute."""
    ghost_s: float = _number(1920.0, 0.0, 1e9)
    """A node that is gone is named no longer than that: a record's 30 minutes, and the tolerance of clocks."""
    wrong_share: float = _share(1.0)
    """Of completed jobs, so many may be wrong."""
    unserved_share: float = _share(1.0)
    """Of jobs asked, so many may end without a result."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One simulation, but for its seed."""

    name: str = "unnamed"
    about: str = ""
    fidelity: str = _word(EVENTS, *FIDELITIES)
    nodes: int = field(default=100, metadata={"least": 1, "most": NODES_MAX})
    start: str = "mon 00:00"
    """Day and time of the week, UTC."""
    duration_h: float = _number(1.0, 0.001, DURATION_H_MAX)
    newcomers: float = _share()
    """Of the nodes: of whom no client has any record at the start. All others have one of `history` valid checked results."""
    history: int = field(default=100, metadata={"least": 0, "most": 100_000})
    index_share: float = _share(0.01)
    """Of the nodes, so many keep the table: sites and hosts that can be dialled, if there are as many."""
    vouched: float = _share(1.0)
    """Of the nodes, so many have an owner of their own; the others share one with another node."""
    feeders: bool = False
    """Nodes are members of feeders, lend one another shares, and are told to shed (with every task only).
    `faults.partitions_per_day` cuts feeders in two as well."""
    gossip: bool = False
    """Faults that prove themselves are passed on from peer to peer, and who sends what proves nothing is let in no more (with
    every task only)."""
    courts: bool = False
    """Owners take before judges what their nodes are not paid for, and payers answer (with every task only)."""
    population: tuple[Crowd, ...] = (Crowd(),)
    bundles: tuple[Bundle, ...] = (Bundle(),)
    faults: Faults = field(default_factory=Faults)
    load: Load = field(default_factory=Load)
    assurance: Assurance = field(default_factory=Assurance)
    bounds: Bounds = field(default_factory=Bounds)
    events: tuple[Event, ...] = ()

    @property
    def start_s(self) -> float:
        """Seconds from Monday 00:00 UTC to the beginning."""
        day, _, clock = self.start.partition(" ")
        hours, _, minutes = clock.partition(":")
        return float(WEEKDAYS.index(day) * 86_400 + int(hours) * 3600 + int(minutes) * 60)

    @property
    def duration_s(self) -> float:
        return self.duration_h * 3600.0

    @property
    def tokens(self) -> tuple[int, int]:
        """In and out, of one job; of a call, none."""
        usual_in, usual_out = WORKLOADS[self.load.workload]
        return self.load.input_tokens or usual_in, self.load.output_tokens or usual_out

    def scaled(self, nodes: int) -> Scenario:
        """The same with fewer or more nodes, and clients and jobs in proportion."""
        by = nodes / self.nodes
        clients = max(1, round(self.load.clients * by))
        load = replace(self.load, jobs_per_hour=self.load.jobs_per_hour * by, clients=clients)
        return replace(self, nodes=nodes, load=load)


WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

"""The node for Prometheus: counters from its start on, and how it stands at the moment of the scrape.

No label tells one client from another: entries, states, codes, reasons, signals and the owner's own names of sensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..protocol.profiles import State
from .availability import Availability
from .lending import Lending
from .power.account import Account
from .rules.signals import Signal
from .tally import Tally
from .words import TEMPERATURES

Values: TypeAlias = float | Mapping[str, float]
"""One value, or one for each value of the label."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One metric. A name that ends in `_total` is a counter."""

    name: str
    label: str
    """Empty: it has none."""
    meaning: str
    of: Callable[[Metrics], Values]


@dataclass(frozen=True, eq=False)
class Metrics:
    """One node's, at the moment that they are asked for."""

    tally: Tally
    availability: Availability
    lending: Lending
    peers: Callable[[], int]
    account: Callable[[], Account | None]
    diary_up: Callable[[], bool]

    def text(self) -> bytes:
        """In Prometheus' text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Every one of `TABLE`."""
        for kind in TABLE:
            family = CounterMetricFamily if kind.name.endswith("_total") else GaugeMetricFamily
            metric = family(kind.name.removesuffix("_total"), kind.meaning, labels=[kind.label] if kind.label else None)
            values = kind.of(self)
            if isinstance(values, Mapping):
                for label, value in sorted(values.items()):
                    metric.add_metric([label], value)
            else:
                metric.add_metric([], values)
            yield metric

    def energy(self, of: Callable[[Account], float]) -> float:
        """Of the account; nothing before the first worker is asked for."""
        account = self.account()
        return of(account) if account else 0.0

    def told(self, signal: Signal) -> dict[str, float]:
        """What each source gives that may be relied on."""
        board, now_ms = self.lending.board, self.lending.now().ms
        found = {source: board.told(source, signal, now_ms) for source, has in board.expects.items() if signal in has}
        return {source: float(told.values[0]) for source, told in found.items() if told.values}

    def sensors(self) -> dict[str, float]:
        """Each source: whether all that it is there to give may be relied on."""
        board, now_ms = self.lending.board, self.lending.now().ms
        return {
            source: float(not any(board.told(source, signal, now_ms).why for signal in signals))
            for source, signals in board.expects.items()
        }


TABLE: Final = (
    Kind("fallow_node_state", "state", "1 for the state that the node is in, 0 for the others",
         lambda m: {str(state): float(state is m.availability.state) for state in State}),
    Kind("fallow_lent", "", "1 while the owner's rules lend the machine", lambda m: float(m.availability.lends)),
    Kind("fallow_withheld", "reason", "1 for each reason for which it is not lent",
         lambda m: dict.fromkeys(m.lending.codes, 1.0)),
    Kind("fallow_jobs_running", "", "jobs that run now", lambda m: m.availability.jobs),
    Kind("fallow_jobs_places", "", "jobs that may run at once", lambda m: m.availability.jobs_max),
    Kind("fallow_jobs_accepted_total", "entry", "orders accepted", lambda m: m.tally.accepted),
    Kind("fallow_jobs_ended_total", "state", "jobs that have ended, by how", lambda m: m.tally.ended),
    Kind("fallow_jobs_refused_total", "code", "orders refused, by code", lambda m: m.tally.refused),
    Kind("fallow_tokens_total", "", "tokens delivered by jobs that have ended", lambda m: m.tally.tokens),
    Kind("fallow_claimed_microcredits_total", "", "what the receipts of those jobs claim", lambda m: m.tally.amount_ucr),
    Kind("fallow_yields_total", "", "times that the machine was given back", lambda m: m.tally.yields),
    Kind("fallow_yield_seconds_total", "", "from the owner's sign until every job was handed back, all together",
         lambda m: m.tally.yields_ms / 1000),
    Kind("fallow_worker_starts_total", "", "workers that became ready", lambda m: m.tally.worker_starts),
    Kind("fallow_peers", "", "peers that the node is connected with", lambda m: m.peers()),
    Kind("fallow_energy_joules_total", "", "energy of all jobs", lambda m: m.energy(lambda account: account.total_j)),
    Kind("fallow_power_watts", "", "what jobs draw", lambda m: m.energy(lambda account: account.watts)),
    Kind("fallow_power_budget_watts", "", "what they may draw; +Inf without a bound", lambda m: m.lending.decision.budget_w),
    Kind("fallow_duty_ratio", "", "share of the time in which the engine may compute",
         lambda m: m.energy(lambda account: account.duty)),
    Kind("fallow_sensor_up", "source", "1 for a sensor all of whose readings may be relied on", lambda m: m.sensors()),
    Kind("fallow_battery_charge_ratio", "source", "state of charge, 0 to 1",
         lambda m: {source: soc / 100 for source, soc in m.told(Signal.SOC_PCT).items()}),
    Kind("fallow_temperature_celsius", "signal", "the highest that any sensor gives",
         lambda m: {signal.value: max(found.values()) for signal in TEMPERATURES if (found := m.told(signal))}),
    Kind("fallow_diary_up", "", "1 while the diary can be written", lambda m: float(m.diary_up())),
)  # fmt: skip
"""In the order of docs/owner.md's table."""

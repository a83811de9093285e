"""Many simulations of one scenario: over seeds, and over values of its settings; on this machine's cores, or on Ray's.

Each is a pure function of its scenario's text and its seed, so it does not matter where it runs, or in which order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from typing import Any, Final

from .run import simulate
from .scenario import Scenario
from .scenario_file import changed, checked, dumps, parse

RUNS_MAX: Final = 100_000
"""Of one sweep: a row of its results has some 300 bytes."""
LOCAL: Final = "local"
"""Instead of an address: a Ray of this machine's own, for as long as the sweep lasts."""

Value = float | int | str | None


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation of a sweep, as it can be sent anywhere."""

    number: int
    text: str
    seed: int
    swept: tuple[tuple[str, float], ...]

    def row(self) -> dict[str, Value]:
        """It has run; all its figures on one level, after what it was."""
        outcome = simulate(parse(self.text), self.seed)
        return {
            **dict(self.swept),
            "seed": self.seed,
            **outcome.figures.flat(),
            "violations": "\n".join(outcome.violations),
            "trace_hash": outcome.trace_hash,
        }


def planned(scenario: Scenario, seeds: Sequence[int], swept: Sequence[tuple[str, Sequence[float]]]) -> list[Run]:
    """Every combination of the swept values, with every seed. Raises `ConfigError(bad_config)` for a value that may not be."""
    runs: list[Run] = []
    for values in product(*(points for _, points in swept)):
        pairs = tuple((name, value) for (name, _), value in zip(swept, values, strict=True))
        one = scenario
        for name, value in pairs:
            # As with --nodes: a mesh of another size has clients and jobs in proportion.
            one = checked(one.scaled(int(value))) if name == "nodes" else changed(one, name, value)
        text = dumps(one)
        runs += [Run(len(runs) + number, text, seed, pairs) for number, seed in enumerate(seeds)]
    return runs


def on_cores(runs: Sequence[Run], workers: int | None = None) -> Iterator[tuple[int, dict[str, Value]]]:
    """Each run's number and row, as they end, from so many processes (all cores, if nothing is said)."""
    count = max(1, min(workers or os.cpu_count() or 1, len(runs)))
    if count == 1:
        yield from ((run.number, run.row()) for run in runs)
        return
    # Spawned, not forked: the parent may have threads (numpy's, trio's), and a forked child would inherit their locks.
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run.row): run.number for run in runs}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def on_ray(runs: Sequence[Run], address: str) -> Iterator[tuple[int, dict[str, Value]]]:
    """The same from a Ray cluster; each of its machines has this version of Fallow installed."""
    import ray

    # Ray would else send usage statistics to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address == LOCAL else {}
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    try:
        remote: Any = ray.remote(num_cpus=1, max_retries=2)(_row)
        waiting = {remote.remote(run): run.number for run in runs}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            for reference in done:
                yield waiting.pop(reference), ray.get(reference)
    finally:
        ray.shutdown()


def _row(run: Run) -> dict[str, Value]:
    return run.row()


def scaled(scenario: Scenario, nodes: int | None) -> Scenario:
    """The scenario at another size, if one is given."""
    return scenario if nodes is None else scenario.scaled(nodes)


def at_fidelity(scenario: Scenario, fidelity: str | None) -> Scenario:
    """The scenario at another fidelity, if one is given."""
    return scenario if fidelity is None else replace(scenario, fidelity=fidelity)

"""Where the processor time of a check goes: each window of a chat answer, by the programs that run for it.

    python benchmarks/parts.py [NAME] [--rounds N]     a text bundle built on this machine (smollm2-135m-instruct)

In this process, with no engine around it: what a check takes beside its programs is its taking turns. Beside them one step of
sixteen texts, by which a check is measured where it costs most (`assurance.py`).
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any, TypeAlias

import bare
import jobs
import table
from assurance import CHAT
from bare import Writer

from fallow.node.engine.entries import run_entry
from fallow.node.engine.programs import Model, ProgramRun, State
from fallow.node.engine.turns import Task, Turns
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.work import Parameters, Work

Run: TypeAlias = Callable[..., tuple[State, list[Any]]]
WIDTH, CONTEXT = 16, 256
STEPS = 16


class Counted:
    """Processor time of each program's runs since the last look."""

    def __init__(self, programs: Iterable[ProgramRun]) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        for each in programs:
            each.run = self._counting(each.program.name, each.run)  # type: ignore[method-assign]  # it runs as before

    def _counting(self, name: str, honest: Run) -> Run:
        def run(state: State, *inputs: Any) -> tuple[State, list[Any]]:
            began = time.process_time()
            results = honest(state, *inputs)
            self.seconds[name].append(time.process_time() - began)
            return results

        return run

    def taken(self) -> dict[str, list[float]]:
        """All of it, once."""
        seconds, self.seconds = self.seconds, defaultdict(list)
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    store, bundle = jobs.installed(options.name)
    model = bare.load(store, bundle)
    programs = [each for role in ("prefill", "score", "decode") for each in model.programs(role, CONTEXT)]
    for each in programs:
        if each.program.slots in (1, WIDTH):
            each.load()
    writer, counted = Writer(model, WIDTH, CONTEXT), Counted(programs)
    checks: dict[int, list[float]] = defaultdict(list)
    ran: dict[int, dict[str, list[float]]] = {}
    every: dict[str, list[float]] = defaultdict(list)
    for number in range(options.rounds + 1):  # the first goes ahead: what is planned at a first run is no check's
        for end in CHAT.ends:
            seconds = check(model, end)
            ran[end] = counted.taken()
            if number:
                checks[end].append(seconds)
                for name, runs in ran[end].items():
                    every[name] += runs
        writer.steps(STEPS)
        for name, runs in counted.taken().items():
            every[name] += runs if number else []
    table.head("check of the window that ends at", "processor time", "programs that run")
    for end in CHAT.ends:
        names = ", ".join(f"{len(runs)} x {name}" for name, runs in ran[end].items())
        table.cells(str(end), f"{median(checks[end]):.2f} s", names)
    print()
    table.head("program", "processor time of a run", "of all checks")
    whole_s = sum(median(each) for each in checks.values())
    for name, runs in every.items():
        count = sum(len(each.get(name, ())) for each in ran.values())
        table.cells(name, f"{median(runs):.3f} s", f"{count * median(runs) / whole_s:.0%}")
    table.cells("all checks of an answer", f"{whole_s:.2f} s", "")


def check(model: Model, end: int) -> float:
    """Processor time of one check, of a client never seen before."""
    claimed = (end - CHAT.prompt - 1) % WINDOW_TOKENS + 1
    tokens, parameters = tuple(range(1000, 1000 + end)), Parameters(CHAT.answer)
    steps = run_entry(model.manifest, "score", parameters, Work((tokens,), claimed))
    turns, failed = Turns([model]), list[Exception]()
    task = Task(os.urandom(32), model, parameters, steps, lambda *_: None, failed.append, 1)
    began = time.process_time()
    turns.add(task)
    while task.request is not None and not failed:
        turns.run()
    assert not failed, failed
    return time.process_time() - began


if __name__ == "__main__":
    main()

"""A bundle's compiled programs with no engine around them, and calls that are timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from fallow.node.engine import device, programs
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.programs import Model, ProgramRun
from fallow.node.engine.sequences import sampling_of, zeros

FILLED = 32
"""Positions that are taken to be in the cache when timing begins."""


def load(store: BundleStore, bundle: Bundle) -> Model:
    """The model in this process, as a worker would have it."""
    device.configure(store.compile_cache)
    return programs.load(bundle)


def program(model: Model, role: str, slots: int, length: int, context: int) -> ProgramRun:
    """The one with these sizes."""
    (found,) = [p for p in model.programs(role, context) if p.program.slots == slots and p.length == length]
    return found


class Writer:
    """One decode program with every slot filled, that takes one step after another."""

    def __init__(self, model: Model, slots: int, context: int) -> None:
        self._program = program(model, "decode", slots, 1, context)
        self._state = zeros(model.manifest.state, slots, context)
        self._tokens = np.arange(1000, 1000 + slots, dtype=np.int32)
        self._position = FILLED
        self._sampling = sampling_of([None] * slots)
        self._context = context

    def steps(self, count: int) -> None:
        """Each slot has `count` more tokens; at the end of the context they begin anew."""
        for _ in range(count):
            positions = np.full(len(self._tokens), self._position, np.int32)
            self._state, (self._tokens, _) = self._program.run(self._state, self._tokens, positions, *self._sampling)
            self._position = self._position + 1 if self._position + 1 < self._context else FILLED


class Reader:
    """One program that reads texts of `tokens` in chunks: `prefill`, or `score`, which judges each token as well."""

    def __init__(self, model: Model, role: str, length: int, context: int, tokens: int) -> None:
        self._program = program(model, role, 1, length, context)
        self._state = zeros(model.manifest.state, 1, context)
        self.tokens = tokens

    def read(self) -> None:
        """The whole text is in the cache."""
        length = self._program.length
        for start in range(0, self.tokens, length):
            chunk = np.arange(1000 + start, 1000 + start + length, dtype=np.int32)[None]
            begins, count = np.array([start], np.int32), np.array([length], np.int32)
            inputs = [chunk, begins, count] if self._program.program.role == "prefill" else [chunk, chunk, begins]
            self._state, _ = self._program.run(self._state, *inputs, *sampling_of([None]))


def take_turns(calls: Mapping[str, Callable[[], object]], rounds: int, *, ahead: int = 1) -> dict[str, list[float]]:
    """Seconds that each call took in each round, so that the machine's moods meet all alike; `ahead` more rounds go ahead."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ahead + rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return {name: samples[ahead:] for name, samples in taken.items()}


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Of what was taken in the same rounds."""
    return [a / b for a, b in zip(above, below, strict=True)]

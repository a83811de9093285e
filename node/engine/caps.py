"""How much a bundle's programs may take of this machine: memory, time to compile, time to run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .flops import Work

COMPILE_S_MAX: Final = 120.0
"""Reading and compiling one program: SmolLM2's take 3 to 6 s, and up to a minute beside five nodes that do the same."""

RUN_S_MIN: Final = 5.0
"""A run may always take this long: the owner's own programs come first, and a step of 0.1 s has been seen to take 1 s."""

RUN_S_MAX: Final = 50.0
"""No run may take longer: the daemon takes a worker that says nothing for a minute for dead, and then knows not why."""

RUN_RATIO: Final = 20.0
"""How many times the estimate a run may take. The estimate is of the machine alone, at speeds that few programs reach."""

_MATRIX: Final = 256
_COPIED_BYTES: Final = 4 * 2**20
"""Long enough to be timed within a factor of two, and no burden on a worker's start: a millisecond each on two cores."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What one program is granted."""

    memory_bytes: int
    compile_s: float = COMPILE_S_MAX
    run_s: float = RUN_S_MIN

    def run_limit_s(self, work: Work, speed: Speed) -> float:
        """How long one run may take. What turns nobody knows how often gets no more than the least."""
        if not work.bounded:
            return self.run_s
        estimate = work.flops / speed.flops_s + work.moved_bytes / speed.moved_bytes_s
        return min(max(self.run_s, RUN_RATIO * estimate), RUN_S_MAX)


@dataclass(frozen=True, slots=True)
class Speed:
    """What this machine's accelerator was seen to do in a second."""

    flops_s: float
    moved_bytes_s: float


def memory_bytes() -> int:
    """What a program is granted of each device by default: its own memory, or an equal share of half of the machine's."""
    devices = jax.devices()
    stats = devices[0].memory_stats() or {}
    shared = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // len(devices)
    return int(stats.get("bytes_limit", 0)) or shared


def measure_speed() -> Speed:
    """Takes a product of matrices and a copy, each the best of three: neighbours only ever make them slower."""
    matrix = jax.device_put(np.ones((_MATRIX, _MATRIX), np.float32))
    product = jax.jit(lambda a: jnp.dot(a, a, precision=lax.Precision.HIGHEST))
    copied = jax.device_put(np.ones(_COPIED_BYTES // 4, np.float32))
    return Speed(
        2 * _MATRIX**3 / _best_s(product, matrix), 2 * _COPIED_BYTES / _best_s(jax.jit(lambda a: a + 1), copied)
    )


_wait: Callable[[object], object] = jax.block_until_ready  # untyped in jax 0.10


def _best_s(function: jax.stages.Wrapped, argument: jax.Array) -> float:
    _wait(function(argument))
    times = []
    for _ in range(3):
        began = time.perf_counter()
        _wait(function(argument))
        times.append(time.perf_counter() - began)
    return max(min(times), 1e-6)

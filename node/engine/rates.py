"""How fast this machine is at a model: measured, not configured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Final

import numpy as np

from ...protocol.bundle import CALL, GENERATE, SCORE
from ...protocol.errors import EngineError
from .kept import Kept
from .messages import Rates
from .programs import Model, inputs_of
from .sequences import zeros

ROLES: Final = ("prefill", "decode", "score", "call")
_STEPS: Final = 3
"""Runs timed of a decode step: a rate within some 10 %, for a tenth of a second."""


def measure(model: Model) -> Rates:
    """Times the narrowest and shortest program of each role, since many nodes may start at once on one machine."""
    return _rates(model, {role: _per_second(model, role) for role in ROLES})


def rated_again(kept: Kept, model: Model, announced: Callable[[bytes], AbstractContextManager[None]]) -> Iterator[None]:
    """The rates were measured once more, role by role, and are used from the next worker on; see `Kept`.

    `announced`: around each measurement, in which a stranger's program runs. What breaks beside jobs' states says nothing.
    """
    rates: dict[str, int] = {}
    for role in ROLES:
        with announced(model.bundle.hash), suppress(EngineError):
            rates[role] = _per_second(model, role)
        yield
    if len(rates) == len(ROLES):
        kept.learn_rates(model.bundle.hash, _rates(model, rates))


def _rates(model: Model, rates: Mapping[str, int]) -> Rates:
    offered = set(model.manifest.entries)
    return Rates(
        prefill_milli=rates["prefill"] if GENERATE in offered else 0,
        decode_milli=rates["decode"] if GENERATE in offered else 0,
        score_milli=rates["score"] if SCORE in offered else 0,
        call_milli=rates["call"] if CALL in offered else 0,
    )


def _per_second(model: Model, role: str) -> int:
    """Positions (of a `call`: inputs) in a thousand seconds; 0 if there is no such program."""
    programs = model.programs(role)
    if not programs:
        return 0
    program, manifest = programs[0], model.manifest
    inputs = [np.ones(each.shape, each.dtype) for each in inputs_of(manifest, program.program)]
    carried = manifest.state if role != CALL else ()
    state = zeros(carried, program.program.slots, program.program.context)
    state, _ = program.run(state, *inputs)  # the first run reads the weights from the disk
    steps = _STEPS if role == "decode" else 1
    began = time.monotonic()
    for _ in range(steps):
        state, _ = program.run(state, *inputs)
    count = steps * (1 if role == CALL else program.length)
    return round(1e3 * count / max(time.monotonic() - began, 1e-6))

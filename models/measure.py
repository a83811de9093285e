"""How far apart the honest outputs of a function of arrays lie, and dishonest ones: where its tolerance comes from.

Honest runs differ in the order of their sums. Here they differ in the program (one slot or several, whose sums a compiler
orders anew) and by weights that are up to one unit in the last place off, which moves an output as far as rounding does.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

from ..protocol.bundle import Cheat, Tensor, Tolerance
from ..protocol.distance import MILLION, distance, exact
from .program import Draft
from .recipe import Model
from .rounded import ROUNDINGS, rounded
from .weights import Weights

Inputs: TypeAlias = tuple[NDArray[Any], ...]
"""One input of a function, as the model's `inputs` say."""

ROOM: Final = 10
"""A tolerance is so many times the largest honest difference: other devices, whose sums were not measured, need some."""
CHEATS: Final = ("bfloat16", "int8")
_SEED: Final = 11
_PARTS: Final = 10**6
"""Of a millionth, to which distances are rounded up here."""


@dataclass(frozen=True, slots=True)
class Distances:
    """In ppm, as judgements measure them (spec/04-assurance.md): of each output made in another way to the plain one."""

    honest: tuple[float, ...]
    cheats: Mapping[str, tuple[float, ...]]

    def tolerance(self, value_ppm: int | None = None) -> Tolerance:
        """Of that value, or of `ROOM` times the largest honest distance, with what it rejects and what it lets pass."""
        value = max(1, math.ceil(ROOM * max(self.honest))) if value_ppm is None else value_ppm
        least = ", ".join(f"{name} {min(each):.3g}" for name, each in self.cheats.items())
        return Tolerance(
            value_micro=value,
            gap_micro=0,
            mass_ppm=0,
            samples=len(self.honest),
            false_reject_ppm=_share_ppm([each > value for each in self.honest]),
            cheats=tuple(
                Cheat(f"{name}-weights", len(each), _share_ppm([d <= value for d in each]))
                for name, each in self.cheats.items()
            ),
            calibrated_by=(
                f"fallow.models.measure: {len(self.honest)} outputs in programs of other slots and with weights one unit"
                f" in the last place off, on one {platform.machine()} CPU. Honest at most {max(self.honest):.3g} ppm."
                f" Least with rounded weights, in ppm: {least or 'none are rounded'}."
            ),
        )


def distances(model: Model, samples: Sequence[Inputs]) -> Distances:
    """Of the function's outputs for these inputs. Raises `ValueError` for one that is all zeros, or holds no number."""
    plain = _Runs(model, model.programs[0]).outputs(samples, model.weights)
    if not all(np.isfinite(row).all() and row.any() for row in plain):
        raise ValueError("an output is all zeros, infinite or not a number: no two of them can be compared")

    def apart(draft: Draft, weights: Weights) -> tuple[float, ...]:
        runs = _Runs(model, draft)
        return tuple(distance_ppm(a, b) for a, b in zip(plain, runs.outputs(samples, weights), strict=True))

    first, *others = model.programs
    honest = apart(first, _nudged(model.weights))
    for draft in others:
        honest += apart(draft, model.weights)
    cheats = {
        name: {key: w if _whole(w) else rounded(w, ROUNDINGS[name]) for key, w in model.weights.items()}
        for name in CHEATS
    }
    changed = {name: w for name, w in cheats.items() if any(np.any(w[key] != model.weights[key]) for key in w)}
    return Distances(honest, {name: apart(first, weights) for name, weights in changed.items()})


def distance_ppm(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """As judgements measure it, and finer: honest ones are far below a millionth. Infinite where one is no number."""
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        return math.inf
    apart = distance(exact([a.tolist()]), exact([b.tolist()]), MILLION * _PARTS)
    return math.inf if apart is None else apart / _PARTS


def random_inputs(tensors: Sequence[Tensor], examples: Inputs | None, count: int) -> list[Inputs]:
    """So many inputs, the same every time: spread as the examples are, or over -1 to 1, or over an integer's bytes."""
    generator = np.random.Generator(np.random.PCG64(_SEED))

    def draw(index: int, tensor: Tensor) -> NDArray[Any]:
        dtype = np.dtype(tensor.dtype)
        low, high = (-1.0, 1.0) if dtype.kind == "f" else (0, 255 if dtype.itemsize == 1 else 1)
        if examples is not None and examples[index].size and examples[index].min() < examples[index].max():
            low, high = examples[index].min(), examples[index].max()
        if dtype.kind == "f":
            return (low + generator.random(tensor.shape) * (high - low)).astype(dtype)
        return generator.integers(int(low), int(high), tensor.shape, endpoint=True).astype(dtype)

    return [tuple(draw(index, tensor) for index, tensor in enumerate(tensors)) for _ in range(count)]


def streamed(model: Model, given: Sequence[Mapping[str, NDArray[Any]]]) -> list[Inputs]:
    """Inputs of step after step: those that are given, the others as the step before gave them back, zeros at first."""
    runs, back, steps = _Runs(model, model.programs[0]), {t.name: np.zeros(t.shape, t.dtype) for t in model.inputs}, []
    for arrays in given:
        back |= arrays
        steps.append(tuple(back[tensor.name].astype(tensor.dtype) for tensor in model.inputs))
        (row,) = runs.outputs(steps[-1:], model.weights)
        begin = 0
        for tensor in model.outputs:
            end = begin + math.prod(tensor.shape)
            if tensor.name in back:
                back[tensor.name] = row[begin:end].reshape(tensor.shape)
            begin = end
    return steps


class _Runs:
    """One program of a model that is not a bundle yet."""

    def __init__(self, model: Model, draft: Draft) -> None:
        self._model, self._slots = model, draft.slots
        self._function = jax.jit(draft.function)

    def outputs(self, samples: Sequence[Inputs], weights: Weights) -> list[NDArray[np.float32]]:
        """f32[D] of each input; the last one fills the slots that are left."""
        params = [weights[name] for name in self._model.parameters]
        rows: list[NDArray[np.float32]] = []
        for begin in range(0, len(samples), self._slots):
            batch = samples[begin : begin + self._slots]
            filled = [*batch, *[batch[-1]] * (self._slots - len(batch))]
            inputs = [np.stack(column) for column in zip(*filled, strict=True)]
            rows.extend(np.asarray(self._function(params, [], *inputs)[1])[: len(batch)])
        return rows


def _nudged(weights: Weights) -> Weights:
    """Each weight one unit in its last place up, down, or as it was."""
    generator = np.random.Generator(np.random.PCG64(_SEED))

    def nudged(array: NDArray[np.float32]) -> NDArray[np.float32]:
        step = generator.integers(-1, 1, array.shape, endpoint=True)
        if _whole(array):
            return array
        return np.where(step == 0, array, np.nextafter(array, np.copysign(np.float32(np.inf), step.astype(np.float32))))

    return {name: nudged(array).astype(np.float32) for name, array in weights.items()}


def _whole(weights: NDArray[np.float32]) -> bool:
    """Whether they are numbers that a function may count or look up with, and nobody rounds."""
    return np.array_equal(weights, np.rint(weights))


def _share_ppm(passed: Sequence[bool]) -> int:
    return round(1e6 * sum(passed) / len(passed))

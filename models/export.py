"""From a draft to the bytes of a program: one artifact for cpu, cuda and tpu, the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import jax
from jax import export as jax_export

from ..node.engine.flops import of_exported
from ..node.engine.kernels import TARGETS
from ..protocol.bundle import CALL, Carried
from .layout import ONE_DEVICE, Layout
from .program import Draft, Shapes, specimen

_clear: Callable[[], None] = jax.clear_caches  # untyped in jax 0.10, as is the next
_update: Callable[[str, object], None] = jax.config.update

PLATFORMS: Final = ("cpu", "cuda", "tpu")
_KERNELS: Final = [jax_export.DisabledSafetyCheck.custom_call(name) for name in sorted(TARGETS)]
"""What jax lets through because every node has it, or knows that it has not."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A program as a bundle holds it, with what its manifest says of its cost."""

    artifact: bytes
    flops: int
    memory_bytes: int


def export_program(
    draft: Draft,
    parameters: Shapes,
    state: Sequence[Carried],
    codes: frozenset[str] = frozenset(),
    layout: Layout = ONE_DEVICE,
) -> Exported:
    """The serialized `jax.export` artifact, its FLOPs, counted as every node recounts them, and its memory.

    Parameters are arguments: an artifact holds no weights. Nor does it hold source locations, which would put file
    names of the exporting machine into it and make its hash depend on where it was built. They are float32, those of
    `codes` u8.
    """
    specimens = (
        [specimen(shape, "uint8" if name in codes else "float32") for name, shape in parameters.items()],
        [specimen((draft.slots, *each.shape_in(draft.context)), each.dtype) for each in _state(draft, state)],
        *draft.inputs,
    )
    _clear()  # what was traced before in this process would change how inner functions are shared and named
    function = _laid_out(draft, layout, parameters, specimens) if layout.devices > 1 else jax.jit(draft.function)
    checks = _KERNELS if codes else []  # an artifact names what was not checked
    with _without_locations():
        exported = jax_export.export(function, platforms=PLATFORMS, disabled_checks=checks)(*specimens)
    state_bytes = _bytes(specimens[1])  # given and given back, but there only once
    memory_bytes = _bytes(exported.in_avals) + _bytes(exported.out_avals) - state_bytes
    return Exported(bytes(exported.serialize()), of_exported(exported).flops, memory_bytes)


def _laid_out(draft: Draft, layout: Layout, parameters: Shapes, specimens: Sequence[Any]) -> jax.stages.Wrapped:
    """Every argument is kept, used or not, so that all programs of a bundle say the same of where its parameters lie."""
    _, state, *inputs = specimens
    given = jax.eval_shape(draft.function, *specimens)
    states = [layout.of_state(index) for index in range(len(state))]
    taken = list(map(layout.of_parameter, parameters)), states, *[layout.whole] * len(inputs)
    results = states, *[layout.whole] * (len(given) - 1)
    return jax.jit(draft.function, in_shardings=taken, out_shardings=results, keep_unused=True)


def _state(draft: Draft, state: Sequence[Carried]) -> Sequence[Carried]:
    return () if draft.role == CALL else state


def _bytes(arrays: Any) -> int:
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)


@contextmanager
def _without_locations() -> Iterator[None]:
    limit: int = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]  # added at run time
    _update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        _update("jax_traceback_in_locations_limit", limit)

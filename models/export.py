"""From a draft to the bytes of a program: one artifact for cpu, cuda and tpu, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import jax
from jax import export as jax_export

from ..node.engine.flops import of_exported
from ..protocol.bundle import Tensor
from .program import Draft, Shapes, f32, specimen

_clear: Callable[[], None] = jax.clear_caches  # untyped in jax 0.10, as is the next
_update: Callable[[str, object], None] = jax.config.update

PLATFORMS: Final = ("cpu", "cuda", "tpu")


def export_program(draft: Draft, parameters: Shapes, state: Sequence[Tensor]) -> tuple[bytes, int]:
    """The serialized `jax.export` artifact, and its FLOPs, counted as every node recounts them.

    Parameters are arguments: an artifact holds no weights. Nor does it hold source locations, which would put file
    names of the exporting machine into it and make its hash depend on where it was built.
    """
    specimens = (
        [f32(*shape) for shape in parameters.values()],
        [specimen(tensor.shape, tensor.dtype) for tensor in state],
        *draft.inputs,
    )
    _clear()  # what was traced before in this process would change how inner functions are shared and named
    function = jax.jit(draft.function)
    with _without_locations():
        exported = jax_export.export(function, platforms=PLATFORMS)(*specimens)
    return bytes(exported.serialize()), of_exported(exported).flops


@contextmanager
def _without_locations() -> Iterator[None]:
    limit: int = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]  # added at run time
    _update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        _update("jax_traceback_in_locations_limit", limit)

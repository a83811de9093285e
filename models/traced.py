"""What JAX finds out about a publisher's function before it runs: its outputs, and whether it can be a program."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import jax
import numpy as np
from jax import export as jax_export
from jax import tree_util

from ..protocol.bundle import Tensor
from ..protocol.errors import Code, EngineError
from .export import export_program
from .recipe import Model

CONSTANT_BYTES_MAX: Final = 64 * 1024
"""Tables, not weights: what a function closes over is in every one of its programs."""


def outputs_of(fn: Callable[..., Any], specimens: Sequence[Any], names: Sequence[str] | None) -> tuple[Tensor, ...]:
    """What `fn` gives for arguments like these, traced once; named by `names`, or else by keys and places.

    Raises `EngineError(unsupported_model)` if it cannot be traced, calls back into Python, or gives anything but numbers.
    """
    try:
        traced: Any = jax.make_jaxpr(fn, return_shape=True)(*specimens)
    except (TypeError, ValueError, IndexError, NotImplementedError) as error:
        raise unsupported(_why_not_traced(error)) from error
    jaxpr, shapes = traced
    if called_back := sorted({name for name in _primitives(jaxpr.jaxpr) if "callback" in name or "debug" in name}):
        raise unsupported(f"`fn` calls back into Python ({called_back[0]}): a node runs nobody's Python")
    closed_over = sum(getattr(constant, "nbytes", 0) for constant in jaxpr.consts)
    if closed_over > CONSTANT_BYTES_MAX:
        raise unsupported(f"`fn` closes over {closed_over} bytes of arrays: hand them to it in `params`")
    given = tree_util.tree_flatten_with_path(shapes)[0]
    if any(np.issubdtype(shape.dtype, np.complexfloating) for _, shape in given):
        raise unsupported("`fn` gives complex numbers: give real and imaginary parts one by one")
    if not sum(int(np.prod(shape.shape)) for _, shape in given):
        raise unsupported("`fn` gives no numbers")
    names = names or [_output_name(path) for path, _ in given]
    if len(names) != len(given) or len(set(names)) != len(names):
        raise unsupported(f"`fn` gives {len(given)} arrays: `output_names` has to name each of them once")
    return tuple(Tensor(name, "float32", tuple(shape.shape)) for name, (_, shape) in zip(names, given, strict=True))


def check_programs(model: Model) -> None:
    """The model's programs export for every platform, and hold no native code.

    Raises `EngineError(unsupported_model)` if not.
    """
    try:
        artifact = export_program(model.programs[-1], model.parameters, model.state).artifact
    except (TypeError, ValueError, IndexError, NotImplementedError) as error:
        first = (str(error).splitlines() or [""])[0].rstrip(".")
        raise unsupported(f"`fn` does not export side by side for cpu, cuda and tpu: {first}") from error
    module = jax_export.deserialize(bytearray(artifact)).mlir_module()
    if native := sorted(set(re.findall(r"custom_call @([\w.]+)", module))):
        raise unsupported(
            f"`fn` calls native code of jaxlib's ({native[0]}), as jnp.linalg does: write it in jax.numpy"
        )


def unsupported(why: str) -> EngineError:
    """The error that says, in one sentence, why there is no bundle of it."""
    return EngineError(Code.UNSUPPORTED_MODEL, f"{why}.")


def _output_name(path: Any) -> str:
    name = tree_util.keystr(path, simple=True, separator=".")
    return f"output{name}" if not name or name[0].isdigit() else name


def _why_not_traced(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0].rstrip(".")
    match error:
        case jax.errors.TracerBoolConversionError():
            return "`fn` branches on a value that is not known before it runs: use jnp.where or jax.lax.cond"
        case jax.errors.TracerArrayConversionError():
            return "`fn` hands an array to NumPy, which cannot be traced: use jax.numpy"
        case jax.errors.NonConcreteBooleanIndexError() | jax.errors.ConcretizationTypeError():
            return f"`fn` needs a value, or has a shape, that is not known before it runs ({first})"
        case TypeError() if "not a valid JAX type" in first:
            return "`fn` gives something else than arrays: give an array, or a tuple or dict of arrays"
    return f"`fn` cannot be traced for these inputs: {first}"


def _primitives(jaxpr: Any) -> Iterator[str]:
    """The names of everything that it does, within loops and branches, too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _primitives(inner)

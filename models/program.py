"""A program as it is written, before export: a traceable function in the calling convention of `spec/07-bundles.md`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
from jax import Array

Shapes: TypeAlias = dict[str, tuple[int, ...]]
"""Parameter names and shapes, in order."""
State: TypeAlias = list[Array]


@dataclass(frozen=True, slots=True)
class Draft:
    """One program: `function(params, state, *inputs)` for inputs of the given shapes, whose first dimension is `slots`."""

    name: str
    role: str
    slots: int
    length: int
    context: int
    function: Callable[..., Any]  # roles differ in their inputs; `inputs` below says which
    inputs: tuple[jax.ShapeDtypeStruct, ...]


def i32(*shape: int) -> jax.ShapeDtypeStruct:
    """Tokens and positions."""
    return specimen(shape, "int32")


def f32(*shape: int) -> jax.ShapeDtypeStruct:
    """Everything that is computed."""
    return specimen(shape, "float32")


def specimen(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
    """An array by its shape and element type alone."""
    return jax.ShapeDtypeStruct(shape, np.dtype(dtype))  # type: ignore[no-untyped-call]  # untyped in jax 0.10


def sampling_inputs(slots: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Seed u32[B,2] (low word first), temperature, top-p: the last inputs of every program that samples or judges."""
    return specimen((slots, 2), "uint32"), f32(slots), f32(slots)

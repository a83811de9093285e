"""What a recipe makes: everything of a bundle but its hashes and its signature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..protocol.bundle import Carried, Tensor, Tolerance
from .layout import ONE_DEVICE, Layout
from .program import Draft, Shapes
from .weights import Weights

Progress: TypeAlias = Callable[[str, float], None]
"""Told the stage that is under way and how much of it is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model about to become a bundle; the fields are those of `protocol.bundle.Manifest`."""

    family: str
    licence: str
    provenance: str
    entries: tuple[str, ...]
    parameters: Shapes
    weights: Weights
    state: tuple[Carried, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    programs: tuple[Draft, ...]
    tokenizer: bytes | None
    chat_template: str | None
    context: int
    end_tokens: tuple[int, ...]
    tolerance: Tolerance
    codes: frozenset[str] = frozenset()
    """Parameters that are bytes, codes of weights in blocks; all others are float32."""
    layout: Layout = ONE_DEVICE
    """How its programs lie over devices."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one named model. `make` may download into the directory that it is given."""

    name: str
    make: Callable[[Path, Progress], Model]

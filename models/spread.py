"""A Llama of one device over several: its weights in another order, and the layout that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .llama import Llama
from .weights import Weights


def spread(llama: Llama, weights: Weights, devices: int) -> tuple[Llama, Weights]:
    """The model over so many devices; give its `layout()` to the `Model`, too. Unchanged for one.

    Raises `StoreError(unsupported_model)` if its heads do not divide.
    """
    if devices == 1:
        return llama, weights
    over = replace(llama, devices=devices)
    over.layout()
    heads = [each * llama.head_dim for each in llama.heads_joined]
    moved = {f"{layer}.qkv": heads for layer in range(llama.layers)}
    moved |= {f"{layer}.gate_up": [llama.hidden] * 2 for layer in range(llama.layers)}
    names = over.parameters()
    return over, {n: _shared_out(weights[n], moved[n], devices) if n in moved else weights[n] for n in names}


def _shared_out(rows: NDArray[Any], lengths: Sequence[int], devices: int) -> NDArray[Any]:
    """Matrices of these lengths under one another, as a share of each for every device in turn."""
    matrices = np.split(rows, np.cumsum(lengths)[:-1])
    return np.concatenate([np.split(matrix, devices)[device] for device in range(devices) for matrix in matrices])

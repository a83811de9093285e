"""A bundle with cheaper weights, as a dishonest executor might serve it: what a tolerance has to tell apart."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from nacl.signing import SigningKey
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ..node.engine.bundles import Bundle, BundleStore, file_of
from ..protocol.envelope import sign
from ..protocol.errors import Code, StoreError
from .builder import write
from .recipes import recipe
from .weights import write_weights

_Matrix = NDArray[np.float32]
Rounding: TypeAlias = Callable[[_Matrix], _Matrix]
Change: TypeAlias = Callable[[str, _Matrix], _Matrix]
"""Of a parameter by its name."""


def _to_bfloat16(matrix: _Matrix) -> _Matrix:
    """Rounded to 8 significant bits, ties to even."""
    bits = matrix.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def _to_integers(bits: int) -> Rounding:
    """Rounded to signed integers with one scale a row, as common quantisers do."""

    def to_steps(matrix: _Matrix) -> _Matrix:
        scale = np.abs(matrix).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        scale[scale == 0] = 1
        steps: _Matrix = np.rint(matrix / scale) * scale
        return steps.astype(np.float32)

    return to_steps


WEIGHTS: Final = "weights.safetensors"
ROUNDINGS: Final[dict[str, Rounding]] = {"bfloat16": _to_bfloat16, "int8": _to_integers(8), "int4": _to_integers(4)}


def rounded(array: NDArray[np.float32], rounding: Rounding) -> NDArray[np.float32]:
    """Rounded row by row, where there are rows; norms and biases are as they were."""
    return rounding(array.reshape(len(array), -1)).reshape(array.shape) if array.ndim > 1 else array


@contextmanager
def rounded_bundle(name: str, rounding: str, downloads: Path) -> Iterator[Bundle]:
    """The bundle that the recipe would have made of rounded matrices, for as long as the context lasts.

    Raises `StoreError(unsupported_model)` for one with weights in blocks: they are rounded already.
    """
    model = recipe(name).make(downloads, _silent)
    if model.codes:
        raise StoreError(
            Code.UNSUPPORTED_MODEL,
            f"{name} has weights in blocks, which are rounded already: leave out `--weights`, or round those of the float32"
            " bundle that it was made of.",
        )
    weights = {key: rounded(w, ROUNDINGS[rounding]) for key, w in model.weights.items()}
    with tempfile.TemporaryDirectory(dir=downloads, prefix="rounded-") as scratch:
        directory = Path(scratch, "made")
        directory.mkdir()
        manifest, files = write(name, replace(model, weights=weights), directory, _silent)
        key = SigningKey.generate()
        yield BundleStore(Path(scratch)).install(manifest, lambda m: sign(m, key), files)


@contextmanager
def altered_bundle(bundle: Bundle, change: Change, scratch: Path) -> Iterator[Bundle]:
    """The bundle with its parameters changed, for as long as the context lasts; nothing of it is trusted by anybody.

    Raises `StoreError(unsupported_model)` for one with weights in blocks: they are rounded already.
    """
    weights = {
        name: array for name, array in load_file(bundle.path / WEIGHTS).items() if not name.startswith("padding.")
    }
    if any(array.dtype != np.float32 for array in weights.values()):
        message = (
            f"{bundle.manifest.name} has weights in blocks, which are rounded already: calibrate the float32 bundle."
        )
        raise StoreError(Code.UNSUPPORTED_MODEL, message)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="altered-") as folder:
        made = Path(folder, WEIGHTS)
        write_weights(made, {name: change(name, weights[name]) for name in bundle.manifest.parameters})
        manifest, key = replace(bundle.manifest, weights=file_of(made)), SigningKey.generate()
        files = {name: made if name == WEIGHTS else bundle.path / name for name in manifest.files()}
        yield BundleStore(Path(folder)).install(manifest, lambda m: sign(m, key), files)


def _silent(_stage: str, _fraction: float) -> None:
    pass

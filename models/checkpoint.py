"""Weights in safetensors files as publishers leave them: one file or several shards, of 16 or 32 bits each number."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import Code, StoreError

_INDEX: Final = "model.safetensors.index.json"
_WHOLE: Final = "model.safetensors"
_HEADER_BYTES_MAX: Final = 100 * 1024 * 1024
"""As in the safetensors library."""
_STORED: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    stored: str
    shape: tuple[int, ...]
    begin: int


class Checkpoint:
    """The tensors of a folder. Raises `StoreError(unsupported_model)` if it has none, or a file that is no safetensors."""

    def __init__(self, folder: Path) -> None:
        self.files = _files(folder)
        self._places = {name: place for path in self.files for name, place in _places(path).items()}

    @property
    def names(self) -> frozenset[str]:
        """Of all tensors."""
        return frozenset(self._places)

    def read(self, name: str) -> NDArray[np.float32]:
        """The tensor, widened to float32. Raises `StoreError(unsupported_model)` if there is none, or it is of another type."""
        if name not in self._places:
            raise unsupported(f"{self.files[0].parent.name} has no tensor {name}")
        place = self._places[name]
        if place.stored not in _STORED:
            raise unsupported(f"Tensor {name} is {place.stored}: only {', '.join(_STORED)} can be read")
        array = np.fromfile(place.path, _STORED[place.stored], math.prod(place.shape), offset=place.begin)
        if place.stored == "BF16":
            array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return array.astype(np.float32, copy=False).reshape(place.shape)


def unsupported(why: str) -> StoreError:
    """The error that says, in one sentence, why there is no bundle of it."""
    return StoreError(Code.UNSUPPORTED_MODEL, f"{why}.")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no file. Raises `StoreError(unsupported_model)` for anything else."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise unsupported(f"{path.name} is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise unsupported(f"{path.name} holds no object")
    return content


def _files(folder: Path) -> tuple[Path, ...]:
    if shards := read_json(folder / _INDEX).get("weight_map"):
        names = sorted(set(shards.values())) if isinstance(shards, dict) else []
    else:
        names = [_WHOLE]
    for name in names:
        if Path(name).name != name:
            raise unsupported(f"{_INDEX} names a file outside of {folder.name}")
        if not (folder / name).is_file():
            pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
            pickled = ": its weights are pickles, which are programs and never read; save them as safetensors"
            raise unsupported(f"{folder.name} has no {name}{pickled if pickles else ''}")
    return tuple(folder / name for name in names)


def _places(path: Path) -> dict[str, _Place]:
    """Where each tensor lies, every one inside of the file."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if 8 + length <= size and length <= _HEADER_BYTES_MAX else b""
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        found = {name: _place(path, entry, 8 + length) for name, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise unsupported(f"{path.name} is not a safetensors file") from None
    ends = (each.begin + math.prod(each.shape) * _width(each.stored) for each in found.values())
    if max(ends, default=0) > size:
        raise unsupported(f"{path.name} is cut short")
    return found


def _place(path: Path, entry: dict[str, Any], base: int) -> _Place:
    begin, end = entry["data_offsets"]
    place = _Place(path, entry["dtype"], tuple(map(int, entry["shape"])), base + begin)
    if begin < 0 or (place.stored in _STORED and end - begin != math.prod(place.shape) * _width(place.stored)):
        raise ValueError("a tensor of another size than its shape says")
    return place


def _width(stored: str) -> int:
    return np.dtype(_STORED[stored]).itemsize if stored in _STORED else 0

"""A bundle's weights as arrays, in the memory of their file: safetensors, as a stranger may have written it.

    8 bytes, little-endian: length of the header || the header, JSON || the tensors' bytes

Nothing of it is believed: what a tensor claims has to fit the file, itself and the others.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, Final

import numpy as np

HEADER_BYTES_MAX: Final = 32 * 2**20
"""Names of 65,536 tensors, and of as many that fill gaps, come to 28 MB. The format itself allows 100 MB."""

_DTYPES: Final = {"F32": "float32", "F16": "float16", "I32": "int32", "I8": "int8", "U8": "uint8"}
"""safetensors' names of the types that NumPy has too."""
_DIMENSIONS_MAX: Final = 8
"""As in a manifest's shapes."""


def read_untrusted(mapped: mmap.mmap, names: Sequence[str]) -> list[np.ndarray[Any, Any]]:
    """The tensors of these names, in their order. Raises `ValueError`, or `RecursionError` for a header that is too deep."""
    header, base = _header(mapped)
    places = {name: _place(name, header.get(name), len(mapped) - base) for name in names}
    spans = sorted((begin, end) for _, _, begin, end in places.values() if begin < end)
    if any(end > begin for (_, end), (begin, _) in pairwise(spans)):
        raise ValueError("two tensors lie over each other")
    return [
        np.frombuffer(mapped, dtype, prod(shape), base + begin).reshape(shape)
        for dtype, shape, begin, _ in (places[name] for name in names)
    ]


def _header(mapped: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors begin."""
    length = int.from_bytes(mapped[:8], "little")
    if not 0 < length <= min(HEADER_BYTES_MAX, len(mapped) - 8):
        raise ValueError(f"a file of {len(mapped)} bytes claims a header of {length}")
    header: object = json.loads(mapped[8 : 8 + length], object_pairs_hook=_apart)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, 8 + length


def _apart(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(made := dict(pairs)) != len(pairs):
        raise ValueError("its header says something twice")
    return made


def _place(name: str, entry: object, length: int) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Type, shape, and from where to where the tensor lies."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if dtype in _DTYPES:
            whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
            kind = np.dtype(_DTYPES[dtype]).newbyteorder("<")
            fits = whole and len(shape) <= _DIMENSIONS_MAX and begin <= end <= length
            if fits and prod(shape) * kind.itemsize == end - begin:
                return kind, tuple(shape), begin, end
    raise ValueError(f"its tensor {name[:64]!r} is not there, or is not what it claims to be")

"""Weights as one safetensors file that can be mapped and used in place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ALIGNMENT: Final = 64
"""Bytes: what XLA's CPU back end asks of a buffer before it uses it without a copy."""

Weights = Mapping[str, NDArray[Any]]
"""Float32, or bytes: codes of weights in blocks."""

_DTYPES: Final = {"float32": "F32", "uint8": "U8"}
"""What is written, in safetensors' words."""


def write_weights(path: Path, weights: Weights) -> None:
    """`path` holds the tensors, float32 and u8, in the given order, each beginning at a multiple of `ALIGNMENT`.

    The format allows no holes, so the header is padded with spaces and what would misalign a successor is followed by
    a `padding.N` tensor of bytes. The same weights give the same file.
    """
    header: dict[str, object] = {}
    end = 0
    for name, array in weights.items():
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"{name} is {array.dtype}, neither float32 nor uint8")
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
        if gap := -end % ALIGNMENT:
            header[f"padding.{name}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [end, end + gap]}
            end += gap
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for array in weights.values():
            stream.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
            stream.write(bytes(-array.nbytes % ALIGNMENT))

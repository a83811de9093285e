"""Arrays to bytes and back, by what a bundle's function takes and gives. Anything with the buffer protocol is an array.

NumPy's own arrays are taken and can be made of what is given (`numpy.asarray`), but a client has no need of NumPy.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from numbers import Integral, Real
from typing import Final, TypeAlias

from ..protocol.bundle import CALL, Manifest, Tensor
from ..protocol.errors import Code, Refused
from ..protocol.limits import CALL_INPUTS_MAX, MESSAGE_BYTES_MAX
from ..protocol.work import Piece, Work

Given: TypeAlias = object
"""A buffer (NumPy, `array.array`, `memoryview`), its bytes as they are sealed (`bytes`), a number, or nested lists of them."""
Row: TypeAlias = "Mapping[str, memoryview[float]]"
"""What a function gives for one input: each output by its name, float32 in the shape that the bundle says."""

HEAD_BYTES: Final = 64 * 1024
"""Of a frame, room for the order, channel and voucher beside the sealed input; a voucher with all its grounds has 20 KB."""

_CODES: Final = {
    "bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q",
    "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip
"""Element types that an array here can have, and how `struct` calls them."""
_KINDS: Final = {**dict.fromkeys("bhilqn", "int"), **dict.fromkeys("BHILQN", "uint"), **dict.fromkeys("efd", "float")}
_ORDERS: Final = "@=<>!"
"""Byte orders, as formats of buffers begin with them."""


def described(tensor: Tensor) -> str:
    """For a person: `audio float32[512]`."""
    return f"{tensor.name} {form(tensor.dtype, tensor.shape)}"


def numbers_in(tensor: Tensor) -> int:
    """So many numbers an array has."""
    return prod(tensor.shape)


def columns_of(manifest: Manifest) -> int:
    """Numbers that the function gives for one input: all outputs, one after another."""
    return sum(map(numbers_in, manifest.outputs))


def work_of(manifest: Manifest, inputs: Sequence[Mapping[str, Given]]) -> Work:
    """What is to be computed: the manifest's function on each of these inputs.

    Raises `Refused`: `unknown_entry` (it is no function of arrays), `bad_config` (an array is missing, or none that it
    takes) and `too_large` (more than one order carries).
    """
    _check_function(manifest)
    if isinstance(inputs, Mapping):
        raise Refused(Code.BAD_CONFIG, "The inputs are a list, with one mapping of names to arrays for each result.")
    _check_fits(manifest, len(inputs))
    return Work(arrays=tuple(_packed(manifest, arrays) for arrays in inputs))


def outputs_of(manifest: Manifest, piece: Piece) -> tuple[Row, ...]:
    """The outputs, for each input. The piece has as many columns as the manifest's outputs have numbers."""
    numbers = array("f")
    numbers.frombytes(piece.tensor)
    if sys.byteorder == "big":
        numbers.byteswap()
    flat = memoryview(numbers).toreadonly().cast("B")
    return tuple(dict(_cut(manifest, flat, row)) for row in range(piece.shape[0]))


def rows_of(manifest: Manifest, piece: Piece) -> tuple[Row, ...]:
    """As `outputs_of`, also of a function of texts, each of whose rows is one `vector`."""
    if manifest.inputs:
        return outputs_of(manifest, piece)
    numbers = array("f")
    numbers.frombytes(piece.tensor)
    if sys.byteorder == "big":
        numbers.byteswap()
    flat: memoryview[float] = memoryview(numbers).toreadonly().cast("B").cast("f")
    rows, columns = piece.shape
    return tuple({"vector": flat[row * columns : (row + 1) * columns]} for row in range(rows))


def zeros_of(tensor: Tensor) -> bytes:
    """As `bytes` that it takes: what a stream's state is before its first input. Raises `Refused(unknown_entry)`."""
    return bytes(_length_bytes(tensor))


def mismatch(tensor: Tensor, given: str) -> Refused:
    """Why `given` is not what the input takes."""
    return Refused(Code.BAD_CONFIG, f"The input {tensor.name} takes {form(tensor.dtype, tensor.shape)}, not {given}.")


def form(dtype: str, shape: Sequence[int]) -> str:
    """For a person: `float32[512]`."""
    if not shape:
        return dtype
    return f"{dtype}[{', '.join(map(str, shape))}]"


def _check_function(manifest: Manifest) -> None:
    if CALL not in manifest.entries:
        raise Refused(Code.UNKNOWN_ENTRY, f"{manifest.name} is no function: it offers {', '.join(manifest.entries)}.")
    if not manifest.inputs:
        raise Refused(Code.UNKNOWN_ENTRY, f"{manifest.name} is a function of texts, not of arrays: use `embed`.")


def _check_fits(manifest: Manifest, count: int) -> None:
    """Raises `Refused` if these are no inputs, or more than one order and its answer carry."""
    given = sum(map(_length_bytes, manifest.inputs))
    most = min(
        CALL_INPUTS_MAX,
        (MESSAGE_BYTES_MAX - HEAD_BYTES) // (given + 5),  # five bytes say how long each is
        MESSAGE_BYTES_MAX // 2 // (4 * columns_of(manifest)),
    )
    if most == 0:
        raise Refused(Code.TOO_LARGE, f"One input of {manifest.name}, or its result, is more than an order carries.")
    if not 1 <= count <= most:
        raise Refused(
            Code.TOO_LARGE, f"One call of {manifest.name} takes 1 to {most} inputs of {given} bytes each, not {count}."
        )


def _packed(manifest: Manifest, arrays: Mapping[str, Given]) -> bytes:
    wanted = {tensor.name for tensor in manifest.inputs}
    if not isinstance(arrays, Mapping) or arrays.keys() != wanted:
        got = (", ".join(map(str, arrays)) or "none") if isinstance(arrays, Mapping) else type(arrays).__name__
        takes = ", ".join(map(described, manifest.inputs))
        raise Refused(Code.BAD_CONFIG, f"{manifest.name} takes {takes}; given: {got[:200]}.")
    return b"".join(_bytes_of(tensor, arrays[tensor.name]) for tensor in manifest.inputs)


def _bytes_of(tensor: Tensor, given: Given) -> bytes:
    """One array as it is sealed. Raises `Refused(bad_config)` if it is another than is wanted."""
    if isinstance(given, Real | list | tuple):
        return _bytes_of_numbers(tensor, given)
    try:
        view = memoryview(given)  # type: ignore[arg-type]  # whether it is a buffer is what is asked
    except TypeError:
        raise mismatch(tensor, f"a {type(given).__name__}, which is no buffer of numbers") from None
    return _bytes_of_view(tensor, view)


def _bytes_of_view(tensor: Tensor, view: memoryview) -> bytes:
    if isinstance(view.obj, bytes | bytearray) and view.format == "B":
        if view.nbytes != _length_bytes(tensor):
            raise mismatch(tensor, f"{view.nbytes} bytes (of {_length_bytes(tensor)})")
        return view.tobytes()
    code = view.format.lstrip(_ORDERS)
    dtype = "bool" if code == "?" else f"{_KINDS[code]}{8 * view.itemsize}" if code in _KINDS else view.format
    flat = view.ndim == 1 and view.nbytes == _length_bytes(tensor)  # row-major: there is no other way to read it
    if dtype != tensor.dtype or not (flat or view.shape == tensor.shape):
        raise mismatch(tensor, form(dtype, view.shape or ()))
    big = sys.byteorder == "big" if view.format[:1] not in "<>!" else view.format[0] != "<"
    content = view.tobytes()
    if not big:
        return content
    numbers = f"{numbers_in(tensor)}{_CODES[dtype]}"
    return struct.pack(f"<{numbers}", *struct.unpack(f">{numbers}", content))


def _bytes_of_numbers(tensor: Tensor, given: Given) -> bytes:
    _length_bytes(tensor)
    numbers = list(_flattened(tensor, given, tensor.shape))
    try:
        return struct.pack(f"<{len(numbers)}{_CODES[tensor.dtype]}", *numbers)
    except (struct.error, OverflowError):
        raise mismatch(tensor, f"a number that is no {tensor.dtype}") from None


def _flattened(tensor: Tensor, given: Given, shape: Sequence[int]) -> Iterator[object]:
    """The numbers of nested lists, which have that shape. Raises `Refused(bad_config)`."""
    if shape:
        if not isinstance(given, list | tuple) or len(given) != shape[0]:
            raise mismatch(tensor, f"{len(given)} in a list" if isinstance(given, list | tuple) else "one number")
        for each in given:
            yield from _flattened(tensor, each, shape[1:])
    elif isinstance(given, bool) is not (tensor.dtype == "bool") or not isinstance(given, _kind(tensor)):
        raise mismatch(tensor, f"a {type(given).__name__} in its place")
    else:
        yield given


def _kind(tensor: Tensor) -> type:
    return Real if tensor.dtype.startswith("float") else Integral


def _length_bytes(tensor: Tensor) -> int:
    if tensor.dtype not in _CODES:
        raise Refused(Code.UNKNOWN_ENTRY, f"This client knows no arrays of {tensor.dtype}: {described(tensor)}.")
    return struct.calcsize(_CODES[tensor.dtype]) * numbers_in(tensor)


def _cut(manifest: Manifest, flat: memoryview, row: int) -> Iterator[tuple[str, memoryview[float]]]:
    begin = 4 * row * columns_of(manifest)
    for tensor in manifest.outputs:
        end = begin + 4 * numbers_in(tensor)
        yield tensor.name, flat[begin:end].cast("f", list(tensor.shape))
        begin = end

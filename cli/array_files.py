"""Arrays in files, without NumPy: `.npy` as NumPy writes it, sound in `.wav`, bare numbers in `.bin`.

The format of `.npy` is numpy.lib.format's: a magic string, the header's length, the header as a Python literal, the numbers.
"""

from __future__ import annotations

import ast
import io
import json
import struct
import sys
import wave
import zipfile
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from ..client.arrays import Given, form, mismatch, numbers_in, zeros_of
from ..protocol.bundle import Tensor
from ..protocol.errors import Code, ConfigError
from ..protocol.limits import MESSAGE_BYTES_MAX
from .environment import usable

Reading: TypeAlias = Callable[[Tensor], Given]
"""What is in a file, as the input that it is meant for takes it. Raises `Refused(bad_config)` if it is another."""

ZEROS: Final = "zeros"
NPZ: Final = ".npz"
NPY: Final = b"\x93NUMPY"
HEADER_ALIGNED: Final = 64
"""NumPy has the numbers begin at a multiple of so many bytes."""
PCM_MAX: Final = 32_768
"""A sample of 16 bits is a fraction of this."""
_KINDS: Final = {"f": "float", "i": "int", "u": "uint"}


def read(text: str) -> Reading:
    """A file's array; or a number or nested list, written out in JSON; or `zeros`. Raises `ConfigError(bad_config)`."""
    if text == ZEROS:
        return zeros_of
    path = Path(text)
    if path.suffix not in _READERS:
        return _read_literal(text)
    with usable("--input", path), path.open("rb") as stream:
        content = stream.read(MESSAGE_BYTES_MAX + 1)
    if len(content) > MESSAGE_BYTES_MAX:
        raise _bad(f"{text} has more than {MESSAGE_BYTES_MAX} bytes, which is more than an order carries")
    return _READERS[path.suffix](text, content)


def prepare(out: Path) -> None:
    """There is a place for `out`, before anything is paid. Raises `ConfigError(bad_config)`."""
    with usable("--out", out):
        (out.parent if out.suffix == NPZ else out).mkdir(parents=True, exist_ok=True)


def write(out: Path, rows: Sequence[Mapping[str, memoryview[float]]]) -> None:
    """The outputs are in `out`: one .npz, or a folder with one .npy each. Of several rows, stacked one upon another.

    Raises `ConfigError(bad_config)`, also for a name that a publisher must not give a file.
    """
    files = {f"{name}.npy": _npy_of([row[name] for row in rows]) for name in rows[0]}
    for name in files:
        if Path(name).name != name or not name.isprintable():
            raise _bad(f"an output is called {name[:-4]!r}, which cannot be a file's name")
    with usable("--out", out):
        if out.suffix == NPZ:
            with zipfile.ZipFile(out, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            for name, content in files.items():
                (out / name).write_bytes(content)


def _read_literal(text: str) -> Reading:
    try:
        value: Given = json.loads(text)
    except (ValueError, RecursionError):
        known = ", ".join(_READERS)
        raise _bad(f"{text[:80]!r} is no file ({known}), no number, no list in JSON and not {ZEROS}") from None
    return lambda tensor: value


def _read_npy(text: str, content: bytes) -> Reading:
    try:
        if not content.startswith(NPY):
            raise ValueError
        length_form, begin = ("<H", 10) if content[6] == 1 else ("<I", 12)
        (length,) = struct.unpack(length_form, content[8:begin])
        header = ast.literal_eval(content[begin : begin + length].decode("latin-1"))
        descr, shape, fortran = header["descr"], tuple(header["shape"]), header["fortran_order"]
        order, kind, size = descr[0], descr[1], int(descr[2:])
        dtype = "bool" if (kind, size) == ("b", 1) else f"{_KINDS[kind]}{8 * size}"
    except (ValueError, SyntaxError, LookupError, TypeError, struct.error, RecursionError):
        raise _bad(f"{text} is no .npy file of numbers") from None
    if order == ">" or (fortran and len(shape) > 1):
        raise _bad(f"{text} is big-endian or column by column; save it again with numpy.ascontiguousarray(x, '<f4')")

    def convert(tensor: Tensor) -> bytes:
        numbers = content[begin + length :]
        flat = len(shape) == 1 and shape[0] == numbers_in(tensor)
        if dtype != tensor.dtype or not (flat or shape == tensor.shape):
            raise mismatch(tensor, form(dtype, shape))
        return numbers

    return convert


def _read_wav(text: str, content: bytes) -> Reading:
    try:
        with wave.open(io.BytesIO(content)) as sound:
            channels, width, rate = sound.getnchannels(), sound.getsampwidth(), sound.getframerate()
            samples = array("h" if width == 2 else "b", sound.readframes(sound.getnframes()))
    except (wave.Error, EOFError, ValueError) as error:
        raise _bad(f"{text} is no sound that can be read: {error or 'it breaks off'}") from None
    if (channels, width) != (1, 2):
        raise _bad(f"{text} has {channels} channels of {8 * width} bits; it takes one channel of 16 bits (PCM)")
    if sys.byteorder == "big":
        samples.byteswap()

    def convert(tensor: Tensor) -> Given:
        if tensor.dtype not in ("float32", "int16") or len(samples) != numbers_in(tensor):
            seconds = f"{len(samples) / max(rate, 1):.2f} s at {rate} Hz"
            raise mismatch(tensor, f"{form('int16', (len(samples),))} ({seconds})")
        return samples if tensor.dtype == "int16" else array("f", (sample / PCM_MAX for sample in samples))

    return convert


def _read_bin(text: str, content: bytes) -> Reading:
    return lambda tensor: content


_READERS: Final[Mapping[str, Callable[[str, bytes], Reading]]] = {
    ".npy": _read_npy, ".wav": _read_wav, ".bin": _read_bin,
}  # fmt: skip


def _npy_of(arrays: Sequence[memoryview[float]]) -> bytes:
    """One array as it is; several as one with a dimension more."""
    own = tuple(arrays[0].shape or ())
    shape = (len(arrays), *own) if len(arrays) > 1 else own
    descr = "<f4" if sys.byteorder == "little" else ">f4"
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    padding = -(len(NPY) + 4 + len(header) + 1) % HEADER_ALIGNED
    header += b" " * padding + b"\n"
    return NPY + b"\x01\x00" + struct.pack("<H", len(header)) + header + b"".join(a.tobytes() for a in arrays)


def _bad(problem: str) -> ConfigError:
    return ConfigError(Code.BAD_CONFIG, f"{problem[:1].upper()}{problem[1:]}.")

"""Arrays in files: what NumPy and `wave` write is read, what is written NumPy reads."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fallow.cli.array_files import read, write
from fallow.client.arrays import outputs_of, work_of
from fallow.protocol.bundle import File, Manifest, Program, Tensor, Tolerance
from fallow.protocol.errors import Code, FallowError
from fallow.protocol.work import Piece

FILE = File(0, (bytes(32),))
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def function(*inputs: Tensor, outputs: tuple[Tensor, ...] = (Tensor("y", "float32", ()),)) -> Manifest:
    return Manifest(
        "made-up", "none", "-", "-", ("call",), FILE, (), (), inputs, outputs,
        (Program("p", "call", 1, 1, 1, FILE, 0, 0),), None, None, 1, (), Tolerance(1, 1, 1, 0, 0, (), "-"),
    )  # fmt: skip


def taken(text: str | Path, tensor: Tensor) -> bytes:
    """As it would be sealed."""
    (content,) = work_of(function(tensor), [{tensor.name: read(str(text))(tensor)}]).arrays
    return content


def sound(path: Path, samples: Any, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(16_000)
        out.writeframes(np.asarray(samples).tobytes())
    return path


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_what_numpy_saves_is_read(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    saved = X.ravel()[: max(1, int(np.prod(shape)))].reshape(shape).astype(dtype)
    np.save(tmp_path / "x.npy", saved)
    assert taken(tmp_path / "x.npy", Tensor("x", dtype, shape)) == saved.tobytes()


def test_every_version_of_the_format_is_read(tmp_path: Path) -> None:
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "x.npy").open("wb") as out:
            np.lib.format.write_array(out, X, version=version)
        assert taken(tmp_path / "x.npy", Tensor("x", "float32", (2, 3))) == X.tobytes()


def test_sound_is_read_as_it_is_or_as_fractions(tmp_path: Path) -> None:
    samples = np.array([0, 16_384, -32_768, 32_767], np.int16)
    path = sound(tmp_path / "x.wav", samples)
    assert taken(path, Tensor("x", "int16", (4,))) == samples.tobytes()
    assert taken(path, Tensor("x", "float32", (1, 4))) == (samples / np.float32(32_768)).astype(np.float32).tobytes()


def test_bare_bytes_literals_and_zeros_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(X.tobytes())
    tensor = Tensor("x", "float32", (2, 3))
    assert taken(tmp_path / "x.bin", tensor) == taken("[[0, 1, 2], [3, 4, 5]]", tensor) == X.tobytes()
    assert taken("zeros", tensor) == bytes(24)
    assert taken("16000", Tensor("rate", "int64", ())) == (16_000).to_bytes(8, "little")


def wrong_files(folder: Path) -> dict[str, tuple[Path | str, str]]:
    """What cannot be read, by what is wrong with it, with a part of the sentence."""
    folder.joinpath("text.npy").write_text("hello")
    folder.joinpath("cut.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\xff{'descr'")
    folder.joinpath("empty.wav").write_bytes(b"")
    folder.joinpath("long.bin").write_bytes(bytes(4 * 2**20 + 1))
    folder.joinpath("short.bin").write_bytes(bytes(23))
    np.save(folder / "double.npy", X.astype(np.float64))
    np.save(folder / "turned.npy", np.ascontiguousarray(X.T))
    np.save(folder / "columns.npy", np.asfortranarray(X))
    np.save(folder / "big.npy", X.astype(">f4"))
    np.save(folder / "words.npy", np.array(["a"]))
    np.save(folder / "fields.npy", np.zeros(2, [("a", "f4")]))
    return {
        "missing": (folder / "none.npy", "No such file"),
        "no literal": ("x.png", "is no file (.npy, .wav, .bin), no number"),
        "text": (folder / "text.npy", "is no .npy file of numbers"),
        "cut": (folder / "cut.npy", "is no .npy file of numbers"),
        "words": (folder / "words.npy", "is no .npy file of numbers"),
        "fields": (folder / "fields.npy", "is no .npy file of numbers"),
        "columns": (folder / "columns.npy", "column by column"),
        "big": (folder / "big.npy", "big-endian"),
        "double": (folder / "double.npy", "takes float32[2, 3], not float64[2, 3]"),
        "turned": (folder / "turned.npy", "takes float32[2, 3], not float32[3, 2]"),
        "empty": (folder / "empty.wav", "is no sound that can be read"),
        "stereo": (sound(folder / "two.wav", np.zeros(4, np.int16), channels=2), "has 2 channels of 16 bits"),
        "bytes": (sound(folder / "low.wav", np.zeros(4, np.uint8), width=1), "has 1 channels of 8 bits"),
        "longer": (sound(folder / "x.wav", np.zeros(8_000, np.int16)), "not int16[8000] (0.50 s at 16000 Hz)"),
        "long": (folder / "long.bin", "more than an order carries"),
        "short": (folder / "short.bin", "not 23 bytes (of 24)"),
    }


def test_whatever_is_wrong_with_a_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    for wrong, (text, word) in wrong_files(tmp_path).items():
        with pytest.raises(FallowError) as refused:
            taken(text, Tensor("x", "float32", (2, 3)))
        assert refused.value.code is Code.BAD_CONFIG, wrong
        assert word in refused.value.message, wrong


def test_numpy_reads_what_is_written(tmp_path: Path) -> None:
    outputs = (Tensor("y", "float32", (2, 3)), Tensor("z", "float32", ()))
    numbers = np.arange(14, dtype="<f4")
    rows = outputs_of(function(outputs=outputs), Piece(tensor=numbers.tobytes(), shape=(2, 7)))
    write(tmp_path, rows[:1])
    assert np.load(tmp_path / "y.npy").tolist() == numbers[:6].reshape(2, 3).tolist()
    assert np.load(tmp_path / "z.npy").tolist() == 6
    write(tmp_path / "both.npz", rows)
    both = np.load(tmp_path / "both.npz")
    assert both["y"].tolist() == [numbers[:6].reshape(2, 3).tolist(), numbers[7:13].reshape(2, 3).tolist()]
    assert both["z"].tolist() == [6, 13]
    assert taken(tmp_path / "y.npy", Tensor("y", "float32", (2, 3))) == numbers[:6].tobytes()


@pytest.mark.parametrize("name", ["../y", "/y", "a/b", "y\n"])
def test_a_publisher_cannot_name_a_place_outside_the_folder(name: str, tmp_path: Path) -> None:
    (row,) = outputs_of(function(outputs=(Tensor(name, "float32", ()),)), Piece(tensor=bytes(4), shape=(1, 1)))
    (tmp_path / "out").mkdir()
    with pytest.raises(FallowError, match="cannot be a file's name"):
        write(tmp_path / "out", [row])
    assert not list((tmp_path / "out").iterdir())

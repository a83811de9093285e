"""Arrays in and out: what is taken, what is refused and in which words."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fallow.client.arrays import HEAD_BYTES, outputs_of, work_of
from fallow.protocol.bundle import File, Manifest, Program, Tensor, Tolerance
from fallow.protocol.errors import Code, Refused
from fallow.protocol.limits import MESSAGE_BYTES_MAX
from fallow.protocol.work import Piece

FILE = File(0, (bytes(32),))


def function(inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], entries: tuple[str, ...] = ("call",)) -> Manifest:
    return Manifest(
        "made-up", "none", "-", "-", entries, FILE, (), (), inputs, outputs,
        (Program("p", "call", 1, 1, 1, FILE, 0, 0),), None, None, 1, (), Tolerance(1, 1, 1, 0, 0, (), "-"),
    )  # fmt: skip


def one(dtype: str, *shape: int) -> Manifest:
    return function((Tensor("x", dtype, shape),), (Tensor("y", "float32", ()),))


TWO = function(
    (Tensor("x", "float32", (2, 3)), Tensor("which", "int64", ())),
    (Tensor("y", "float32", (2, 2)), Tensor("z", "float32", ())),
)
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    "x",
    [
        X,
        X.ravel(),
        X.astype(">f4"),
        np.asfortranarray(X),
        np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2] / np.float32(2),
        array("f", range(6)),
        struct.pack("<6f", *range(6)),
        bytearray(struct.pack("<6f", *range(6))),
        memoryview(struct.pack("<6f", *range(6))),
        memoryview(X),
        [[0, 1, 2], [3, 4, 5.0]],
        ((0, 1, 2), [np.float32(3), 4, 5]),
    ],
    ids=lambda x: f"{type(x).__name__}",
)
def test_whatever_holds_the_numbers_comes_to_the_same_bytes(x: object) -> None:
    for which in (7, np.int64(7), np.array(7), array("q", [7]), struct.pack("<q", 7)):
        work = work_of(TWO, [{"which": which, "x": x}])
        assert work.arrays == (struct.pack("<6fq", *range(6), 7),)
        assert (work.calls, work.input_tokens) == (1, 1)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "uint32", "uint64", "float16", "float32", "float64"]
)
def test_every_element_type_is_as_numpy_has_it(dtype: str) -> None:
    numbers = np.array([0, 1, 1, 0], dtype)
    for given in (numbers, numbers.astype(numbers.dtype.newbyteorder(">")), numbers.tolist(), numbers.tobytes()):
        assert work_of(one(dtype, 4), [{"x": given}]).arrays == (numbers.tobytes(),)


@pytest.mark.parametrize(
    ("x", "word"),
    [
        (X.astype(np.float64), "not float64[2, 3]"),
        (X.astype(np.int32), "not int32[2, 3]"),
        (X.T, "not float32[3, 2]"),
        (X[0], "not float32[3]"),
        (np.zeros((2, 3), np.complex64), "not Zf[2, 3]"),
        (np.array(["a"]), "not 1w[1]"),
        (b"\0" * 23, "not 23 bytes (of 24)"),
        ([[0, 1, 2]], "not 1 in a list"),
        ([[0, 1, 2], [3, 4]], "not 2 in a list"),
        ([[0, 1, 2], [3, 4, "5"]], "not a str in its place"),
        ([[0, 1, 2], [3, 4, True]], "not a bool in its place"),
        ([[0, 1, 2], [3, 4, 1e39]], "not a number that is no float32"),
        (1.0, "not one number"),
        (None, "not a NoneType"),
    ],
)
def test_another_array_is_refused_by_name_with_what_is_wanted_and_what_was_given(x: object, word: str) -> None:
    with pytest.raises(Refused) as refused:
        work_of(TWO, [{"x": x, "which": 0}])
    assert refused.value.code is Code.BAD_CONFIG
    assert refused.value.message.startswith("The input x takes float32[2, 3], ")
    assert word in refused.value.message


@pytest.mark.parametrize(("dtype", "x"), [("uint8", 256), ("uint8", -1), ("uint8", 1.0), ("bool", 1), ("int64", 2**63)])
def test_a_number_that_the_element_type_does_not_have_is_refused(dtype: str, x: object) -> None:
    with pytest.raises(Refused, match=f"The input x takes {dtype}, not "):
        work_of(one(dtype), [{"x": x}])


@pytest.mark.parametrize(
    ("manifest", "inputs", "code", "word"),
    [
        (TWO, [{"x": X}], Code.BAD_CONFIG, "takes x float32[2, 3], which int64; given: x."),
        (TWO, [{"x": X, "which": 0, "what": 0}], Code.BAD_CONFIG, "given: x, which, what."),
        (TWO, [{}], Code.BAD_CONFIG, "given: none."),
        (TWO, [X], Code.BAD_CONFIG, "given: ndarray."),
        (TWO, {"x": X, "which": 0}, Code.BAD_CONFIG, "The inputs are a list"),
        (TWO, [], Code.TOO_LARGE, "takes 1 to 64 inputs of 32 bytes each, not 0."),
        (TWO, [{}] * 65, Code.TOO_LARGE, "takes 1 to 64 inputs of 32 bytes each, not 65."),
        (one("float32", 2**20), [{}], Code.TOO_LARGE, "more than an order carries"),
        (one("float32", 2**18), [{}] * 4, Code.TOO_LARGE, "takes 1 to 3 inputs of 1048576 bytes each, not 4."),
        (function(TWO.inputs, (Tensor("y", "float32", (2**17,)),)), [{}] * 5, Code.TOO_LARGE, "takes 1 to 4 inputs"),
        (one("bfloat16", 2), [{"x": b"\0" * 4}], Code.UNKNOWN_ENTRY, "knows no arrays of bfloat16"),
        (function((), TWO.outputs), [{}], Code.UNKNOWN_ENTRY, "use `embed`"),
        (function(TWO.inputs, TWO.outputs, ("score",)), [{}], Code.UNKNOWN_ENTRY, "offers score"),
    ],
)
def test_what_cannot_be_called_is_said(manifest: Manifest, inputs: Any, code: Code, word: str) -> None:
    with pytest.raises(Refused) as refused:
        work_of(manifest, inputs)
    assert refused.value.code is code
    assert word in refused.value.message


def test_as_many_inputs_as_are_taken_fit_a_frame() -> None:
    length = (MESSAGE_BYTES_MAX - HEAD_BYTES) // 64 - 5
    inputs: list[Mapping[str, object]] = [{"x": bytes(length)}] * 64
    assert len(work_of(one("uint8", length), inputs).encode()) <= MESSAGE_BYTES_MAX - HEAD_BYTES + 64
    with pytest.raises(Refused, match="takes 1 to 63"):
        work_of(one("uint8", length + 1), inputs)


def test_each_output_is_a_view_of_its_part_of_the_row() -> None:
    numbers = np.arange(10, dtype="<f4")
    rows = outputs_of(TWO, Piece(tensor=numbers.tobytes(), shape=(2, 5)))
    for index, row in enumerate(rows):
        assert list(row) == ["y", "z"]
        assert row["y"].tolist() == (numbers[5 * index : 5 * index + 4].reshape(2, 2)).tolist()
        assert np.asarray(row["y"]).shape == (2, 2)
        assert np.shares_memory(np.asarray(row["y"]), np.asarray(row["y"]))
        assert row["z"][()] == float(5 * index + 4)
        again = function((Tensor("y", "float32", (2, 2)),), TWO.outputs)
        assert work_of(again, [{"y": row["y"]}]).arrays == (numbers[5 * index : 5 * index + 4].tobytes(),)

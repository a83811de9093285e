"""Weights files that no honest publisher writes: each is refused with a reason, and nothing else happens."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import trio

from fallow.models.weights import write_weights
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import open_engine
from fallow.node.engine.tensors import HEADER_BYTES_MAX, read_untrusted
from fallow.protocol.errors import Code
from fallow.protocol.work import Parameters, Work

from . import hostile
from .conftest import Asked

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(5, dtype=np.uint8)
SOUND = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def mapped(tmp_path: Path, content: bytes) -> mmap.mmap:
    (tmp_path / "weights").write_bytes(content)
    with (tmp_path / "weights").open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)


def with_header(text: bytes, tensors: bytes = bytes(64)) -> bytes:
    return len(text).to_bytes(8, "little") + text + tensors


def entry(**changes: Any) -> bytes:
    return with_header(json.dumps({"a": SOUND | changes}).encode())


def test_what_was_written_is_read_in_any_order(tmp_path: Path) -> None:
    write_weights(tmp_path / "written", {"a": A, "b": B})
    read = read_untrusted(mapped(tmp_path, (tmp_path / "written").read_bytes()), ["b", "a"])
    np.testing.assert_array_equal(read[0], B)
    np.testing.assert_array_equal(read[1], A)


MALFORMED = {
    "no-header": b"short",
    "header-of-nothing": with_header(b""),
    "header-longer-than-the-file": (2**40).to_bytes(8, "little") + b"{}",
    "header-of-all-ones": b"\xff" * 64,
    "header-longer-than-any": with_header(b" " * (HEADER_BYTES_MAX + 1)),
    "no-json": with_header(b"weights"),
    "no-utf8": with_header(b'{"\xff": 1}'),
    "a-list": with_header(b"[1, 2]"),
    "deep": with_header(b"[" * 200_000),
    "a-number-without-end": with_header(b'{"a": ' + b"9" * 10_000 + b"}"),
    "missing": with_header(b"{}"),
    "no-entry": with_header(b'{"a": null}'),
    "twice": with_header(json.dumps({"a": SOUND}).encode()[:-1] + b", " + json.dumps({"a": SOUND}).encode()[1:]),
    "dtype-twice": with_header(b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}'),
    "dtype-unknown": entry(dtype="F128"),
    "dtype-no-text": entry(dtype=32),
    "dtype-of-objects": entry(dtype="O"),
    "shape-negative": entry(shape=[-2, -3]),
    "shape-to-be-inferred": entry(shape=[-1]),
    "shape-of-truth": entry(shape=[True, 6]),
    "shape-of-fractions": entry(shape=[2.0, 3]),
    "shape-too-large": entry(shape=[2**62, 2**62]),
    "shape-of-nothing-that-is-huge": entry(shape=[0, 2**62, 2**62], data_offsets=[0, 0]),
    "shape-of-many-dimensions": entry(shape=[2, 3, *[1] * 60]),
    "shape-other": entry(shape=[7]),
    "offsets-negative": entry(data_offsets=[-24, 0]),
    "offsets-before-the-file": entry(data_offsets=[-(2**63), 24 - 2**63]),
    "offsets-turned": entry(data_offsets=[24, 0]),
    "offsets-beyond-the-file": entry(data_offsets=[48, 72]),
    "offsets-huge": entry(data_offsets=[2**64, 2**64 + 24]),
    "offsets-three": entry(data_offsets=[0, 24, 48]),
    "offsets-of-text": entry(data_offsets=["0", "24"]),
}


@pytest.mark.spec("B-29")
@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_what_is_malformed_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        read_untrusted(mapped(tmp_path, MALFORMED[name]), ["a"])


@pytest.mark.spec("B-29")
@pytest.mark.parametrize("offsets", [(0, 24), (4, 28), (20, 44)])
def test_tensors_over_each_other_are_refused(tmp_path: Path, offsets: Sequence[int]) -> None:
    header = {"a": SOUND, "b": SOUND | {"data_offsets": list(offsets)}}
    content = with_header(json.dumps(header).encode())
    with pytest.raises(ValueError, match="over each other"):
        read_untrusted(mapped(tmp_path, content), ["a", "b"])


def test_whatever_is_flipped_it_is_read_or_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "written", {"a": A, "b": B})
    content, draw = (tmp_path / "written").read_bytes(), Random(5)
    for _ in range(200):
        flipped = bytearray(content)
        for _ in range(draw.randrange(1, 4)):
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        try:
            a, b = read_untrusted(mapped(tmp_path, bytes(flipped)), ["a", "b"])
        except (ValueError, RecursionError):
            continue
        assert a.nbytes + b.nbytes <= len(content)


@pytest.mark.spec("B-29")
async def test_in_a_worker_they_cost_their_own_bundle_and_no_other(tmp_path: Path) -> None:
    store, artifact = BundleStore(tmp_path / "store"), hostile.serialized(hostile.honest)
    names = ("no-json", "deep", "header-of-all-ones", "header-longer-than-any", "a-number-without-end")
    cids = {
        name: hostile.install(
            store, tmp_path / "scratch", name, artifact, hostile.HONEST_FLOPS, weights=MALFORMED.get(name, b"")
        ).cid
        for name in (*names, "honest")
    }
    with trio.fail_after(100):
        async with open_engine(store, [*cids.values()], log_path=tmp_path / "worker.log") as engine:
            assert {error.code for error in engine.refused.values()} == {Code.WORKER_FAILED}
            assert len(engine.refused) == len(names)
            assert engine.generation == 3  # it took one worker
            (piece,) = await Asked(Work(((1, 2, 3),)), cids["honest"], "call", Parameters()).answer(engine)
            assert len(piece.tensor) == 8

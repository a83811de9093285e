"""Inputs that no honest client sends: the job fails, or computes what it was asked, and the next one never notices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trio

from fallow.models import bundle as bundled
from fallow.node.engine import entries
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.protocol.bundle import File, Manifest, Program, Tensor, Tolerance
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.work import Parameters, Piece, Work
from fallow.verifier.compare import numbers_of

from .conftest import Asked, Tiny

LARGEST = 2**31 - 1
STRANGE = ((LARGEST,), (5, LARGEST, 6), (300, 2**20, 2**30), (LARGEST,) * 40)
"""Tokens that no tiny vocabulary has."""


async def failed(engine: Engine, asked: Asked, **changes: object) -> Code:
    with pytest.raises(EngineError) as caught:
        async for _ in engine.submit(asked.job(engine.hpke_key, **changes)):
            pass
    return caught.value.code


async def test_tokens_that_no_vocabulary_has_harm_nobody(engine: Engine, tiny: Tiny) -> None:
    with trio.fail_after(100):
        honest = await Asked(Work(((7, 8, 9),)), tiny.chat).text(engine)
        vector = await Asked(Work(((7, 8, 9),)), tiny.embed, "call", Parameters()).answer(engine)
        for tokens in STRANGE:
            for parameters in (Parameters(4), Parameters(4, 1000, 500_000, 3)):
                made, _ = await Asked(Work((tokens,)), tiny.chat, parameters=parameters).text(engine)
                assert len(made) <= 4
            checked = Work(((7, *tokens, 8),), claimed=len(tokens))
            (judged,) = await Asked(checked, tiny.chat, "score", Parameters()).answer(engine)
            assert len(judged.values_micro) == len(tokens)
            (row,) = await Asked(Work((tokens[:32],)), tiny.embed, "call", Parameters()).answer(engine)
            assert row.shape[0] == 1
        assert await Asked(Work(((7, 8, 9),)), tiny.chat).text(engine) == honest
        assert await Asked(Work(((7, 8, 9),)), tiny.embed, "call", Parameters()).answer(engine) == vector
        assert engine.generation == 3  # it took one worker


async def test_claims_that_no_vocabulary_has_are_never_likely(engine: Engine, tiny: Tiny) -> None:
    with trio.fail_after(60):
        work = Work(((7, 8, 9, LARGEST, 2**20),), claimed=2)
        (judged,) = await Asked(work, tiny.chat, "score", Parameters()).answer(engine)
        figures = zip(judged.gaps_micro, judged.values_micro, strict=True)
        assert all(gap > 1_000_000 or value == -(2**40) for gap, value in figures)


async def test_sealed_bytes_that_are_none_fail_their_job_alone(engine: Engine, tiny: Tiny) -> None:
    asked = Asked(Work(((7, 8, 9),)), tiny.chat)
    sealed = asked.job(engine.hpke_key).sealed
    with trio.fail_after(60):
        for wrong in (b"x", bytes(32), sealed[:-1], sealed[:31], sealed[:32], b"\0" * 32 + sealed[32:], sealed[::-1]):
            fresh = Asked(asked.work, tiny.chat)
            assert await failed(engine, fresh, sealed=wrong) is Code.INPUT_MISMATCH
        other = Asked(asked.work, tiny.chat)
        assert await failed(engine, other, sealed=sealed) is Code.INPUT_MISMATCH  # another order's
        for entry, work in (
            ("generate", Work(((1,), (2,)))),
            ("score", Work(((1, 2),))),
            ("call", Work(arrays=(b"xx",))),
        ):
            cid = tiny.embed if entry == "call" else tiny.chat
            assert await failed(engine, Asked(work, cid, entry)) is Code.BAD_RECORD
        assert len((await Asked(asked.work, tiny.chat).text(engine))[0]) == 16
        assert engine.generation == 3


async def test_arrays_without_a_number_are_computed_with_and_prove_nothing(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "store")
    made = bundled(
        lambda scale, x: scale * x, np.float32(2), [np.ones(4, np.float32)], name="twice", licence="CC0-1.0", store=store,
        tolerance_ppm=1,
    )  # fmt: skip
    nan, inf = np.full(4, np.nan, np.float32), np.full(4, np.inf, np.float32)
    rows = [nan, inf, -inf, np.arange(4, dtype=np.float32)]
    with trio.fail_after(100):
        async with open_engine(store, [made.cid], log_path=tmp_path / "worker.log") as engine:
            work = Work(arrays=tuple(row.tobytes() for row in rows))
            (piece,) = await Asked(work, made.cid, "call", Parameters()).answer(engine)
            given = np.frombuffer(piece.tensor, "<f4").reshape(piece.shape)
            np.testing.assert_array_equal(given, np.stack(rows) * 2)
            assert numbers_of(piece) is None
            assert numbers_of(Piece(tensor=given[3:].tobytes(), shape=(1, 4))) is not None
            for content in (b"x", bytes(15), bytes(17), bytes(1 << 20)):
                assert await failed(engine, Asked(Work(arrays=(content,)), made.cid, "call")) is Code.BAD_RECORD
            assert engine.generation == 3


FILE = File(0, (bytes(32),))
FLAGS = Manifest(
    "flags", "none", "-", "-", ("call",), FILE, (), (), (Tensor("on", "bool", (3,)), Tensor("x", "bfloat16", (2,))),
    (Tensor("y", "float32", (1,)),), (Program("p", "call", 1, 1, 1, FILE, 0, 0),), None, None, 1, (),
    Tolerance(1, 0, 0, 0, 0, (), "-"),
)  # fmt: skip


@pytest.mark.spec("B-28")
def test_a_bool_is_zero_or_one() -> None:
    asked = next(entries.call(FLAGS, Work(arrays=(b"\0\1\1" + b"\x80\x3f\0\x40",))))
    assert isinstance(asked, entries.Apply)
    assert [array.tolist() for array in asked.rows[0]] == [[False, True, True], [1.0, 2.0]]
    for content in (b"\0\1\2" + bytes(4), b"\xff\1\1" + bytes(4), b"\0\1\1" + bytes(3), bytes(8)):
        with pytest.raises(EngineError) as caught:
            next(entries.call(FLAGS, Work(arrays=(content,))))
        assert caught.value.code is Code.BAD_RECORD


def test_arrays_of_a_size_that_no_memory_has_are_only_counted() -> None:
    huge = replace(FLAGS, inputs=(Tensor("x", "float32", (2**40,) * 8),))
    with pytest.raises(EngineError) as caught:
        next(entries.call(huge, Work(arrays=(bytes(64),))))
    assert caught.value.code is Code.BAD_RECORD

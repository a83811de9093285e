"""Bundles whose parts are sound and do not fit together: each is served right, or refused for it, and the others stay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.work import Parameters, Work

from . import odd
from .conftest import Asked
from .odd import calls, reads, recipe, writes

SOUND = (reads(16), reads(16, role="score"), writes())
TEXT = tuple(range(60, 100))


@asynccontextmanager
async def engine_with(tmp_path: Path, **recipes: odd.Recipe) -> AsyncIterator[tuple[Engine, dict[str, str]]]:
    """A worker for these and a sound one; CIDs by name."""
    store = BundleStore(tmp_path / "store")
    recipes["sound"] = recipe(*SOUND)
    cids = {name: odd.install(store, tmp_path / "scratch", name, made).cid for name, made in recipes.items()}
    with trio.fail_after(150):
        async with open_engine(store, [*cids.values()], log_path=tmp_path / "worker.log") as engine:
            yield engine, cids


async def writes_on(engine: Engine, cid: str, text: tuple[int, ...], count: int) -> None:
    tokens, _ = await Asked(Work((text,)), cid, parameters=Parameters(count)).text(engine)
    assert tokens == odd.continued(text, count)


async def checks(engine: Engine, cid: str, text: tuple[int, ...], count: int) -> None:
    work = Work(((*text, *odd.continued(text, count)),), claimed=count)
    (piece,) = await Asked(work, cid, "score", Parameters()).answer(engine)
    assert set(piece.gaps_micro) == {0}


UNFIT = {
    "two-programs-for-one-batch": recipe(*SOUND, writes(4), writes(4, name="again")),
    "lone-program-is-shorter": recipe(calls(4), calls(1, 4, 8), entries=("call",), context=8),
}


async def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    async with engine_with(tmp_path, **UNFIT) as (engine, cids):
        await writes_on(engine, cids["sound"], TEXT, 10)
        assert len(engine.served) == 1, {each.name for each in engine.served.values()}
        assert {error.code for error in engine.refused.values()} <= {Code.BUNDLE_REFUSED, Code.WORKER_FAILED}


FIT = {
    "roles-with-contexts-of-their-own": recipe(
        reads(16, 32), reads(16), reads(16, 48, "score"), reads(16, role="score"), writes(1, 16), writes()
    ),
    "chunks-of-other-lengths": recipe(reads(16), reads(8, role="score"), reads(32, role="score"), writes(), writes(4)),
    "chunks-that-do-not-divide": recipe(
        reads(12, 48), reads(16), reads(8, 48, "score"), reads(32, role="score"), writes(), writes(1, 48)
    ),
}


@pytest.mark.parametrize("name", sorted(FIT))
async def test_prefixes_are_taken_up_by_any_program_that_there_is(tmp_path: Path, name: str) -> None:
    async with engine_with(tmp_path, **{name: FIT[name]}) as (engine, cids):
        cid = cids[name]
        for length in range(16, 64, 3):
            text = tuple(range(100, 100 + length))
            for first, second in ((writes_on, checks), (checks, writes_on)):
                await first(engine, cid, text[: length - 1], 1)
                await second(engine, cid, text, 64 - length)
                await second(engine, cid, text, 3 if length < 60 else 1)
                await first(engine, cid, text[: length // 2] + (9,) * (length // 3 + 1), 2)


async def test_a_prefix_of_a_context_that_a_role_lacks_is_taken_up_in_the_next(tmp_path: Path) -> None:
    name = "roles-with-contexts-of-their-own"
    async with engine_with(tmp_path, **{name: FIT[name]}) as (engine, cids):
        await checks(engine, cids[name], TEXT[:36], 4)  # of 48, where `prefill` has 32 and 64
        await writes_on(engine, cids[name], TEXT[:24], 3)
        assert engine.generation == 3  # it took one worker


async def test_an_input_is_no_longer_than_the_longest_program_for_it(tmp_path: Path) -> None:
    functions = recipe(*SOUND, calls(1, 4, 4), calls(1), entries=("generate", "call"))
    async with engine_with(tmp_path, functions=functions) as (engine, cids):
        for count in (1, 4, 5, 8):
            await Asked(Work((TEXT[:count],)), cids["functions"], "call").answer(engine)
        for count in (9, odd.CONTEXT, odd.CONTEXT + 1):
            with pytest.raises(EngineError) as caught:
                await Asked(Work((TEXT[:1] * count,)), cids["functions"], "call").answer(engine)
            assert caught.value.code is Code.INPUT_TOO_LONG
        assert engine.generation == 3  # it took one worker

"""Every hostile bundle, in the real worker beside an honest one: it ends in its refusal, and the honest one answers."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import jax.numpy as jnp
import pytest
import trio

from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.kept import Kept
from fallow.node.engine.messages import Rates
from fallow.node.engine.spawning import worker_command
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.work import Parameters, Work

from . import hostile
from .conftest import Asked
from .hostile import TRIGGER, install, serialized

MEMORY_MIB = 64
CAPS = ("--memory-mib", str(MEMORY_MIB), "--compile-s", "12", "--run-s", "2")
HONEST = (3, 1, 4)

BROKEN = Path(__file__).parent.parent / "fixtures/artifacts"
"""Found by altering bytes at random: MLIR's reader of jaxlib 0.10.2 dies of a few in a thousand."""

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "native-code": (lambda: hostile.native("evil"), "custom_call 'evil'"),
    "python-callback": (lambda: hostile.native("xla_ffi_python_cpu_callback"), "xla_ffi_python_cpu_callback"),
    "known-by-another-name": (hostile.renamed, "composite 'xla.secret'"),
    "infeed": (hostile.fed, "create_token is not an operation"),
    "steers-the-compiler": (hostile.steered, "mhlo.frontend_attributes"),
    "4-tib-broadcast": (
        lambda: serialized(lambda t: jnp.sum(jnp.broadcast_to(t[0, 0] * 1.0, (2**20, 2**20)), axis=1)[None, :2]),
        "larger than the 64 MiB granted",
    ),
    "16-gib-sort": (lambda: serialized(hostile.sorts(2**32 - 8)), "larger than the 64 MiB granted"),
    "sort-that-fits-only-before-it-is-compiled": (lambda: serialized(hostile.sorts(12 * 2**20)), "a run takes"),
    "large-constants": (lambda: serialized(hostile.constant_of(5 * 2**20)), "constants take more than 4 MiB"),
    "long-artifact": (lambda: serialized(hostile.constant_of(17 * 2**20)), "more than 16777216 bytes"),
    "million-operations": (lambda: serialized(hostile.doubling(20)), "more than 100000 operations"),
    "too-deep": (lambda: serialized(hostile.nested(40)), "nested more than 32 deep"),
    "recursion": (hostile.recursive, "calls itself"),
    "no-fixed-shape": (hostile.polymorphic, "the convention says int32[1,8]"),
    "other-results": (lambda: serialized(lambda _: jnp.zeros((2, 2))), "the convention says float32[1,2]"),
    "other-module": (
        lambda: hostile.with_module(hostile.exported(lambda _: jnp.zeros((1, 3))).mlir_module_serialized),
        "not those that its artifact describes",
    ),
    "malformed-stablehlo": (
        lambda: hostile.with_module(hostile.exported(hostile.honest).mlir_module_serialized[:-200]),
        "cannot be read",
    ),
    "no-stablehlo": (lambda: hostile.with_module(b"ML\xefR" + bytes(99)), "cannot be read"),
    "truncated-flatbuffer": (lambda: serialized(hostile.honest)[:-900], "cannot be read"),
    "offsets-into-nowhere": (lambda: struct.pack("<I", 2**31) + serialized(hostile.honest)[4:], "cannot be read"),
    "lies-about-its-flops": (lambda: serialized(hostile.honest), "claims 0 FLOPs, the program has 32"),
    "empty": (lambda: b"", "cannot be read"),
}
"""What is refused before it is run, and what the refusal says."""

ENDED: dict[str, tuple[Callable[[], bytes], str]] = {
    "endless-loop": (lambda: serialized(hostile.endless), "a run of program took longer than the 2.0 s"),
    "breaks-the-native-reader": (
        lambda: hostile.with_module((BROKEN / "faults.stablehlo").read_bytes()),
        "ended over bundle",
    ),
    "aborts-the-native-reader": (
        lambda: hostile.with_module((BROKEN / "aborts.stablehlo").read_bytes()),
        "ended over bundle",
    ),
    "compile-bomb": (lambda: serialized(hostile.slow_to_compile), "compiling program took longer than the 12.0 s"),
}
"""What costs the worker that loads it its life, and what is said of it then."""


@asynccontextmanager
async def engine_with(tmp_path: Path, programs: dict[str, bytes]) -> AsyncIterator[tuple[Engine, dict[str, str]]]:
    """A worker for an honest bundle and these; CIDs by name."""
    store = BundleStore(tmp_path / "store")
    bundles = {name: install(store, tmp_path / "scratch", name, artifact) for name, artifact in programs.items()}
    honest = serialized(hostile.honest)
    bundles["honest"] = install(store, tmp_path / "scratch", "honest", honest, hostile.HONEST_FLOPS)
    command, cids = [*worker_command(), *CAPS], {name: bundle.cid for name, bundle in bundles.items()}
    with trio.fail_after(150):
        async with open_engine(store, [*cids.values()], log_path=tmp_path / "worker.log", command=command) as engine:
            yield engine, cids


async def ask(engine: Engine, cid: str, *tokens: int) -> bytes:
    (piece,) = await Asked(Work((tokens,)), cid, "call", Parameters()).answer(engine)
    return piece.tensor


def refusal(engine: Engine, cid: str) -> EngineError:
    job = Asked(Work((HONEST,)), cid, "call", Parameters()).job(engine.hpke_key)
    with pytest.raises(EngineError) as caught:
        engine.submit(job)
    assert caught.value is engine.refused[job.bundle]
    return caught.value


@pytest.mark.spec("B-15", "B-16", "B-17", "B-18", "B-20")
async def test_what_is_refused_before_it_is_run(tmp_path: Path) -> None:
    programs = {name: build() for name, (build, _) in REFUSED.items()}
    async with engine_with(tmp_path, programs) as (engine, cids):
        said = {name: refusal(engine, cids[name]) for name in programs}
        assert {error.code for error in said.values()} == {Code.BUNDLE_REFUSED}
        for name, (_, why) in REFUSED.items():
            assert why in said[name].message, name
            assert name in said[name].message
        assert len(await ask(engine, cids["honest"], *HONEST)) == 8
        assert engine.generation == 3  # it took one worker


@pytest.mark.spec("B-19")
@pytest.mark.parametrize("name", sorted(ENDED))
async def test_what_ends_its_worker_is_left_out_of_the_next(tmp_path: Path, name: str) -> None:
    build, why = ENDED[name]
    async with engine_with(tmp_path, {name: build()}) as (engine, cids):
        error = refusal(engine, cids[name])
        assert error.code is Code.BUNDLE_REFUSED
        assert why in error.message
        assert len(await ask(engine, cids["honest"], *HONEST)) == 8


@pytest.mark.spec("B-19")
async def test_a_loop_that_a_client_makes_endless(tmp_path: Path) -> None:
    programs = {"trap": serialized(hostile.endless_on_trigger)}
    async with engine_with(tmp_path, programs) as (engine, cids):
        assert len(await ask(engine, cids["trap"], 1)) == 8
        for code in (Code.WORKER_DIED, Code.BUNDLE_REFUSED):  # a fresh worker has to say so too
            seen = engine.generation
            with pytest.raises(EngineError) as caught:
                await ask(engine, cids["trap"], TRIGGER)
            assert caught.value.code is code
            assert "a run of program took longer" in caught.value.message
            while not engine.served:
                seen = await engine.changed(seen)
        assert refusal(engine, cids["trap"]) is caught.value
        assert len(await ask(engine, cids["honest"], *HONEST)) == 8


@pytest.mark.spec("B-15")
async def test_what_breaks_the_rules_in_a_program_that_is_loaded_late(tmp_path: Path) -> None:
    store, artifact = BundleStore(tmp_path / "store"), serialized(hostile.honest)
    cids = [
        install(store, tmp_path / name, name, artifact, hostile.HONEST_FLOPS, wide).cid
        for name, wide in (("late", artifact), ("honest", None))
    ]
    with trio.fail_after(150):
        async with open_engine(store, cids, log_path=tmp_path / "log") as engine:
            seen = engine.generation
            while not (engine.refused and engine.served):
                seen = await engine.changed(seen)
            error = refusal(engine, cids[0])
            assert error.code is Code.BUNDLE_REFUSED
            assert "late: program wide: as array 0 it takes" in error.message
            assert len(await ask(engine, cids[1], *HONEST)) == 8


@pytest.mark.spec("B-19")
async def test_what_overruns_when_it_is_measured_once_more_is_blamed_alone(tmp_path: Path) -> None:
    """An earlier worker had measured it: this one serves it, and finds out when it has time."""
    store = BundleStore(tmp_path / "store")
    loop, honest = (serialized(each) for each in (hostile.endless, hostile.honest))
    bundles = [
        install(store, tmp_path / name, name, artifact, flops)
        for name, artifact, flops in (("loop", loop, 0), ("honest", honest, hostile.HONEST_FLOPS))
    ]
    cids, command = [each.cid for each in bundles], [*worker_command(), *CAPS]
    kept = Kept(store.worker_cache(cids))
    for each in bundles:
        kept.learn_rates(each.hash, Rates(call_milli=1))
    with trio.fail_after(150):
        async with open_engine(store, cids, log_path=tmp_path / "log", command=command) as engine:
            assert len(engine.served) == 2
            seen = engine.generation
            while not (engine.refused and engine.served):
                seen = await engine.changed(seen)
            assert "a run of program took longer than the 2.0 s" in refusal(engine, cids[0]).message
            assert len(await ask(engine, cids[1], *HONEST)) == 8


async def test_with_hostile_bundles_alone_the_engine_says_why_it_does_not_start(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "store")
    bundle = install(store, tmp_path / "scratch", "evil", hostile.native("evil"))
    with trio.fail_after(100), pytest.raises(EngineError, match="custom_call 'evil'") as caught:
        async with open_engine(store, [bundle.cid], log_path=tmp_path / "log"):
            pytest.fail("it must not start")
    assert caught.value.code is Code.BUNDLE_REFUSED

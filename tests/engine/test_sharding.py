"""Programs that lie over several devices: the same answers as on one, and nothing said of devices but what may be."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import trio
from jax import Array, export, lax
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from fallow.models import build, bundle
from fallow.models.export import PLATFORMS
from fallow.node.engine.admission import admit_untrusted
from fallow.node.engine.artifact import Aval, Signature
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.engine import open_engine
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.identity import cid_hash_untrusted
from fallow.protocol.work import Parameters, Work

from . import hostile
from .conftest import Asked, Tiny
from .hostile import HONEST_FLOPS, LENGTH, TOKENS, C, honest, portable, serialized

TWO = ("--accelerators", "0,1")
MESH = AbstractMesh((2,), ("x",))
PROMPT = tuple(range(40, 85))


@pytest.fixture(scope="session")
def over_two(tiny: Tiny) -> str:
    """`tiny-chat` over two devices, in the same store."""
    return build("tiny-chat-x2", tiny.store)


async def test_two_devices_answer_as_one_does_in_one_worker(tiny: Tiny, over_two: str, tmp_path: Path) -> None:
    """With it: what was compiled for one device where there was one runs where there are two."""
    parameters = Parameters(max_tokens=48)
    with trio.fail_after(150):
        async with open_engine(tiny.store, [tiny.chat, over_two], log_path=tmp_path / "log", options=TWO) as engine:
            one, two = [
                await Asked(Work((PROMPT,)), cid, parameters=parameters).text(engine) for cid in (tiny.chat, over_two)
            ]
            assert one[0] == two[0]
            tolerance = tiny.store.open(over_two).manifest.tolerance
            assert max(abs(a - b) for a, b in zip(one[1], two[1], strict=True)) <= tolerance.value_micro
            transcript = Work(((*PROMPT, *one[0]),), len(PROMPT))
            checked = [await Asked(transcript, cid, "score", parameters).text(engine) for cid in (tiny.chat, over_two)]
            assert max(abs(a - b) for a, b in zip(checked[0][1], checked[1][1], strict=True)) <= tolerance.value_micro
            classes = [
                engine.served[cid_hash_untrusted(cid)].numerics_class.split("/")[3] for cid in (tiny.chat, over_two)
            ]
            assert classes[1] == f"2x{classes[0]}"


@pytest.mark.spec("B-31")
async def test_a_publisher_s_own_function_lies_over_two_devices(tmp_path: Path) -> None:
    store, generator = BundleStore(tmp_path / "store"), np.random.default_rng(5)
    params = {"w": generator.normal(size=(6, 4)).astype(np.float32), "shift": np.ones(4, np.float32)}
    x = np.arange(6, dtype=np.float32)

    def score(params: Any, x: jax.Array) -> jax.Array:
        return x @ params["w"] + params["shift"]

    def made(divided: dict[str, int]) -> Bundle:
        named = {"name": "wide", "licence": "MIT"}
        return bundle(score, params, [x], **named, store=store, slots=(1,), devices=2, divided=divided)

    wide = made({"w": 1})
    assert wide.manifest.devices == 2
    with trio.fail_after(150):
        async with open_engine(store, [wide.cid], log_path=tmp_path / "log", options=TWO) as engine:
            assert engine.served[wide.hash].numerics_class.split("/")[3].startswith("2x")
            (piece,) = await Asked(Work(arrays=(x.tobytes(),)), wide.cid, "call", Parameters()).answer(engine)
    np.testing.assert_allclose(np.frombuffer(piece.tensor, "<f4"), x @ params["w"] + 1, rtol=1e-5)
    for wrong, why in (({"gone": 0}, "`divided` names 'gone'"), ({"w": 2}, "does not divide by 2 along dimension 2")):
        with pytest.raises(EngineError, match=why):
            made(wrong)


async def test_a_worker_of_one_device_says_how_many_a_bundle_wants(tiny: Tiny, over_two: str, tmp_path: Path) -> None:
    with trio.fail_after(100):
        async with open_engine(tiny.store, [tiny.embed, over_two], log_path=tmp_path / "log") as engine:
            error = engine.refused[cid_hash_untrusted(over_two)]
            assert error.code is Code.DEVICES_MISSING
            assert "lies over 2 devices of one machine, and this worker has 1 (cpu)" in error.message
            assert list(engine.served) == [cid_hash_untrusted(tiny.embed)]


@pytest.mark.spec("B-30")
def test_every_program_says_the_same_of_each_parameter(tiny: Tiny, over_two: str) -> None:
    bundle = tiny.store.open(over_two)
    said = set()
    for program in bundle.manifest.programs:
        exported = export.deserialize(bytearray((bundle.path / "programs" / program.name).read_bytes()))
        assert exported.nr_devices == bundle.manifest.devices == 2
        assert exported.module_kept_var_idx == tuple(range(len(exported.in_avals)))
        places = exported.in_shardings_jax(AbstractMesh((2,), ("devices",)))
        said.add(tuple(map(str, places[: len(bundle.manifest.parameters)])))
    assert len(said) == 1


def sharding(*axes: str | None) -> NamedSharding:
    return NamedSharding(MESH, Spec(*axes))  # type: ignore[no-untyped-call]  # untyped in jax 0.10


def divided(function: hostile.Function = honest) -> export.Exported:
    """The honest program over two devices, its tokens divided among them."""

    def program(params: list[Array], state: list[Array], tokens: Array, length: Array) -> tuple[list[Array], Array]:
        return state, function(tokens)

    places = [], [], sharding(None, "x"), sharding()
    function_over = jax.jit(program, in_shardings=places, out_shardings=([], sharding()), keep_unused=True)
    return export.export(function_over, platforms=PLATFORMS)([], [], TOKENS, LENGTH)


def with_words(before: str, after: str) -> bytes:
    """The same, with something else in its module."""
    exported = divided()
    text = exported.mlir_module()
    assert before in text
    module = portable(text.replace(before, after), other_dialects=True)
    return bytes(dataclasses.replace(exported, mlir_module_serialized=module).serialize())


def manual(tokens: Array) -> Array:
    """A sum over the devices of the program's own."""
    shard: Array = jax.shard_map(
        lambda part: lax.psum(honest(part), "x"),
        mesh=MESH,
        in_specs=Spec(),
        out_specs=Spec(),  # type: ignore[no-untyped-call]
    )(tokens)
    return shard


def signature(devices: int) -> Signature:
    return Signature((), (), (Aval("int32", (1, C)), Aval("int32", (1,))), (Aval("float32", (1, 2)),), devices)


def admit(artifact: bytes, devices: int) -> object:
    return admit_untrusted(artifact, signature(devices), flops=HONEST_FLOPS, memory_bytes=2**20)


SHARDING, WHOLE = '#sdy.sharding<@mesh, [{}, {"x"}]>', "#sdy.sharding<@mesh, [{}, {}]>"

REFUSED = {
    "two are claimed of one": (lambda: serialized(honest), 2, "exported for 1 devices, its manifest says 2"),
    "one is claimed of two": (lambda: bytes(divided().serialize()), 1, "exported for 2 devices, its manifest says 1"),
    "many are claimed": (lambda: bytes(divided().serialize()), 64, "exported for 2 devices, its manifest says 64"),
    "many are claimed twice": (
        lambda: bytes(dataclasses.replace(divided(), nr_devices=64).serialize()),
        64,
        "its mesh is not of 64 devices",
    ),
    "a larger mesh": (lambda: with_words('<["x"=2]>', '<["x"=64]>'), 2, "its mesh is not of 2 devices"),
    "numbered devices": (lambda: with_words('<["x"=2]>', '<["x"=2], device_ids=[1, 0]>'), 2, "in their order"),
    "more partitions": (
        lambda: with_words("num_partitions = 2", "num_partitions = 4"), 2, "another number of devices (mhlo.num_partitions)",
    ),
    "replicas": (lambda: with_words("num_replicas = 1", "num_replicas = 2"), 2, "(mhlo.num_replicas)"),
    "a mesh of two minds": (lambda: with_words("size = 2 : i64", "size = 4 : i64"), 2, "cannot be read|two things"),
    "a second mesh": (
        lambda: with_words("func.func public", 'sdy.mesh @other = <["x"=2]>\n func.func public'), 2, "has 2 meshes",
    ),
    "does not divide": (
        lambda: with_words(SHARDING, '#sdy.sharding<@mesh, [{"x"}, {}]>'), 2, "tensor<1x8xi32> does not divide by 2",
    ),
    "a mesh in place": (lambda: with_words(SHARDING, '#sdy.sharding<mesh<["x"=2]>, [{}, {"x"}]>'), 2, "may not say"),
    "unfinished sums": (
        lambda: with_words(WHOLE, '#sdy.sharding<@mesh, [{}, {}], unreduced={"x"}>'), 2, "may not say|cannot be read",
    ),
    "priorities": (lambda: with_words(SHARDING, '#sdy.sharding<@mesh, [{}, {"x"}p1]>'), 2, "does not fit"),
    "collectives": (lambda: bytes(divided(manual).serialize()), 2, "sdy.manual_computation is not an operation"),
}  # fmt: skip


@pytest.mark.spec("B-15", "B-32")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_admitted(name: str) -> None:
    artifact, devices, why = REFUSED[name]
    with pytest.raises(EngineError, match=why.replace("(", r"\(").replace(")", r"\)")) as caught:
        admit(artifact(), devices)
    assert caught.value.code is Code.BUNDLE_REFUSED


@pytest.mark.spec("B-32")
def test_an_honest_one_is_admitted_and_counted_as_for_one_device() -> None:
    def constrained(tokens: Array) -> Array:
        placed: Array = lax.with_sharding_constraint(honest(tokens), sharding())  # type: ignore[no-untyped-call]
        return placed

    one = admit_untrusted(serialized(honest), signature(1), flops=HONEST_FLOPS, memory_bytes=2**20)
    two = admit_untrusted(bytes(divided(constrained).serialize()), signature(2), flops=HONEST_FLOPS, memory_bytes=2**20)
    assert (one.axes, two.axes) == ({}, {"x": 2})
    assert one.work.flops == two.work.flops


_IN_TWO_DEVICES = """
import sys
from pathlib import Path
import jax
from jax.sharding import NamedSharding, PartitionSpec as Spec
from fallow.node.engine import device
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.programs import load
from fallow.protocol.errors import EngineError
store = BundleStore(Path(sys.argv[1]))
device.configure(store.compile_cache, devices=2)
for cid in sys.argv[2:]:
    try:
        model = load(store.open(cid))
        weights = model.programs("prefill")[0]._weights
        mesh = jax.sharding.Mesh(jax.devices(), ("devices",))
        weights.lie([NamedSharding(mesh, Spec())] * len(weights.arrays))
    except EngineError as error:
        print(error.code, error.message)
"""


@pytest.mark.spec("B-32")
def test_what_shows_only_where_there_are_two_devices(tiny: Tiny, over_two: str, tmp_path: Path) -> None:
    """Places outside of the module that are of no mesh of its, and parameters that two programs want in different places."""
    exported = divided()
    elsewhere = NamedSharding(AbstractMesh((2,), ("y",)), Spec("y"))  # type: ignore[no-untyped-call]
    lying = dataclasses.replace(exported, _in_named_shardings=(elsewhere, *exported._in_named_shardings[1:]))
    bundle = hostile.install(tiny.store, tmp_path, "lying", bytes(lying.serialize()), HONEST_FLOPS, devices=2)
    words = [sys.executable, "-c", _IN_TWO_DEVICES, str(tiny.store.root), bundle.cid, over_two]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=100).stdout.splitlines()
    assert "bundle_refused lying: program program: " in said[0]
    assert said[1].startswith("bundle_refused it wants its parameters elsewhere than another program")

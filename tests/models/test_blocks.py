"""Weights in blocks, as programs hold them: one artifact for all platforms, by the kernel on a CPU and without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from gguf import GGMLQuantizationType, dequantize, quantize
from jax import Array
from numpy.typing import NDArray

from fallow.models import blocks
from fallow.models.gguf_reader import packed_rows
from fallow.models.rounded import rounded_bundle
from fallow.models.tiny import tiny_chat
from fallow.node.engine import kernels
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.device import map_weights
from fallow.protocol.errors import Code, StoreError

from .conftest import load_kept

OUT, IN = 259, 96


@pytest.fixture(scope="module", autouse=True)
def registered(tiny_store: BundleStore) -> None:
    """The kernels, as they were compiled when a bundle that calls them was built."""
    assert kernels.register(tiny_store.compile_cache)


def random(*shape: int) -> NDArray[np.float32]:
    return (np.random.Generator(np.random.PCG64(3)).random(shape) - 0.5).astype(np.float32)


def plain(x: NDArray[np.float32], weight: blocks.PackedBlocks) -> NDArray[np.float64]:
    """The product in float64, of the weights as every platform expands them."""
    expanded = blocks.rows_of(blocks.Blocks(*map(jax.numpy.asarray, weight)), np.arange(len(weight.codes)))
    return x.astype(np.float64) @ np.asarray(expanded, np.float64).T


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 4, 5, 16, 33])
def test_the_kernel_and_the_plain_product_agree(bits: int, rows: int) -> None:
    weight, x = blocks.packed(random(OUT, IN), bits), random(2, rows, IN)[:1]

    def by_kernel(x: Array, codes: Array, scales: Array) -> Array:
        return blocks.linear(x, blocks.Blocks(codes, scales))

    y = np.asarray(jax.jit(by_kernel)(x, *weight))
    assert y.shape == (1, rows, OUT)
    np.testing.assert_allclose(y[0], plain(x[0], weight), rtol=0, atol=2e-6)


@pytest.mark.spec("B-23")
@pytest.mark.parametrize("bits", [4, 8])
def test_every_platform_expands_the_same_weights(bits: int) -> None:
    """Seen through the kernel by rows of x that pick one weight each."""
    weight = blocks.packed(random(OUT, IN), bits)
    assert (weight.scales.astype(np.float16) == weight.scales).all()
    in_blocks = blocks.Blocks(*map(jax.numpy.asarray, weight))
    by_kernel = np.asarray(blocks.linear(np.eye(IN, dtype=np.float32), in_blocks)).T
    rows = np.asarray(blocks.rows_of(in_blocks, np.arange(OUT)))
    assert (by_kernel == rows).all()
    assert np.abs(rows - random(OUT, IN)).max() < 1 / 2 ** (bits - 0.5)


def test_a_constant_row_is_kept() -> None:
    weight = blocks.packed(np.full((1, 32), 0.75, np.float32), 4)
    rows = blocks.rows_of(blocks.Blocks(*map(jax.numpy.asarray, weight)), np.array([0]))
    assert (np.asarray(rows) == 0.75).all()


@pytest.mark.spec("B-22")
def test_an_artifact_calls_the_kernel_on_a_cpu_alone() -> None:
    weight = blocks.packed(random(OUT, IN), 4)

    def function(x: Array, codes: Array, scales: Array) -> Array:
        return blocks.linear(x, blocks.Blocks(codes, scales))

    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in kernels.TARGETS]
    for platform, calls in (("cpu", True), ("cuda", False), ("tpu", False)):
        exported = jax.export.export(jax.jit(function), platforms=[platform], disabled_checks=checks)
        assert (kernels.PRODUCT in exported(random(2, IN), *weight).mlir_module()) is calls
    exported = jax.export.export(jax.jit(function), platforms=["cpu", "cuda", "tpu"], disabled_checks=checks)
    again = jax.export.deserialize(bytearray(exported(random(2, IN), *weight).serialize()))
    compiled = jax.jit(again.call).lower(random(2, IN), *weight).compile()
    assert "conditional" not in compiled.as_text()
    assert (np.asarray(compiled(random(2, IN), *weight)) == np.asarray(function(random(2, IN), *weight))).all()


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0])
def test_a_ggufs_blocks_expand_to_the_weights_that_its_own_reader_gives(kind: GGMLQuantizationType) -> None:
    rows = quantize(random(OUT, IN), kind)
    weight = packed_rows(rows, kind)
    assert (weight.scales.astype(np.float16) == weight.scales).all()
    expanded = blocks.rows_of(blocks.Blocks(*map(jax.numpy.asarray, weight)), np.arange(OUT))
    assert (np.asarray(expanded) == dequantize(rows, kind)).all()


def test_a_model_in_blocks_says_what_it_says_in_float32(tiny_store: BundleStore) -> None:
    """By programs of all roles and widths, of the same weights: the tolerance that holds between devices holds between
    these. Of one context each: how far it reaches is no product's affair."""
    bundle = tiny_store.find("tiny-chat-q4")
    assert bundle is not None
    in_blocks = load_kept(bundle)
    packed = dict(zip(bundle.manifest.parameters, map_weights(bundle), strict=True))
    model = tiny_chat(tiny_store.downloads, lambda _stage, _fraction: None)
    dense = [
        blocks.rows_of(blocks.Blocks(packed[f"{name}.codes"], packed[f"{name}.scales"]), np.arange(shape[0]))
        if f"{name}.codes" in packed
        else packed[name]
        for name, shape in model.parameters.items()
    ]
    generator, compared = np.random.Generator(np.random.PCG64(9)), 0
    for draft in {(each.role, each.slots): each for each in reversed(model.programs)}.values():
        state = [np.zeros((draft.slots, *each.shape_in(draft.context)), np.float32) for each in model.state]
        inputs = [np.ones(each.shape, each.dtype) for each in draft.inputs]
        inputs[0] = generator.integers(3, 250, draft.inputs[0].shape).astype(np.int32)
        (program,) = [each for each in in_blocks.programs(draft.role) if each.program.name == draft.name]
        (_, *outputs), (_, found) = jax.jit(draft.function)(dense, state, *inputs), program.run(state, *inputs)
        for mine, theirs in zip(outputs, found, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=model.tolerance.value_micro / 1e6)
            compared += mine.size
    assert compared > 100
    while in_blocks.load_next():
        pass
    assert in_blocks.shared, "slots are not proven apart: the kernel's rows are"


_LOAD = """
import sys
from pathlib import Path
from fallow.node.engine import device
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.programs import load
from fallow.protocol.errors import Code, StoreError
from fallow.protocol.errors import EngineError

device.configure(Path(sys.argv[1]))
try:
    load(BundleStore(Path(sys.argv[2])).find("tiny-chat-q4"))
except EngineError as error:
    print(error.code, error.message)
"""


def test_without_the_library_a_bundle_that_needs_it_says_what_to_install(
    tiny_store: BundleStore, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", _LOAD, str(tmp_path), str(tiny_store.root)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout
    assert said.startswith("bundle_refused tiny-chat-q4: ")
    assert "install a C++ compiler" in said


def test_only_a_bundle_that_calls_the_library_has_it_compiled(tiny_store: BundleStore, tmp_path: Path) -> None:
    for name, compiled in (("tiny-embed", 0), ("tiny-chat", 0), ("tiny-chat-q4", 1)):
        bundle = tiny_store.find(name)
        assert bundle is not None
        kernels.prepare(bundle, tmp_path)
        assert len(list(tmp_path.iterdir())) == compiled


def test_what_is_rounded_already_is_not_rounded_again(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="rounded already") as caught, rounded_bundle("tiny-chat-q4", "int8", tmp_path):
        pass
    assert caught.value.code is Code.UNSUPPORTED_MODEL

"""Weights in blocks, as programs hold them: one artifact for all platforms, by the kernel on a CPU and without it."""

from __future__ import annotations

import jax
import jax.export
import numpy as np
import pytest
from jax import Array
from numpy.typing import NDArray

from fallow.models import blocks
from fallow.node.engine import kernels

OUT, IN = 259, 96


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("kernels")
    kernels.build(directory)
    assert kernels.register(directory)


def random(*shape: int) -> NDArray[np.float32]:
    return (np.random.Generator(np.random.PCG64(3)).random(shape) - 0.5).astype(np.float32)


def plain(x: NDArray[np.float32], weight: blocks.PackedBlocks) -> NDArray[np.float64]:
    """The product in float64, of the weights as every platform expands them."""
    expanded = blocks.rows_of(blocks.Blocks(*map(jax.numpy.asarray, weight)), np.arange(len(weight.codes)))
    return x.astype(np.float64) @ np.asarray(expanded, np.float64).T


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 5, blocks.PRODUCT_ROWS_MAX, blocks.PRODUCT_ROWS_MAX + 1])
def test_the_kernel_and_the_plain_product_agree(bits: int, rows: int) -> None:
    weight, x = blocks.packed(random(OUT, IN), bits), random(2, rows, IN)[:1]

    def by_kernel(x: Array, codes: Array, scales: Array) -> Array:
        return blocks.linear(x, blocks.Blocks(codes, scales))

    y = np.asarray(jax.jit(by_kernel)(x, *weight))
    assert y.shape == (1, rows, OUT)
    np.testing.assert_allclose(y[0], plain(x[0], weight), rtol=0, atol=2e-6)


@pytest.mark.spec("B-41")
@pytest.mark.parametrize("bits", [4, 8])
def test_every_platform_expands_the_same_weights(bits: int) -> None:
    weight = blocks.packed(random(OUT, IN), bits)
    assert (weight.scales.astype(np.float16) == weight.scales).all()
    by_kernel = jax.ffi.ffi_call(kernels.EXPAND, jax.ShapeDtypeStruct((OUT, IN), np.float32))
    rows = blocks.rows_of(blocks.Blocks(*map(jax.numpy.asarray, weight)), np.arange(OUT))
    assert (np.asarray(jax.jit(by_kernel)(*weight)) == np.asarray(rows)).all()
    assert np.abs(np.asarray(rows) - random(OUT, IN)).max() < 1 / 2 ** (bits - 0.5)


def test_a_constant_row_is_kept() -> None:
    weight = blocks.packed(np.full((1, 32), 0.75, np.float32), 4)
    rows = blocks.rows_of(blocks.Blocks(*map(jax.numpy.asarray, weight)), np.array([0]))
    assert (np.asarray(rows) == 0.75).all()


@pytest.mark.spec("B-40")
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

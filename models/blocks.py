"""Weights in blocks: codes of 4 or 8 bits, expanded where they are used (`spec/07-bundles.md`, Weights in blocks).

On a CPU the node's own kernels read them (`node/engine/blocks.cc`); on other devices, programs expand them by themselves.
A GGUF's Q4_1 and Q8_0 are such blocks already: what is computed with are the weights that its float32 expansion has.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from ..node.engine.kernels import EXPAND, PRODUCT

BLOCK: Final = 32
"""Consecutive weights of a row that share a scale and a least weight."""

PRODUCT_ROWS_MAX: Final = 16
"""Up to here the product reads codes; beyond, XLA's own product is fast enough to be worth expanding the weights for it."""


class Blocks(NamedTuple):
    """A matrix [out, in]: weight = code * scale + least, rounded once."""

    codes: Array
    """u8[out, in], or u8[out, in / 2]: byte j of a block holds codes j (low bits) and j + 16."""
    scales: Array
    """f32[out, in / 32, 2]: of each block its scale and its least weight, each a value that float16 has."""


class PackedBlocks(NamedTuple):
    """`Blocks` on their way into a file."""

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]


def linear(x: Array, weight: Array | Blocks) -> Array:
    """[..., in] by [out, in], in full float32: GPUs and TPUs would round to 10 or 7 bits, and results not compare."""
    if not isinstance(weight, Blocks):
        return _dense(x, weight)
    rows = x.reshape(-1, x.shape[-1])
    if rows.shape[0] > PRODUCT_ROWS_MAX:
        return _dense(x, lax.platform_dependent(*weight, cpu=_expand_by_kernel, default=_expand))
    product: Array = lax.platform_dependent(rows, *weight, cpu=_product_by_kernel, default=_product)
    return product.reshape(*x.shape[:-1], -1)


def rows_of(weight: Array | Blocks, indices: Array) -> Array:
    """Rows [..., in] of a matrix, as an embedding takes them."""
    if not isinstance(weight, Blocks):
        return weight[indices]
    chosen = weight.codes[indices.reshape(-1)], weight.scales[indices.reshape(-1)]
    return _expand(*chosen).reshape(*indices.shape, -1)


def packed(weights: NDArray[np.float32], bits: int) -> PackedBlocks:
    """The nearest blocks of `bits` bits to a matrix whose rows are multiples of `BLOCK` long."""
    blocks = weights.reshape(len(weights), -1, BLOCK)
    least = blocks.min(-1).astype(np.float16).astype(np.float32)
    scale = ((blocks.max(-1) - least) / (2**bits - 1)).astype(np.float16).astype(np.float32)
    codes = np.rint((blocks - least[..., None]) / np.maximum(scale, np.finfo(np.float32).tiny)[..., None])
    return joined(np.clip(codes, 0, 2**bits - 1).astype(np.uint8), scale, least, bits)


def joined(codes: NDArray[np.uint8], scale: NDArray[np.float32], least: NDArray[np.float32], bits: int) -> PackedBlocks:
    """Codes [out, in / 32, 32] one by one, and each block's scale and least weight, as they lie in a file."""
    if bits == 4:
        codes = codes[..., :16] | codes[..., 16:] << np.uint8(4)
    return PackedBlocks(codes.reshape(len(codes), -1), np.stack([scale, least], -1).astype(np.float32))


def _dense(x: Array, weight: Array) -> Array:
    return lax.dot_general(x, weight, (((x.ndim - 1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)


def _product_by_kernel(x: Array, codes: Array, scales: Array) -> Array:
    result = jax.ShapeDtypeStruct((x.shape[0], codes.shape[0]), np.dtype(np.float32))  # type: ignore[no-untyped-call]
    product: Array = jax.ffi.ffi_call(PRODUCT, result)(x, codes, scales)
    return product


def _product(x: Array, codes: Array, scales: Array) -> Array:
    return _dense(x, _expand(codes, scales))


def _expand_by_kernel(codes: Array, scales: Array) -> Array:
    result = jax.ShapeDtypeStruct((len(codes), scales.shape[1] * BLOCK), np.dtype(np.float32))  # type: ignore[no-untyped-call]
    expanded: Array = jax.ffi.ffi_call(EXPAND, result)(codes, scales)
    return expanded


def _expand(codes: Array, scales: Array) -> Array:
    blocks = codes.reshape(*scales.shape[:2], -1)
    if blocks.shape[-1] < BLOCK:
        blocks = jnp.concatenate([blocks & 15, blocks >> 4], -1)
    weights = blocks.astype(jnp.float32) * scales[..., :1] + scales[..., 1:]
    return weights.reshape(len(codes), -1)

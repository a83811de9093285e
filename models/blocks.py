"""Weights in blocks: codes of 4 or 8 bits, expanded where they are used (`spec/07-bundles.md`, Weights in blocks).

On a CPU the node's own kernels read them (`node/engine/blocks.cc`); on other devices, programs expand them by themselves.
A GGUF's Q4_1 and Q8_0 are such blocks already: what is computed with are the weights that its float32 expansion has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from ..node.engine.kernels import PRODUCT
from .program import Shapes
from .recipe import Model

BLOCK: Final = 32
"""Consecutive weights of a row that share a scale and a least weight."""


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
    product: Array = lax.platform_dependent(rows, *weight, cpu=_product_by_kernel, default=_product)
    return product.reshape(*x.shape[:-1], -1)


def rows_of(weight: Array | Blocks, indices: Array) -> Array:
    """Rows [..., in] of a matrix, as an embedding takes them."""
    if not isinstance(weight, Blocks):
        rows: Array = weight[indices]
        return rows
    chosen = weight.codes[indices.reshape(-1)], weight.scales[indices.reshape(-1)]
    return _expand(*chosen).reshape(*indices.shape, -1)


def in_blocks(model: Model, matrices: Mapping[str, PackedBlocks]) -> Model:
    """The model with these of its parameters in blocks, `NAME.codes` and `NAME.scales`; `model.weights` may lack them.

    Its programs' functions meet each as `Blocks` where the matrix would stand.
    """
    parameters: Shapes = {}
    weights: dict[str, NDArray[Any]] = {}
    for name, shape in model.parameters.items():
        if name in matrices:
            weights |= {f"{name}.{part}": array for part, array in matrices[name]._asdict().items()}
            parameters |= {f"{name}.{part}": array.shape for part, array in matrices[name]._asdict().items()}
        else:
            parameters[name], weights[name] = shape, model.weights[name]

    def grouped(params: list[Array]) -> list[Array | Blocks]:
        rest = iter(params)
        return [Blocks(next(rest), next(rest)) if name in matrices else next(rest) for name in model.parameters]

    def with_blocks(function: Callable[..., Any], params: list[Array], *arguments: Any) -> Any:
        return function(grouped(params), *arguments)

    programs = tuple(replace(draft, function=partial(with_blocks, draft.function)) for draft in model.programs)
    codes = frozenset(f"{name}.codes" for name in matrices)
    return replace(model, parameters=parameters, weights=weights, codes=codes, programs=programs)


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
    """The weights stand on the left: with few rows of x, XLA's CPU back end is up to a quarter faster so."""
    product = lax.dot_general(weight, x, (((1,), (x.ndim - 1,)), ((), ())), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(product, 0, -1)


def _product_by_kernel(x: Array, codes: Array, scales: Array) -> Array:
    result = jax.ShapeDtypeStruct((x.shape[0], codes.shape[0]), np.dtype(np.float32))  # type: ignore[no-untyped-call]
    product: Array = jax.ffi.ffi_call(PRODUCT, result)(x, codes, scales)
    return product


def _product(x: Array, codes: Array, scales: Array) -> Array:
    return _dense(x, _expand(codes, scales))


def _expand(codes: Array, scales: Array) -> Array:
    blocks = codes.reshape(*scales.shape[:2], -1)
    if blocks.shape[-1] < BLOCK:
        blocks = jnp.concatenate([blocks & 15, blocks >> 4], -1)
    weights = blocks.astype(jnp.float32) * scales[..., :1] + scales[..., 1:]
    return weights.reshape(len(codes), -1)

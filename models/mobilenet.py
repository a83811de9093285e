"""MobileNetV3 (Howard et al. 2019) as a classifier of images: narrow blocks, spread out and squeezed again, some with a gate.

Norms are folded into the convolutions that they follow. Weights lie as `[out, in, height, width]`, images as
`[height, width, channel]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..protocol.bundle import Tensor
from .program import Draft, Shapes, State, specimen


@dataclass(frozen=True, slots=True)
class Block:
    """An inverted bottleneck. Where it changes neither size nor channels, its input is added to its output."""

    kernel: int
    wide: int
    out: int
    gated: bool
    hard_swish: bool
    """Whether it bends by x * relu6(x + 3) / 6, else by relu."""
    stride: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class MobileNet:
    """The sizes of one model."""

    height: int
    width: int
    stem: int
    blocks: tuple[Block, ...]
    last: int
    classes: int
    gate_reduction: int = 4

    def parameters(self) -> Shapes:
        """Names and shapes in the order in which programs take them."""
        shapes = _convolution("stem", self.stem, 3, 3)
        into = self.stem
        for index, block in enumerate(self.blocks):
            shapes |= _convolution(f"{index}.expand", block.wide, into, 1)
            shapes |= _convolution(f"{index}.depthwise", block.wide, 1, block.kernel)
            if block.gated:
                squeezed = block.wide // self.gate_reduction
                shapes |= _convolution(f"{index}.squeeze", squeezed, block.wide, 1)
                shapes |= _convolution(f"{index}.excite", block.wide, squeezed, 1)
            shapes |= _convolution(f"{index}.project", block.out, block.wide, 1)
            into = block.out
        shapes |= _convolution("last", self.last, into, 1)
        return shapes | {"classes.weight": (self.classes, self.last), "classes.bias": (self.classes,)}

    def inputs(self) -> tuple[Tensor, ...]:
        """Red, green and blue of 0 to 255."""
        return (Tensor("image", "uint8", (self.height, self.width, 3)),)

    def outputs(self) -> tuple[Tensor, ...]:
        """The probabilities, and what they are the softmax of: that shows cheaper weights where a probability is 1 anyway."""
        return Tensor("probabilities", "float32", (self.classes,)), Tensor("logits", "float32", (self.classes,))

    def programs(self, slots: Sequence[int]) -> tuple[Draft, ...]:
        """`call` for each number of images at once."""
        (image,) = self.inputs()
        return tuple(
            Draft(f"call-{b}", "call", b, 1, 1, self._call, (specimen((b, *image.shape), "uint8"),)) for b in slots
        )

    def logits(self, weights: dict[str, Array], images: Array) -> Array:
        """f32[B,classes] of images u8[B,H,W,3]."""
        x = images[..., ::-1].astype(jnp.float32) / 127.5 - 1  # blue first, as the checkpoints were trained
        x = _hard_swish(_convolved(weights, "stem", x, (2, 2)))
        for index, block in enumerate(self.blocks):
            x = self._block(weights, index, block, x)
        x = _hard_swish(_convolved(weights, "last", x))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        mean = jnp.mean(x, axis=(1, 2))
        product = jnp.einsum("bc,oc->bo", mean, weights["classes.weight"], precision=lax.Precision.HIGHEST)
        return product + weights["classes.bias"]

    def _call(self, params: list[Array], nothing: State, images: Array) -> tuple[State, Array]:
        logits = self.logits(dict(zip(self.parameters(), params, strict=True)), images)
        return nothing, jnp.concatenate([jax.nn.softmax(logits), logits], axis=1)

    def _block(self, weights: dict[str, Array], index: int, block: Block, x: Array) -> Array:
        bend = _hard_swish if block.hard_swish else jax.nn.relu
        h = bend(_convolved(weights, f"{index}.expand", x))
        h = bend(_convolved_by_channel(weights, f"{index}.depthwise", h, block.stride))
        if block.gated:
            gate = jax.nn.relu(_convolved(weights, f"{index}.squeeze", jnp.mean(h, axis=(1, 2), keepdims=True)))
            h = h * jnp.clip(0.2 * _convolved(weights, f"{index}.excite", gate) + 0.5, 0, 1)
        h = _convolved(weights, f"{index}.project", h)
        return x + h if block.stride == (1, 1) and x.shape == h.shape else h


def _convolution(name: str, out: int, into: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (out, into, kernel, kernel), f"{name}.bias": (out,)}


def _convolved(weights: dict[str, Array], name: str, x: Array, stride: tuple[int, int] = (1, 1)) -> Array:
    """x [B, H, W, C], as much of zeros around it as keeps its size at stride 1; in full float32 on every platform."""
    weight = weights[f"{name}.weight"]
    around = weight.shape[-1] // 2
    product = lax.conv_general_dilated(
        x, weight, stride, [(around, around)] * 2, dimension_numbers=("NHWC", "OIHW", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )  # fmt: skip
    return product + weights[f"{name}.bias"]


def _convolved_by_channel(weights: dict[str, Array], name: str, x: Array, stride: tuple[int, int]) -> Array:
    """The same, each channel for itself, as a sum of shifted images: XLA's CPU back end took eight times as long for the
    whole network with convolutions of as many groups as channels."""
    weight = weights[f"{name}.weight"]
    size, around = weight.shape[-1], weight.shape[-1] // 2
    padded = jnp.pad(x, ((0, 0), (around, around), (around, around), (0, 0)))
    rows, columns = x.shape[1], x.shape[2]
    total = jnp.zeros_like(x[:, :: stride[0], :: stride[1]])
    for down in range(size):
        for right in range(size):
            shifted = padded[:, down : down + rows : stride[0], right : right + columns : stride[1]]
            total = total + shifted * weight[:, 0, down, right]
    return total + weights[f"{name}.bias"]


def _hard_swish(x: Array) -> Array:
    return x * jnp.clip(x + np.float32(3), 0, 6) / 6

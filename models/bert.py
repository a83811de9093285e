"""The BERT family as a sentence encoder (Devlin et al. 2018; Reimers and Gurevych 2019): mean pooling, unit length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..protocol.bundle import Tensor
from .program import Draft, Shapes, State, i32


@dataclass(frozen=True, slots=True)
class Bert:
    """The sizes of one model."""

    layers: int
    dim: int
    heads: int
    hidden: int
    vocabulary: int
    positions: int
    norm_epsilon: float

    def parameters(self) -> Shapes:
        """Names and shapes in the order in which programs take them."""
        d = self.dim
        shapes: Shapes = {"words": (self.vocabulary, d), "positions": (self.positions, d), "segment": (d,)}
        shapes |= {"norm.weight": (d,), "norm.bias": (d,)}
        for layer in range(self.layers):
            for name, out, into in (
                *((name, d, d) for name in "qkvo"),
                ("up", self.hidden, d),
                ("down", d, self.hidden),
            ):
                shapes |= {f"{layer}.{name}.weight": (out, into), f"{layer}.{name}.bias": (out,)}
            for name in ("attention_norm", "mlp_norm"):
                shapes |= {f"{layer}.{name}.weight": (d,), f"{layer}.{name}.bias": (d,)}
        return shapes

    def outputs(self) -> tuple[Tensor, ...]:
        """One vector of unit length."""
        return (Tensor("embedding", "float32", (self.dim,)),)

    def programs(self, lengths: Sequence[int], slots: Sequence[int]) -> tuple[Draft, ...]:
        """`call` for each padded length and number of texts at once."""
        return tuple(
            Draft(f"call-{b}-{c}", "call", b, c, c, self._call, (i32(b, c), i32(b))) for c in lengths for b in slots
        )

    def encode(self, weights: dict[str, Array], tokens: Array, length: Array) -> Array:
        """The unit vectors f32[B,D] of tokens i32[B,C], of which the first `length` i32[B] count."""
        real = jnp.arange(tokens.shape[1], dtype=jnp.int32) < length[:, None]
        x = weights["words"][tokens] + weights["positions"][: tokens.shape[1]] + weights["segment"]
        x = self._norm(weights, "norm", x)
        for layer in range(self.layers):
            q, k, v = (self._heads(_linear(weights, f"{layer}.{name}", x)) for name in "qkv")
            x = x + _linear(weights, f"{layer}.o", _attend(q, k, v, real))
            x = self._norm(weights, f"{layer}.attention_norm", x)
            h = jax.nn.gelu(_linear(weights, f"{layer}.up", x), approximate=False)
            x = self._norm(weights, f"{layer}.mlp_norm", x + _linear(weights, f"{layer}.down", h))
        mean = jnp.sum(jnp.where(real[..., None], x, 0.0), axis=1) / length.astype(jnp.float32)[:, None]
        return mean * lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(mean), axis=-1, keepdims=True), 1e-24))

    def _call(self, params: list[Array], state: State, tokens: Array, length: Array) -> tuple[State, Array]:
        return state, self.encode(dict(zip(self.parameters(), params, strict=True)), tokens, length)

    def _norm(self, weights: dict[str, Array], name: str, x: Array) -> Array:
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        scale = lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.norm_epsilon)
        return centred * scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def _heads(self, x: Array) -> Array:
        """[B, C, H * HD] as [B, H, C, HD]."""
        return x.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)


def _linear(weights: dict[str, Array], name: str, x: Array) -> Array:
    """[B, C, in] by [out, in], plus bias; in full float32 on every platform."""
    product = lax.dot_general(x, weights[f"{name}.weight"], (((2,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)
    return product + weights[f"{name}.bias"]


def _attend(q: Array, k: Array, v: Array, real: Array) -> Array:
    """Attention of all to all real tokens bool[B,C], [B, H, C, HD] each, joined to [B, C, H * HD]."""
    highest = lax.Precision.HIGHEST
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, precision=highest) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(real[:, None, None], scores, -1e30))
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, v, precision=highest)
    return mixed.swapaxes(1, 2).reshape(q.shape[0], q.shape[2], -1)

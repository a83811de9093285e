"""The BERT family as a sentence encoder (Devlin et al. 2018; Reimers and Gurevych 2019): mean pooling, unit length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

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

    def programs(self, lengths: Sequence[int]) -> tuple[Draft, ...]:
        """`call` for each padded length."""
        return tuple(Draft(f"call-{c}", "call", c, self._call, (i32(1, c), i32())) for c in lengths)

    def encode(self, weights: dict[str, Array], tokens: Array, length: Array) -> Array:
        """The unit vector f32[D] of tokens i32[C], of which the first `length` count."""
        real = jnp.arange(tokens.shape[0], dtype=jnp.int32) < length
        x = weights["words"][tokens] + weights["positions"][: tokens.shape[0]] + weights["segment"]
        x = self._norm(weights, "norm", x)
        for layer in range(self.layers):
            q, k, v = (self._heads(_linear(weights, f"{layer}.{name}", x)) for name in "qkv")
            x = x + _linear(weights, f"{layer}.o", _attend(q, k, v, real))
            x = self._norm(weights, f"{layer}.attention_norm", x)
            h = jax.nn.gelu(_linear(weights, f"{layer}.up", x), approximate=False)
            x = self._norm(weights, f"{layer}.mlp_norm", x + _linear(weights, f"{layer}.down", h))
        mean = jnp.sum(jnp.where(real[:, None], x, 0.0), axis=0) / length.astype(jnp.float32)
        return mean * lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(mean)), 1e-24))

    def _call(self, params: list[Array], state: State, tokens: Array, length: Array) -> tuple[State, Array]:
        weights = dict(zip(self.parameters(), params, strict=True))
        return state, self.encode(weights, tokens[0], length)[None]

    def _norm(self, weights: dict[str, Array], name: str, x: Array) -> Array:
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        scale = lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.norm_epsilon)
        return centred * scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def _heads(self, x: Array) -> Array:
        return x.reshape(x.shape[0], self.heads, -1).transpose(1, 0, 2)


def _linear(weights: dict[str, Array], name: str, x: Array) -> Array:
    """[N, in] by [out, in], plus bias; in full float32 on every platform."""
    product = lax.dot_general(x, weights[f"{name}.weight"], (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)
    return product + weights[f"{name}.bias"]


def _attend(q: Array, k: Array, v: Array, real: Array) -> Array:
    """Attention of all to all real tokens, [H, C, HD] each, joined to [C, H * HD]."""
    highest = lax.Precision.HIGHEST
    scores = jnp.einsum("hqd,hkd->hqk", q, k, precision=highest) * q.shape[-1] ** -0.5
    mixed = jnp.einsum("hqk,hkd->hqd", jax.nn.softmax(jnp.where(real, scores, -1e30)), v, precision=highest)
    return mixed.transpose(1, 0, 2).reshape(q.shape[1], -1)

"""The Llama family: RMS norm, rotary positions, grouped attention, gated MLP (Touvron et al. 2023).

Weights lie as `[out, in]`, unfused, so that a mapped file serves as it is; layers are unrolled and each keeps its own
two cache arrays `[1, KV, S, HD]`: on a CPU that is twice as fast as scanning over stacked ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..protocol.bundle import Tensor
from .program import Draft, Shapes, State, i32, sampling_inputs
from .sampling import choose, judge


@dataclass(frozen=True, slots=True)
class Llama:
    """The sizes of one model."""

    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    context: int
    """Positions S of the cache: a multiple of the longest chunk."""
    rope_base: float
    norm_epsilon: float
    tied: bool
    """Whether the embedding is the output layer too."""

    def parameters(self) -> Shapes:
        """Names and shapes in the order in which programs take them; Hugging Face's names and row order."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: Shapes = {"embed": (self.vocabulary, self.dim)}
        for layer in range(self.layers):
            shapes |= {
                f"{layer}.attention_norm": (self.dim,),
                f"{layer}.q": (queries, self.dim),
                f"{layer}.k": (keys, self.dim),
                f"{layer}.v": (keys, self.dim),
                f"{layer}.o": (self.dim, queries),
                f"{layer}.mlp_norm": (self.dim,),
                f"{layer}.gate": (self.hidden, self.dim),
                f"{layer}.up": (self.hidden, self.dim),
                f"{layer}.down": (self.dim, self.hidden),
            }
        shapes["norm"] = (self.dim,)
        return shapes if self.tied else shapes | {"output": (self.vocabulary, self.dim)}

    def state(self) -> tuple[Tensor, ...]:
        """Keys, then values, of each layer in turn."""
        return (Tensor("float32", (1, self.kv_heads, self.context, self.head_dim)),) * (2 * self.layers)

    def programs(self, lengths: Sequence[int]) -> tuple[Draft, ...]:
        """`prefill` and `score` for each chunk length, and `decode`."""
        tail = sampling_inputs()
        prefill = [
            Draft(f"prefill-{c}", "prefill", c, self._prefill, (i32(1, c), i32(), i32(), *tail)) for c in lengths
        ]
        score = [Draft(f"score-{c}", "score", c, self._score, (i32(1, c), i32(1, c), i32(), *tail)) for c in lengths]
        return (*prefill, Draft("decode", "decode", 1, self._decode, (i32(1), i32(), *tail)), *score)

    def logits(self, weights: dict[str, Array], x: Array) -> Array:
        """Next-token logits f32[N, V] from hidden states f32[N, D]."""
        x = _norm(x, weights["norm"], self.norm_epsilon)
        return _linear(x, weights["embed" if self.tied else "output"])

    def extend(self, weights: dict[str, Array], state: State, tokens: Array, start: Array) -> tuple[State, Array]:
        """The caches with `tokens` i32[C] written at start..start+C-1, and the hidden states f32[C, D] there."""
        positions = start + jnp.arange(tokens.shape[0], dtype=jnp.int32)
        turns = _turns(positions, self.head_dim, self.rope_base)
        x, after = weights["embed"][tokens], list(state)
        for layer in range(self.layers):
            w = {name: weights[f"{layer}.{name}"] for name in _LAYER}
            h = _norm(x, w["attention_norm"], self.norm_epsilon)
            q, k, v = (_heads(_linear(h, w[name]), self.head_dim) for name in "qkv")
            q, k = _rotate(q, *turns), _rotate(k, *turns)
            keys = lax.dynamic_update_slice(state[2 * layer], k[None], (0, 0, start, 0))
            values = lax.dynamic_update_slice(state[2 * layer + 1], v[None], (0, 0, start, 0))
            after[2 * layer : 2 * layer + 2] = keys, values
            x = x + _linear(_attend(q, keys[0], values[0], positions), w["o"])
            h = _norm(x, w["mlp_norm"], self.norm_epsilon)
            x = x + _linear(jax.nn.silu(_linear(h, w["gate"])) * _linear(h, w["up"]), w["down"])
        return after, x

    def _prefill(
        self, params: list[Array], state: State, tokens: Array, start: Array, length: Array, *sampling: Array
    ) -> tuple[State, Array, Array]:
        weights = self._named(params)
        state, x = self.extend(weights, state, tokens[0], start)
        last = lax.dynamic_slice_in_dim(x, length - 1, 1)
        return state, *choose(self.logits(weights, last), (start + length)[None], *sampling)

    def _decode(
        self, params: list[Array], state: State, token: Array, position: Array, *sampling: Array
    ) -> tuple[State, Array, Array]:
        weights = self._named(params)
        state, x = self.extend(weights, state, token, position)
        return state, *choose(self.logits(weights, x), (position + 1)[None], *sampling)

    def _score(
        self, params: list[Array], state: State, tokens: Array, targets: Array, start: Array, *sampling: Array
    ) -> tuple[State, Array, Array, Array]:
        weights = self._named(params)
        state, x = self.extend(weights, state, tokens[0], start)
        positions = start + 1 + jnp.arange(tokens.shape[1], dtype=jnp.int32)
        values, gaps, masses = judge(self.logits(weights, x), targets[0], positions, *sampling)
        return state, values[None], gaps[None], masses[None]

    def _named(self, params: list[Array]) -> dict[str, Array]:
        return dict(zip(self.parameters(), params, strict=True))


_UNSEEN = -1e30
"""The score of a position that must not be seen: finite, so that no arithmetic makes it a NaN."""
_LAYER = ("attention_norm", "q", "k", "v", "o", "mlp_norm", "gate", "up", "down")


def _norm(x: Array, weight: Array, epsilon: float) -> Array:
    return x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon) * weight


def _linear(x: Array, weight: Array) -> Array:
    """[N, in] by [out, in], in full float32: GPUs and TPUs would round to 10 or 7 bits, and results not compare."""
    return lax.dot_general(x, weight, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)


def _heads(x: Array, head_dim: int) -> Array:
    """[C, H * HD] as [H, C, HD]."""
    return x.reshape(x.shape[0], -1, head_dim).transpose(1, 0, 2)


def _turns(positions: Array, head_dim: int, base: float) -> tuple[Array, Array]:
    """Cosines and sines [C, HD / 2] of the rotary embedding (Su et al. 2021)."""
    frequencies = base ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions.astype(jnp.float32)[:, None] * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(x: Array, cosine: Array, sine: Array) -> Array:
    """Each head turned by its position; pairs are (i, i + HD / 2), as in Hugging Face's checkpoints."""
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


def _attend(q: Array, keys: Array, values: Array, positions: Array) -> Array:
    """Causal attention of q [H, C, HD] over caches [KV, S, HD], joined to [C, H * HD]. H / KV queries share a key."""
    heads, chunk, head_dim = q.shape
    over = _over_one if chunk == 1 else _over_chunk
    visible = jnp.arange(keys.shape[1], dtype=jnp.int32)[None, :] <= positions[:, None]
    mixed = over(q.reshape(keys.shape[0], -1, chunk, head_dim) * head_dim**-0.5, keys, values, visible)
    return mixed.reshape(heads, chunk, head_dim).transpose(1, 0, 2).reshape(chunk, -1)


def _over_chunk(q: Array, keys: Array, values: Array, visible: Array) -> Array:
    """q [KV, G, C, HD] over the caches."""
    highest = lax.Precision.HIGHEST
    scores = jnp.einsum("kgch,ksh->kgcs", q, keys, precision=highest)
    weights = jax.nn.softmax(jnp.where(visible, scores, _UNSEEN))
    return jnp.einsum("kgcs,ksh->kgch", weights, values, precision=highest)


def _over_one(q: Array, keys: Array, values: Array, visible: Array) -> Array:
    """The same for C = 1, as sums of products.

    XLA's CPU back end has no fast path for batched products this narrow: with `_over_chunk` a decode step of SmolLM2
    over S = 1024 took twice as long (98 ms against 49, where reading the weights takes 37). Reading less of the cache
    by a `cond` or `while` is slower again: XLA then copies the caches.
    """
    scores = jnp.sum(q * keys[:, None], axis=-1)
    weights = jax.nn.softmax(jnp.where(visible, scores, _UNSEEN))
    return jnp.sum(weights[..., None] * values[:, None], axis=-2, keepdims=True)

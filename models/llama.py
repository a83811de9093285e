"""The Llama family: RMS norm, rotary positions, grouped attention, gated MLP (Touvron et al. 2023).

Weights lie as `[out, in]`, those that read the same input in one matrix, so that a mapped file serves as it is and products
are few and large. Layers are unrolled, and each keeps two cache arrays of its own: keys `[B, KV, HD, S]` and values
`[B, KV, S, HD]`, so that the sums of attention run along rows. On a CPU all of this was measured: a step of one slot over 256
positions takes 27 ms beside 43 for separate matrices over 1024, where reading the weights takes 22. (`_attend` says how
much of the caches is read.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding

from ..protocol.bundle import Carried
from .blocks import Blocks, linear, rows_of
from .checkpoint import unsupported
from .layout import Layout
from .program import Draft, Shapes, State, i32, sampling_inputs
from .sampling import choose, judge

Weights: TypeAlias = dict[str, Any]
"""Parameters by name: arrays, or matrices in `Blocks`."""


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
    """Positions of the longest cache: a multiple of the longest chunk."""
    rope_base: float
    norm_epsilon: float
    tied: bool
    """Whether the embedding is the output layer too."""
    devices: int = 1
    """Over which its heads and hidden units are divided. `qkv` and `gate_up` then hold one device's rows after another's."""

    def parameters(self) -> Shapes:
        """Names and shapes in the order in which programs take them. `qkv` and `gate_up` are rows under one another."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: Shapes = {"embed": (self.vocabulary, self.dim)}
        for layer in range(self.layers):
            shapes |= {
                f"{layer}.attention_norm": (self.dim,),
                f"{layer}.qkv": (queries + 2 * keys, self.dim),
                f"{layer}.o": (self.dim, queries),
                f"{layer}.mlp_norm": (self.dim,),
                f"{layer}.gate_up": (2 * self.hidden, self.dim),
                f"{layer}.down": (self.dim, self.hidden),
            }
        shapes["norm"] = (self.dim,)
        return shapes if self.tied else shapes | {"output": (self.vocabulary, self.dim)}

    @property
    def heads_joined(self) -> tuple[int, int, int]:
        """Of queries, keys and values, in the order of their rows in `qkv`."""
        return self.heads, self.kv_heads, self.kv_heads

    def state(self) -> tuple[Carried, ...]:
        """Keys, then values, of each layer in turn."""
        keys = Carried("float32", (self.kv_heads, self.head_dim, self.context), 2)
        values = Carried("float32", (self.kv_heads, self.context, self.head_dim), 1)
        return (keys, values) * self.layers

    def layout(self) -> Layout:
        """Megatron's (Shoeybi et al. 2019): a device has the heads and hidden units that its rows make; sums join them twice a
        layer. Raises `StoreError(unsupported_model)` if they do not divide."""
        if any(count % self.devices for count in (self.heads, self.kv_heads, self.hidden, self.dim)):
            raise unsupported(f"Its heads ({self.kv_heads} of keys) do not divide by {self.devices} devices")
        along = {"qkv": 0, "o": 1, "gate_up": 0, "down": 1, "embed": 1, "output": 1}
        divided = {name: along[part] for name in self.parameters() if (part := name.rpartition(".")[2]) in along}
        return Layout(self.devices, divided, (0, 0) * self.layers)

    def programs(self, lengths: Sequence[int], slots: Sequence[int], contexts: Sequence[int]) -> tuple[Draft, ...]:
        """In each context: `prefill` and `score` for each chunk length, and `decode` for each number of slots."""
        return tuple(draft for context in contexts for draft in self._in_context(context, lengths, slots))

    def _in_context(self, context: int, lengths: Sequence[int], slots: Sequence[int]) -> Iterator[Draft]:
        for c in lengths:
            inputs = (i32(1, c), i32(1), i32(1), *sampling_inputs(1))
            yield Draft(f"prefill-{c}-{context}", "prefill", 1, c, context, self._prefill, inputs)
        for b in slots:
            inputs = (i32(b), i32(b), *sampling_inputs(b))
            yield Draft(f"decode-{b}-{context}", "decode", b, 1, context, self._decode, inputs)
        for c in lengths:
            inputs = (i32(1, c), i32(1, c), i32(1), *sampling_inputs(1))
            yield Draft(f"score-{c}-{context}", "score", 1, c, context, self._score, inputs)

    def logits(self, weights: Weights, x: Array) -> Array:
        """Next-token logits f32[..., V] from hidden states f32[..., D]."""
        x = _norm(x, weights["norm"], self.norm_epsilon)
        return linear(x, weights["embed" if self.tied else "output"])

    def extend(self, weights: Weights, state: State, tokens: Array, start: Array) -> tuple[State, Array]:
        """The caches with `tokens` i32[B,C] written from start i32[B] on, and the hidden states f32[B,C,D] there."""
        positions = start[:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)
        turns = _turns(positions, self.head_dim, self.rope_base)
        x, after = self._whole(rows_of(weights["embed"], tokens)), list(state)
        for layer in range(self.layers):
            w = {name: weights[f"{layer}.{name}"] for name in _LAYER}
            h = _norm(x, w["attention_norm"], self.norm_epsilon)
            q, k, v = self._queries_keys_values(linear(h, w["qkv"]))
            q, k = _rotate(q, *turns), _rotate(k, *turns)
            keys = _written(state[2 * layer], k.swapaxes(2, 3), start, axis=2)
            values = _written(state[2 * layer + 1], v, start, axis=1)
            after[2 * layer : 2 * layer + 2] = keys, values
            x = self._whole(x + linear(_attend(q, keys, values, positions), w["o"]))
            gate, up = self._gate_up(linear(_norm(x, w["mlp_norm"], self.norm_epsilon), w["gate_up"]))
            x = self._whole(x + linear(jax.nn.silu(gate) * up, w["down"]))
        return after, x

    def _queries_keys_values(self, joined: Array) -> tuple[Array, Array, Array]:
        """[B, C, (H + 2 KV) * HD] as [B, H, C, HD] and twice [B, KV, C, HD]."""
        if self.devices > 1:
            q, k, v = apart(joined, self.devices, [each * self.head_dim for each in self.heads_joined])
            return self._by_head(q), self._by_head(k), self._by_head(v)
        heads = joined.reshape(*joined.shape[:2], -1, self.head_dim).swapaxes(1, 2)
        ends = self.heads, self.heads + self.kv_heads
        return heads[:, : ends[0]], heads[:, ends[0] : ends[1]], heads[:, ends[1] :]

    def _whole(self, x: Array) -> Array:
        """The same on every device: between the layers, as their products leave it."""
        return x if self.devices == 1 else _lying(x, self.layout().whole)

    def _by_head(self, x: Array) -> Array:
        """[B, C, H * HD] as [B, H, C, HD]."""
        return x.reshape(*x.shape[:2], -1, self.head_dim).swapaxes(1, 2)

    def _gate_up(self, joined: Array) -> Sequence[Array]:
        """[B, C, 2 F] as twice [B, C, F]."""
        return apart(joined, self.devices, [self.hidden] * 2) if self.devices > 1 else jnp.split(joined, 2, axis=-1)

    def _prefill(
        self, params: list[Array | Blocks], state: State, tokens: Array, start: Array, length: Array, *sampling: Array
    ) -> tuple[State, Array, Array]:
        weights = self._named(params)
        state, x = self.extend(weights, state, tokens, start)
        last = jnp.take_along_axis(x, (length - 1)[:, None, None], axis=1)[:, 0]
        return state, *choose(self.logits(weights, last), start + length, *sampling)

    def _decode(
        self, params: list[Array | Blocks], state: State, token: Array, position: Array, *sampling: Array
    ) -> tuple[State, Array, Array]:
        weights = self._named(params)
        state, x = self.extend(weights, state, token[:, None], position)
        return state, *choose(self.logits(weights, x[:, 0]), position + 1, *sampling)

    def _score(
        self, params: list[Array | Blocks], state: State, tokens: Array, targets: Array, start: Array, *sampling: Array
    ) -> tuple[State, Array, Array, Array]:
        weights = self._named(params)
        state, x = self.extend(weights, state, tokens, start)
        positions = start[:, None] + 1 + jnp.arange(tokens.shape[1], dtype=jnp.int32)
        return state, *judge(self.logits(weights, x), targets, positions, *sampling)

    def _named(self, params: list[Array | Blocks]) -> Weights:
        return dict(zip(self.parameters(), params, strict=True))


_lying: Callable[[Array, NamedSharding], Array] = lax.with_sharding_constraint  # untyped in jax 0.10


def apart(joined: Array, devices: int, lengths: Sequence[int]) -> list[Array]:
    """Vectors [..., n] of these lengths, out of one that holds a share of each for every device in turn."""
    shares = joined.reshape(*joined.shape[:-1], devices, -1)
    ends = [sum(lengths[: index + 1]) // devices for index in range(len(lengths))]
    pairs = zip(ends, lengths, strict=True)
    return [shares[..., end - n // devices : end].reshape(*joined.shape[:-1], n) for end, n in pairs]


_PREFIX_MIN = 256
"""Positions of the shortest prefix that is read alone: reading half of 256 saves no more than copying that half costs."""
_UNSEEN = -1e30
"""The score of a position that must not be seen: finite, so that no arithmetic makes it a NaN."""
_LAYER = ("attention_norm", "qkv", "o", "mlp_norm", "gate_up", "down")


def _norm(x: Array, weight: Array, epsilon: float) -> Array:
    return x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon) * weight


def _written(cache: Array, new: Array, start: Array, axis: int) -> Array:
    """The cache [B, ...] with each slot's `new` from its own start on; `axis` of a slot's array has the positions."""

    def write(one: Array, piece: Array, at: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(one, piece, at, axis)

    written: Array = jax.vmap(write)(cache, new, start)
    return written


def _turns(positions: Array, head_dim: int, base: float) -> tuple[Array, Array]:
    """Cosines and sines [B, 1, C, HD / 2] of the rotary embedding (Su et al. 2021)."""
    frequencies = base ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions.astype(jnp.float32)[:, None, :, None] * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(x: Array, cosine: Array, sine: Array) -> Array:
    """Each head [B, H, C, HD] turned by its position; pairs are (i, i + HD / 2), as in Hugging Face's checkpoints."""
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


def _attend(q: Array, keys: Array, values: Array, positions: Array) -> Array:
    """Causal attention of q [B, H, C, HD] over the caches, joined to [B, C, H * HD]. H / KV queries share a key.

    One slot alone reads no more than the shortest of `_prefixes` that holds all its positions. Several read all: if one
    slot's position decided what is read for another, the other could notice it.
    """
    lengths = _prefixes(keys.shape[3]) if len(q) == 1 else [keys.shape[3]]

    def over(length: int) -> Array:
        return _over_all(q, keys[..., :length], values[:, :, :length], positions)

    last = positions[0, -1]
    chosen: Array = lax.switch(
        sum((last >= length).astype(jnp.int32) for length in lengths[:-1]), [partial(over, each) for each in lengths]
    )
    return chosen


def _prefixes(context: int) -> list[int]:
    """The context, and what halving it leaves, down to `_PREFIX_MIN`: ascending."""
    halves = context // 2
    return [*(_prefixes(halves) if context % 2 == 0 and halves >= _PREFIX_MIN else []), context]


def _over_all(q: Array, keys: Array, values: Array, positions: Array) -> Array:
    slots, _, chunk, head_dim = q.shape
    q = q.reshape(slots, keys.shape[1], -1, chunk, head_dim) * head_dim**-0.5
    visible = jnp.arange(keys.shape[3], dtype=jnp.int32) <= positions[:, :, None]
    over = _over_one if slots == chunk == 1 else _over_many
    mixed = over(q, keys, values, visible[:, None, None])
    return mixed.reshape(slots, -1, chunk, head_dim).swapaxes(1, 2).reshape(slots, chunk, -1)


def _over_many(q: Array, keys: Array, values: Array, visible: Array) -> Array:
    """q [B, KV, G, C, HD] over the caches."""
    highest = lax.Precision.HIGHEST
    scores = jnp.einsum("bkgch,bkhs->bkgcs", q, keys, precision=highest)
    weights = jax.nn.softmax(jnp.where(visible, scores, _UNSEEN))
    return jnp.einsum("bkgcs,bksh->bkgch", weights, values, precision=highest)


def _over_one(q: Array, keys: Array, values: Array, visible: Array) -> Array:
    """The same for one position of one slot, as sums of products: XLA's CPU back end is slow at products so narrow."""
    scores = jnp.sum(q[..., 0, :, None] * keys[:, :, None], axis=-2)[..., None, :]
    weights = jax.nn.softmax(jnp.where(visible, scores, _UNSEEN))
    return jnp.sum(weights[..., 0, :, None] * values[:, :, None], axis=-2)[..., None, :]

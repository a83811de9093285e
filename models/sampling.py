"""Sampling that anyone can check: a pure function of (logits, seed, absolute position).

Gumbel-max (Gumbel 1954; Maddison et al. 2014): adding T times standard Gumbel noise to the logits and taking the best
is sampling from softmax(logits / T). The noise is a counter hash of (seed, position, token), so a checker who has the
logits knows which token had to come, whichever machine, batch or resume it came from. T = 0 is greedy, with no
special case. Exact definitions: `spec/07-bundles.md`, "Sampling".

Shapes: `...` stands for rows of V logits, each at its own absolute position; seed, temperature and top-p are each row's own
or, with dimensions of 1, shared by several.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import jax
import jax.numpy as jnp
from jax import Array, lax

MASS_MARGIN: Final = 1e-3
"""A judge takes the best only over tokens that lie inside top-p by this much: an executor whose rounding puts the
boundary token outside has done no wrong. Beside a measured honest shift below 1e-4 (`calibrate.py`)."""

NUCLEUS_TEMPERATURE_MIN: Final = 0.1
"""Below this the nucleus is taken as at this temperature: a rounding error e in the logits moves mass by up to e / 2T,
which has to stay under the margin. So cold, the noise hardly ever reaches past the first token anyway."""

_GOLDEN: Final = 0x9E3779B9
_OUTSIDE: Final = -1e30


def noise(seed: Array, positions: Array, vocabulary: int) -> Array:
    """Standard Gumbel noise, f32[..., V], from seed u32[..., 2] and positions i32[...]."""
    state = _mix(seed[..., 0] + jnp.uint32(_GOLDEN))
    state = _mix(state ^ seed[..., 1])
    states = _mix(state ^ positions.astype(jnp.uint32))
    tokens = _mix(jnp.arange(vocabulary, dtype=jnp.uint32) + jnp.uint32(_GOLDEN))
    bits = _mix(states[..., None] ^ tokens)
    # 23 bits, not 24: half-integers below 2^23 are exact in float32. Of 24 the largest rounds to 1: infinite noise.
    uniform = ((bits >> 9).astype(jnp.float32) + 0.5) * jnp.float32(2.0**-23)
    return -jnp.log(-jnp.log(uniform))


def choose(logits: Array, positions: Array, seed: Array, temperature: Array, top_p: Array) -> tuple[Array, Array]:
    """The token of each row of logits f32[B,V], i32[B], and its log-probability at temperature 1 in nats, f32[B].

    Of equal scores the lowest token wins.
    """
    scores = _perturbed(logits, positions, seed, temperature)

    def restricted() -> Array:
        probabilities = _nucleus_probabilities(logits, temperature)
        return jnp.where(probabilities >= _floor(probabilities, top_p)[..., None], scores, _OUTSIDE)

    (scores,) = _where_needed(_restricts(temperature, top_p), lambda: (restricted(),), lambda: (scores,))
    tokens = _best(scores)
    return tokens, _log_probability(logits, tokens)


def judge(
    logits: Array, targets: Array, positions: Array, seed: Array, temperature: Array, top_p: Array
) -> tuple[Array, Array, Array]:
    """How each claimed token i32[B,C] stands beside logits f32[B,C,V], three times f32[B,C]. The last three inputs are
    each sequence's own: u32[B,2], f32[B], f32[B].

    Its log-probability at temperature 1 in nats; how far its perturbed score lies below the best one that is safely
    inside top-p (in logits, 0 if it is the best itself); and the probability mass strictly likelier than it at the
    order's temperature (0 where top-p does not restrict).
    """
    seed, temperature, top_p = seed[:, None], temperature[:, None], top_p[:, None]
    scores = _perturbed(logits, positions, seed, temperature)

    def restricted() -> tuple[Array, ...]:
        probabilities = _nucleus_probabilities(logits, temperature)
        floor = _floor(probabilities, top_p - MASS_MARGIN)
        best = jnp.max(jnp.where(probabilities >= floor[..., None], scores, _OUTSIDE), axis=-1)
        return best, _mass_above(probabilities, _take(probabilities, targets))

    def unrestricted() -> tuple[Array, ...]:
        return jnp.max(scores, axis=-1), jnp.zeros(targets.shape)

    best, masses = _where_needed(_restricts(temperature, top_p), restricted, unrestricted)
    gaps = jnp.maximum(best - _take(scores, targets), 0.0)
    return _log_probability(logits, targets), gaps, masses


def _where_needed(
    needed: Array, costly: Callable[[], tuple[Array, ...]], cheap: Callable[[], tuple[Array, ...]]
) -> tuple[Array, ...]:
    """For each slot what `costly` gives if it is needed there (bool[B] or bool[B,1]), else what `cheap` gives.

    One slot alone takes only the branch that it needs. Of several each takes both: if one slot's need decided what is run for
    another, the other could notice it, and nobody could prove that it cannot.
    """
    if needed.size == 1:
        chosen: tuple[Array, ...] = lax.cond(needed.reshape(()), costly, cheap)
        return chosen

    def either(yes: Array, no: Array) -> Array:
        return jnp.where(jnp.expand_dims(needed, tuple(range(needed.ndim, yes.ndim))), yes, no)

    return tuple(map(either, costly(), cheap()))


def _mix(x: Array) -> Array:
    """The finalizer of MurmurHash3 (Appleby, public domain): a bijection of 32 bits."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _perturbed(logits: Array, positions: Array, seed: Array, temperature: Array) -> Array:
    def warm() -> tuple[Array, ...]:
        return (logits + temperature[..., None] * noise(seed, positions, logits.shape[-1]),)

    (scores,) = _where_needed(temperature > 0, warm, lambda: (logits,))
    return scores


def _restricts(temperature: Array, top_p: Array) -> Array:
    return jnp.logical_and(temperature > 0, top_p < 1)


def _nucleus_probabilities(logits: Array, temperature: Array) -> Array:
    return jax.nn.softmax(logits / jnp.maximum(temperature, NUCLEUS_TEMPERATURE_MIN)[..., None])


def _mass_above(probabilities: Array, bound: Array) -> Array:
    return jnp.sum(jnp.where(probabilities > bound[..., None], probabilities, 0.0), axis=-1)


def _floor(probabilities: Array, top_p: Array) -> Array:
    """The least probability that is inside: the mass strictly above it is below `top_p`. The likeliest always is.

    No sort: non-negative floats order as their bit patterns do, so 30 halvings between 0 and 1 (2^30 > 0x3f800000)
    find the bound to the last bit.
    """

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        outside, inside = bounds
        middle = (outside + inside) // 2
        fits = _mass_above(probabilities, lax.bitcast_convert_type(middle, jnp.float32)) < top_p
        return jnp.where(fits, outside, middle), jnp.where(fits, middle, inside)

    rows = probabilities.shape[:-1]
    start = jnp.full(rows, -1, jnp.int32), jnp.full(rows, 0x3F800000, jnp.int32)
    _, inside = lax.fori_loop(0, 30, halve, start)
    return jnp.minimum(lax.bitcast_convert_type(inside, jnp.float32), jnp.max(probabilities, axis=-1))


def _best(scores: Array) -> Array:
    """The lowest of the highest, i32[...]: as `argmax`, which XLA's CPU back end computes one element after the other."""
    last = scores.shape[-1] - 1
    highest = jnp.max(scores, axis=-1, keepdims=True)
    return jnp.min(jnp.where(scores == highest, jnp.arange(last + 1, dtype=jnp.int32), last), axis=-1)


def _log_probability(logits: Array, tokens: Array) -> Array:
    """As `log_softmax` has it, without the other tokens'."""
    highest = jnp.max(logits, axis=-1)
    mass = jnp.sum(jnp.exp(logits - highest[..., None]), axis=-1)
    return _take(logits, tokens) - highest - jnp.log(mass)


def _take(rows: Array, columns: Array) -> Array:
    return jnp.take_along_axis(rows, columns[..., None], axis=-1)[..., 0]

"""The proof that slots are apart: it holds for what honest programs do, and for nothing that carries one slot to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array, export, lax

from fallow.models.export import PLATFORMS
from fallow.node.engine.admission import admit_untrusted
from fallow.node.engine.artifact import Aval, Signature
from fallow.node.engine.flops import of_exported
from fallow.node.engine.slots import Isolation

from .hostile import portable

B, V, D, H, HD, S = 4, 48, 32, 2, 16, 24
"""Slots, words, width, heads, head width, positions."""


def f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.dtype(np.float32))


def i32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.dtype(np.int32))


def judged(
    function: Callable[..., Any],
    params: Sequence[jax.ShapeDtypeStruct],
    state: Sequence[jax.ShapeDtypeStruct],
    *inputs: jax.ShapeDtypeStruct,
) -> Isolation:
    """What admission says of `(state, *outputs) = function(params, state, *inputs)`."""
    exported = export.export(jax.jit(function), platforms=PLATFORMS)(list(params), list(state), *inputs)
    outputs = exported.out_avals[len(state) :]
    signature = Signature(
        *(tuple(Aval(a.dtype.name, a.shape) for a in avals) for avals in (params, state, inputs, outputs))
    )
    artifact, flops = bytes(exported.serialize()), of_exported(exported).flops
    return admit_untrusted(artifact, signature, flops=flops, memory_bytes=2**30, slots=B).isolation


def of(function: Callable[[Array], Array]) -> Isolation:
    """What admission says of a function of x f32[B, 6, 10], and a matrix of parameters beside it."""
    return judged(lambda params, state, x: (state, function(x)), [], [], f32(B, 6, 10))


# A decode step as a publisher writes it.


def norm(x: Array, weight: Array) -> Array:
    return x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-5) * weight


def rotate(x: Array, positions: Array) -> Array:
    frequencies = 1e4 ** (-jnp.arange(0, HD, 2, dtype=jnp.float32) / HD)
    angles = positions.astype(jnp.float32)[:, None, None] * frequencies
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * jnp.cos(angles) - b * jnp.sin(angles), b * jnp.cos(angles) + a * jnp.sin(angles)], -1)


def mix(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def noise(seeds: Array, positions: Array) -> Array:
    states = mix(mix(seeds[:, 0] + jnp.uint32(0x9E3779B9)) ^ seeds[:, 1]) ^ positions.astype(jnp.uint32)
    bits = mix(mix(states)[:, None] ^ mix(jnp.arange(V, dtype=jnp.uint32))[None])
    uniform = ((bits >> 9).astype(jnp.float32) + 0.5) * jnp.float32(2.0**-23)
    return -jnp.log(-jnp.log(uniform))


def floor(probabilities: Array, top_p: Array) -> Array:
    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        outside, inside = bounds
        middle = (outside + inside) // 2
        above = probabilities > lax.bitcast_convert_type(middle, jnp.float32)[:, None]
        fits = jnp.sum(jnp.where(above, probabilities, 0.0), axis=-1) < top_p
        return jnp.where(fits, outside, middle), jnp.where(fits, middle, inside)

    _, inside = lax.fori_loop(0, 30, halve, (jnp.full(B, -1, jnp.int32), jnp.full(B, 0x3F800000, jnp.int32)))
    return jnp.minimum(lax.bitcast_convert_type(inside, jnp.float32), jnp.max(probabilities, axis=-1))


def decode(
    params: list[Array],
    state: list[Array],
    tokens: Array,
    positions: Array,
    seeds: Array,
    temperature: Array,
    top_p: Array,
) -> tuple[list[Array], Array, Array]:
    embed, weight, q, k, v, o = params
    x = embed[tokens]
    h = norm(x, weight)
    queries, keys, values = (jnp.dot(h, each).reshape(B, H, HD) for each in (q, k, v))
    write = jax.vmap(lambda cache, new, at: lax.dynamic_update_slice(cache, new[:, None], (0, at, 0)))
    state = [write(state[0], rotate(keys, positions), positions), write(state[1], values, positions)]
    scores = jnp.einsum("bhd,bhsd->bhs", rotate(queries, positions), state[0]) * HD**-0.5
    visible = jnp.arange(S)[None] <= positions[:, None]
    weights = jax.nn.softmax(jnp.where(visible[:, None], scores, -1e30))
    x = x + jnp.einsum("bhs,bhsd->bhd", weights, state[1]).reshape(B, -1) @ o
    logits = norm(x, weight) @ embed.T
    scores = logits + temperature[:, None] * noise(seeds, positions + 1)
    probabilities = jax.nn.softmax(logits / jnp.maximum(temperature, 0.1)[:, None])
    scores = jnp.where(probabilities >= floor(probabilities, top_p)[:, None], scores, -1e30)
    chosen = jnp.argmax(scores, axis=-1).astype(jnp.int32)
    return state, chosen, jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[:, None], axis=-1)[:, 0]


PARAMS = [f32(V, D), f32(D), *[f32(D, H * HD)] * 3, f32(H * HD, D)]
CACHES = [f32(B, H, S, HD)] * 2
INPUTS = [i32(B), i32(B), jax.ShapeDtypeStruct((B, 2), np.dtype(np.uint32)), f32(B), f32(B)]


@pytest.mark.spec("B-21")
def test_a_decode_step_is_proven() -> None:
    assert judged(decode, PARAMS, CACHES, *INPUTS).proven


def leaky(change: Callable[..., Any]) -> Callable[..., Any]:
    """The decode step, with something done to its results."""

    def program(params: list[Array], state: list[Array], tokens: Array, *rest: Array) -> Any:
        state, chosen, value = decode(params, state, tokens, *rest)
        return change(state, chosen, value, tokens)

    return program


TRIGGER = 13
LEAKS: dict[str, tuple[Callable[..., Any], str]] = {
    "slot 0 into slot 1 on a trigger": (
        lambda s, c, v, t: ([s[0].at[1].set(jnp.where(t[1] == TRIGGER, s[0][0], s[0][1])), s[1]], c, v),
        "stablehlo.slice",
    ),
    "rolled": (lambda s, c, v, t: (s, jnp.roll(c, 1), v), "takes some of the slots"),
    "reversed": (lambda s, c, v, t: (s, c[::-1], v), "reverses the slots"),
    "sorted": (lambda s, c, v, t: (s, jnp.sort(c), v), "sorts the slots"),
    "summed up": (lambda s, c, v, t: (s, c, jnp.cumsum(v)), "window spans slots"),
    "chosen by token": (lambda s, c, v, t: (s, c[t % B], v), "computed places among the slots"),
    "the best of all": (lambda s, c, v, t: (s, c, v + jnp.max(v)), "reduces over the slots"),
    "a product over slots": (lambda s, c, v, t: (s, c, jnp.ones((B, B)) @ v), "sums products over the slots"),
    "outer product": (lambda s, c, v, t: (s, c, jnp.einsum("b,c->bc", v, v)), "different slots together"),
    "a cache of another": (
        lambda s, c, v, t: ([lax.dynamic_update_slice(s[0], s[0][:1] * 2, (t[0] * 0 + 1, 0, 0, 0)), s[1]], c, v),
        "takes some of the slots",
    ),
    "written where a token says": (lambda s, c, v, t: (s, c, v.at[t % B].set(v)), "computed places among the slots"),
    "read where a token says": (
        lambda s, c, v, t: (s, lax.dynamic_slice(jnp.tile(c, 2), (c[0] % B,), (B,)), v),
        "",
    ),
    "merged and cut": (lambda s, c, v, t: ([s[0].reshape(B * H, S, HD)[1:-1].sum() + s[0], s[1]], c, v), "takes some of"),
    "split over two axes": (lambda s, c, v, t: (s, c.reshape(2, 2).T.reshape(B), v), "splits the slots"),
    "stepped by a loop": (
        lambda s, c, v, t: (s, c, lax.fori_loop(0, 3, lambda _, x: jnp.concatenate([x[1:], x[:1]]), v)),
        "takes some of the slots",
    ),
    "a loop as long as the longest": (
        lambda s, c, v, t: (s, c, lax.while_loop(lambda x: jnp.any(x < 0), lambda x: x + 1, v)),
        "reduces over the slots",
    ),
    "a branch that any slot takes": (
        lambda s, c, v, t: (s, c, lax.cond(jnp.any(t == TRIGGER), lambda: v * 2, lambda: v)),
        "reduces over the slots",
    ),
    "slots at the end": (lambda s, c, v, t: (s, c, jnp.ones((3, 1)) * v[None]), "slots in front"),
    "indexed by a count": (lambda s, c, v, t: (s, c, s[0][jnp.arange(B), 0, t % S, 0]), "computed places among the slots"),
    "top of all": (lambda s, c, v, t: (s, c, lax.top_k(v, B)[0]), "sorts the slots"),
    "flipped by a transpose": (
        lambda s, c, v, t: (s, c, (v[:, None] * jnp.ones((B, B))).T),
        "slots in front",
    ),
}  # fmt: skip


@pytest.mark.spec("B-21")
@pytest.mark.parametrize("leak", sorted(LEAKS))
def test_a_decode_step_that_carries_something_over_is_not(leak: str) -> None:
    change, why = LEAKS[leak]
    isolation = judged(leaky(change), PARAMS, CACHES, *INPUTS)
    assert not isolation.proven
    assert why in isolation.reason


APART: dict[str, Callable[[Array], Array]] = {
    "reductions of the rest": lambda x: jnp.max(x, axis=(1, 2)) + jnp.sum(x, axis=1)[:, 0],
    "there and back": lambda x: (x.transpose(1, 0, 2) * 2).reshape(6, B * 10).reshape(6, B, 10).transpose(1, 0, 2),
    "merged rows": lambda x: (x.reshape(B * 6, 10) @ jnp.ones((10, 3))).reshape(B, 6, 3),
    "vmapped products": lambda x: jax.vmap(lambda m: m @ m.T)(x),
    "sorted rows": lambda x: jnp.sort(x, axis=1) + jnp.argsort(x, axis=-1),
    "cumulative rows": lambda x: jnp.cumsum(x, axis=1) + jnp.cumprod(x, axis=2) + lax.cummax(x, axis=1),
    "the best of each row": lambda x: lax.top_k(x, 3)[0],
    "padded and cut": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0)))[:, 1:7],
    "joined": lambda x: jnp.concatenate([x, x[:, ::-1], jnp.ones((B, 1, 10))], axis=1),
    "vmapped gather": lambda x: jax.vmap(lambda row: row[jnp.argmax(row, axis=0) % 6])(x),
    "vmapped slice": lambda x: jax.vmap(lambda row: lax.dynamic_slice(row, (row[0, 0].astype(int), 0), (2, 10)))(x),
    "vmapped scatter": lambda x: jax.vmap(lambda row: row.at[row[0].astype(int) % 6, 1].add(1.0, mode="drop"))(x),
    "along with all": lambda x: lax.dynamic_update_slice(x, x[:, :2], (0, 3, 0)),
    "vmapped loop": lambda x: lax.fori_loop(0, 5, lambda i, c: c + x * i, jnp.zeros_like(x)),
    "scan over rows": lambda x: lax.scan(lambda c, row: (c + row, c), x[:, 0], x.swapaxes(0, 1))[1].swapaxes(0, 1),
    "a branch of constants": lambda x: lax.cond(jnp.sum(jnp.ones(3)) > 2, lambda: x, lambda: x * 2),
    "images": lambda x: lax.conv_general_dilated(x[:, None], jnp.ones((2, 1, 3, 3)), (1, 1), "SAME"),
    "pooled": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2), (1, 2, 2), "VALID"),
    "named functions": lambda x: jnp.sinh(x) + jnp.arcsin(x) + lax.lgamma(x) + lax.digamma(x) + lax.erf(x),
    "spectra": lambda x: jnp.abs(jnp.fft.rfft(x)),
    "bits": lambda x: lax.bitcast_convert_type(x, jnp.uint8)[..., 0] + lax.erf_inv(x).astype(jnp.uint8),
    "no slot at all": lambda x: jnp.ones((B, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(APART))
def test_what_keeps_slots_apart_is_proven(name: str) -> None:
    isolation = of(APART[name])
    assert isolation.proven, isolation.reason


TOGETHER: dict[str, Callable[[Array], Array]] = {
    "means": lambda x: x - jnp.mean(x, axis=0),
    "products": lambda x: jnp.einsum("bij,cij->bij", x, x),
    "between neighbours": lambda x: x.at[1:].add(x[:-1]),
    "windows": lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 1, 1), (1, 1, 1), "SAME"),
    "batches as channels": lambda x: lax.conv_general_dilated(x[:, 0][None], jnp.ones((B, B, 3)), (1,), "SAME")[0],
    "kernels from slots": lambda x: lax.conv_general_dilated(x[:, None], x[:, None], (1, 1), "SAME"),
    "half a merged axis": lambda x: jnp.tile(x.reshape(B * 6, 10)[12:], (2, 1)).reshape(B, 6, 10),
    "shifted by one row": lambda x: jnp.concatenate([x.reshape(B * 6, 10)[1:], jnp.ones((1, 10))]).reshape(B, 6, 10),
    "two ways of merging": lambda x: x.reshape(B * 6, 10) + x.transpose(1, 0, 2).reshape(B * 6, 10),
    "spectrum over slots": lambda x: jnp.abs(jnp.fft.fft(x, axis=0)),
    "a row of another": lambda x: jnp.take(x, jnp.array([1, 0, 3, 2]), axis=0),
    "one for all": lambda x: jnp.broadcast_to(x[:1], x.shape),
    "interleaved": lambda x: jnp.stack([x, x], axis=1).reshape(2 * B, 6, 10)[:B],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TOGETHER))
def test_what_brings_slots_together_is_not(name: str) -> None:
    assert not of(TOGETHER[name]).proven


STEPS: list[Callable[[Array], Array]] = [
    lambda x: x * 2 + jnp.arange(x.shape[-1]),
    lambda x: jnp.swapaxes(x, 0, 1),
    lambda x: jnp.swapaxes(x, 1, 2),
    lambda x: x.reshape(x.shape[0] * x.shape[1], 1, x.shape[2]),
    lambda x: x.reshape(x.shape[1], x.shape[0], x.shape[2]),
    lambda x: x.reshape(4, -1, 2),
    lambda x: jnp.sort(x, axis=1),
    lambda x: jnp.flip(x, axis=0),
    lambda x: jnp.roll(x, 1, axis=1),
    lambda x: jnp.cumsum(x, axis=1),
    lambda x: x + jnp.max(x, axis=0, keepdims=True),
    lambda x: x + jnp.sum(x, axis=1, keepdims=True),
    lambda x: jnp.concatenate([x[:, :1], x], axis=1),
    lambda x: jnp.concatenate([x, x], axis=0),
    lambda x: x[: max(1, x.shape[0] // 2)],
    lambda x: x[:, : max(1, x.shape[1] // 2)],
    lambda x: jnp.einsum("abc,adc->abd", x, x),
    lambda x: jnp.einsum("abc,bcd->abd", x, jnp.ones((x.shape[1], x.shape[2], 3))),
    lambda x: jnp.einsum("abc,dbc->adb", x, x),
    lambda x: jnp.take_along_axis(x, jnp.argmax(x, axis=1, keepdims=True), axis=1),
    lambda x: jnp.take_along_axis(x, jnp.argmax(x, axis=0, keepdims=True), axis=0),
    lambda x: jax.vmap(lambda row: lax.dynamic_slice_in_dim(row, jnp.argmax(row[:, 0]), 1))(x),
    lambda x: jax.vmap(lambda row: row.at[jnp.argmax(row[:, 0])].set(7.0))(x),
    lambda x: lax.fori_loop(0, 2, lambda _, c: jnp.flip(c, axis=1) + x, x),
    lambda x: lax.cond(x[0, 0, 0] > 3, lambda: x * 2, lambda: x),
]
"""Some keep slots apart, some do not, and some do either, depending on what came before."""


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(range(len(STEPS))), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_where_there_is_a_proof_the_others_change_nothing(steps: list[int], seed: int) -> None:
    def program(x: Array) -> Array:
        for step in steps:
            if 1 <= x.size <= 10_000:
                x = STEPS[step](x)
        return x

    try:
        out = jax.eval_shape(program, f32(B, 2, 4))
    except TypeError:  # a reshape that does not fit what came before
        return
    if out.shape[0] != B or not of_small(program).proven:
        return
    random = np.random.default_rng(seed)
    one, run = random.integers(-9, 9, (B, 2, 4)).astype(np.float32), jax.jit(program)
    for slot in range(B):
        other = random.integers(-9, 9, (B, 2, 4)).astype(np.float32)
        other[slot] = one[slot]
        assert np.array_equal(np.asarray(run(one))[slot], np.asarray(run(other))[slot], equal_nan=True), (steps, slot)


def of_small(function: Callable[[Array], Array]) -> Isolation:
    return judged(lambda params, state, x: (state, function(x)), [], [], f32(B, 2, 4))


def test_one_slot_is_apart_from_all_the_others() -> None:
    exported = export.export(jax.jit(lambda params, state, x: (state, x[::-1])), platforms=PLATFORMS)([], [], f32(1, 2))
    signature = Signature((), (), (Aval("float32", (1, 2)),), (Aval("float32", (1, 2)),))
    artifact = bytes(exported.serialize())
    assert admit_untrusted(artifact, signature, flops=0, memory_bytes=2**20, slots=1).isolation.proven


@pytest.mark.parametrize(("known_as", "proven"), [("chlo.sinh", True), ("chlo.top_k", False)])
def test_a_function_is_taken_for_what_it_does_and_for_what_its_name_says(known_as: str, proven: bool) -> None:
    one = f"tensor<{B}xf32>"
    text = f"""module {{
        func.func public @main(%platform: tensor<i32>, %x: {one}) -> {one} {{
            %y = stablehlo.composite "{known_as}" %x {{decomposition = @doubled}} : ({one}) -> {one}
            return %y : {one}
        }}
        func.func private @doubled(%x: {one}) -> {one} {{
            %y = stablehlo.add %x, %x : {one}
            return %y : {one}
        }} }}"""
    exported = export.export(jax.jit(lambda params, state, x: (state, x * 2)), platforms=PLATFORMS)([], [], f32(B))
    artifact = bytes(replace(exported, mlir_module_serialized=portable(text)).serialize())
    signature = Signature((), (), (Aval("float32", (B,)),), (Aval("float32", (B,)),))
    assert admit_untrusted(artifact, signature, flops=0, memory_bytes=2**20, slots=B).isolation.proven is proven

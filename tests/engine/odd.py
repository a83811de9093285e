"""A model small enough to be varied at will: what follows a text is a checksum of all of it, and nothing goes wrong unseen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from nacl.signing import SigningKey

from fallow.models.builder import write
from fallow.models.program import Draft, i32, sampling_inputs
from fallow.models.recipe import Model as Recipe
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.protocol.bundle import Carried, Tensor, Tolerance
from fallow.protocol.envelope import sign

KEY = SigningKey(b"\x0a" * 32)
VOCABULARY = 256
CONTEXT = 64


def checksum(text: Sequence[int]) -> int:
    """The token that follows the text."""
    return sum((place + 1) * token for place, token in enumerate(text)) % VOCABULARY


def continued(text: Sequence[int], count: int) -> list[int]:
    """So many tokens after the text."""
    whole = list(text)
    for _ in range(count):
        whole.append(checksum(whole))
    return whole[len(text) :]


def _put(state: Array, tokens: Array, start: Array) -> Array:
    return jnp.stack(
        [lax.dynamic_update_slice(state[slot], tokens[slot], (start[slot],)) for slot in range(len(state))]
    )


def _sum(state: Array, ends: Array) -> Array:
    """i32[B, C]: what follows the first `ends` i32[B, C] of each text i32[B, S]."""
    places = jnp.arange(state.shape[1], dtype=jnp.int32)
    return jnp.sum(jnp.where(places < ends[..., None], (places + 1) * state[:, None], 0), axis=-1) % VOCABULARY


def prefill(params: Any, state: Any, tokens: Array, start: Array, length: Array, *sampling: Array) -> Any:
    after = _put(state[0], tokens, start)
    return [after], _sum(after, (start + length)[:, None])[:, 0], jnp.full(len(start), -1.0, jnp.float32)


def decode(params: Any, state: Any, token: Array, position: Array, *sampling: Array) -> Any:
    return prefill(params, state, token[:, None], position, jnp.ones_like(position))


def score(params: Any, state: Any, tokens: Array, targets: Array, start: Array, *sampling: Array) -> Any:
    after = _put(state[0], tokens, start)
    ends = start[:, None] + 1 + jnp.arange(tokens.shape[1], dtype=jnp.int32)
    gaps = jnp.where(_sum(after, ends) == targets, 0.0, 9.0).astype(jnp.float32)
    return [after], -jnp.ones_like(gaps), gaps, jnp.zeros_like(gaps)


def call(params: Any, nothing: Any, tokens: Array, length: Array) -> Any:
    return nothing, jnp.cumsum(tokens, axis=1)[:, :2].astype(jnp.float32)


def reads(length: int, context: int = CONTEXT, role: str = "prefill") -> Draft:
    """A program for chunks of a text."""
    tokens, function = (i32(1, length), i32(1)), prefill if role == "prefill" else score
    inputs = (*tokens, i32(1)) if role == "prefill" else (i32(1, length), *tokens)
    return Draft(f"{role}-{length}-{context}", role, 1, length, context, function, (*inputs, *sampling_inputs(1)))


def writes(slots: int = 1, context: int = CONTEXT, name: str = "decode") -> Draft:
    """A program for the next token of each slot."""
    inputs = (i32(slots), i32(slots), *sampling_inputs(slots))
    return Draft(f"{name}-{slots}-{context}", "decode", slots, 1, context, decode, inputs)


def calls(slots: int = 1, length: int = 8, context: int = 8) -> Draft:
    """A program for a function of tokens."""
    return Draft(f"call-{slots}-{length}", "call", slots, length, context, call, (i32(slots, length), i32(slots)))


def recipe(*programs: Draft, entries: tuple[str, ...] = ("generate", "score"), context: int = CONTEXT) -> Recipe:
    """The model with these programs, of which some fit."""
    return Recipe(
        family="checksum",
        licence="Apache-2.0",
        provenance="Made by a test.",
        entries=entries,
        parameters={},
        weights={},
        state=(Carried("int32", (context,), 0),),
        inputs=(),
        outputs=(Tensor("sums", "float32", (2,)),),
        programs=programs,
        tokenizer=b"{}",
        chat_template=None,
        context=context,
        end_tokens=(),
        tolerance=Tolerance(1, 0, 0, 0, 0, (), "Not measured."),
    )


def install(store: BundleStore, scratch: Path, name: str, made: Recipe, **changes: Any) -> Bundle:
    """The bundle is in the store, with `changes` to its manifest."""
    (scratch / name).mkdir(parents=True)
    manifest, files = write(name, made, scratch / name, lambda _stage, _fraction: None)
    return store.install(replace(manifest, **changes), lambda each: sign(each, KEY), files)

"""The one count of FLOPs: by products, branches and turns, and what a manifest then says of real programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import Array, export, lax

from fallow.models.bert import Bert
from fallow.models.export import PLATFORMS, export_program
from fallow.models.llama import Llama
from fallow.models.program import Draft
from fallow.node.engine.flops import Work, of_exported

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))
ONCE = 2 * 3 * 5 * 7
LLAMA = Llama(
    layers=2, dim=64, heads=4, kv_heads=2, head_dim=16, hidden=128, vocabulary=259, context=256,
    rope_base=1e4, norm_epsilon=1e-5, tied=False,
)  # fmt: skip
BERT = Bert(layers=2, dim=64, heads=4, hidden=128, vocabulary=259, positions=256, norm_epsilon=1e-12)


def work(function: Callable[..., Any], *arguments: Array) -> Work:
    return of_exported(export.export(jax.jit(function), platforms=PLATFORMS)(*arguments))


@pytest.mark.parametrize(
    ("function", "times"),
    [
        (lambda a, b: a @ b, 1),
        (lambda a, b: jax.jit(jnp.matmul)(a, b) + jax.jit(jnp.matmul)(2 * a, b), 2),
        (lambda a, b: lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: 0 * (a @ b) + a @ b), 2),
        (lambda a, b: lax.scan(lambda c, _: (c + a @ b, None), jnp.zeros((3, 7)), length=4)[0], 4),
        (lambda a, b: lax.fori_loop(2, 11, lambda _, c: c + a @ b, jnp.zeros((3, 7))), 9),
        (lambda a, b: lax.fori_loop(0, 3, lambda _, c: lax.fori_loop(0, 5, lambda _, d: d + a @ b, c), jnp.zeros((3, 7))), 15),
        (lambda a, b: lax.fori_loop(0, 0, lambda _, c: c + a @ b, jnp.zeros((3, 7))), 0),
    ],
)  # fmt: skip
def test_products_count_by_branch_and_turn(function: Callable[..., Any], times: int) -> None:
    counted = work(function, A, B)
    assert (counted.flops, counted.bounded) == (times * ONCE, True)


def test_loops_whose_turns_nobody_knows_count_once_and_say_so() -> None:
    def until(a: Array, b: Array) -> Array:
        return lax.while_loop(lambda c: jnp.sum(c) < 1e9, lambda c: c + a @ b, jnp.zeros((3, 7)))

    counted = work(until, A, B)
    assert (counted.flops, counted.bounded) == (ONCE, False)
    dynamic = work(lambda a, b: lax.fori_loop(0, a[0, 0].astype(int), lambda _, c: c + a @ b, jnp.zeros((3, 7))), A, B)
    assert (dynamic.flops, dynamic.bounded) == (ONCE, False)


def test_batches_and_convolutions() -> None:
    assert work(jax.vmap(jnp.matmul), jnp.ones((2, 3, 5)), jnp.ones((2, 5, 7))).flops == 2 * ONCE
    image, kernel = jnp.ones((2, 8, 10, 10)), jnp.ones((6, 4, 3, 3))  # NCHW, OIHW, in two groups
    grouped = work(lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "VALID", feature_group_count=2), image, kernel)
    assert grouped.flops == 2 * (2 * 6 * 8 * 8) * (4 * 3 * 3)


def test_what_is_moved_is_what_goes_in_and_comes_out() -> None:
    assert work(lambda a: a + 1, jnp.ones(100)).moved_bytes == 4 + (4 + 400) + 3 * 400


def published(draft: Draft, model: Llama | Bert) -> int:
    state = model.state() if isinstance(model, Llama) else ()
    return export_program(draft, model.parameters(), state).flops


@pytest.mark.parametrize("context", [LLAMA.context, 1024])
def test_manifests_say_the_products_of_their_matrices(context: int) -> None:
    """Worked out by hand: what the figures of bundles that are published already are. Of 1024 positions, a prefix may do."""
    shapes = LLAMA.parameters()
    matrices = sum(shape[0] * shape[1] for name, shape in shapes.items() if len(shape) == 2 and name != "embed")
    heads, head = LLAMA.heads, LLAMA.head_dim
    vocabulary = 2 * LLAMA.vocabulary * LLAMA.dim
    for draft in replace(LLAMA, context=context).programs((32,), (1, 4), (context,)):
        attention = 2 * LLAMA.layers * 2 * heads * draft.length * context * head
        wanted = {
            # Of one slot alone, attention is sums of products.
            "decode": 2 * matrices if draft.slots == 1 else draft.slots * (2 * matrices + attention),
            "prefill": 32 * (2 * matrices - vocabulary) + vocabulary + attention,
            "score": 32 * 2 * matrices + attention,
        }
        assert published(draft, replace(LLAMA, context=context)) == wanted[draft.role], draft.role
    (call,) = BERT.programs((32,), (1,))
    inner = BERT.layers * (4 * BERT.dim**2 + 2 * BERT.dim * BERT.hidden)
    assert published(call, BERT) == 2 * 32 * inner + 2 * BERT.layers * 2 * 32 * 32 * BERT.dim

"""A node knows no model family: ones that only this file has are served, checked and batched like any other.

The text model is a state-space model (Gu et al. 2022) whose state has no positions: each token is mixed into it for good.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax
from nacl.signing import SigningKey

from fallow.models.builder import write
from fallow.models.program import Draft, i32, sampling_inputs, specimen
from fallow.models.recipe import Model as Recipe
from fallow.models.recipes import RECIPES
from fallow.models.sampling import choose, judge
from fallow.models.tiny import tiny_embed
from fallow.node.engine import entries
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.engine import open_engine
from fallow.node.engine.programs import Model, load
from fallow.node.engine.turns import Task, Turns, alone
from fallow.protocol.bundle import Carried, Tensor, Tolerance
from fallow.protocol.envelope import sign
from fallow.protocol.work import Parameters, Work

from .conftest import Asked

KEY = SigningKey(b"\x09" * 32)
ROOT = Path(__file__).parents[2]
VOCABULARY, WIDTH, CONTEXT, CHUNK = 259, 24, 128, 16
RANDOM = np.random.default_rng(21)
WEIGHTS = {
    "words": RANDOM.normal(size=(VOCABULARY, WIDTH)).astype(np.float32),
    "decay": RANDOM.uniform(0.6, 0.99, WIDTH).astype(np.float32),
    "output": RANDOM.normal(size=(VOCABULARY, WIDTH)).astype(np.float32),
}
PROMPT = tuple(int(each) for each in RANDOM.integers(3, VOCABULARY, 39))
SAMPLED = Parameters(24, 800, 950_000, seed=2**35 + 9)


def through(params: list[Array], state: Array, tokens: Array, length: Array) -> tuple[Array, Array]:
    """The states [B, C, W] after each of `tokens` i32[B,C], and the one after the first `length` i32[B] of them."""
    words, decay, _ = params

    def step(h: Array, column: tuple[Array, Array]) -> tuple[Array, Array]:
        token, index = column
        h = jnp.where((index < length)[:, None], decay * h + words[token], h)
        return h, h

    last, each = lax.scan(step, state, (tokens.T, jnp.arange(tokens.shape[1], dtype=jnp.int32)))
    return each.swapaxes(0, 1), last


def logits(params: list[Array], h: Array) -> Array:
    return jnp.einsum("...w,vw->...v", jnp.tanh(h), params[2], precision=lax.Precision.HIGHEST)


def prefill(params: Any, state: Any, tokens: Array, start: Array, length: Array, *sampling: Array) -> Any:
    _, last = through(params, state[0], tokens, length)
    return [last], *choose(logits(params, last), start + length, *sampling)


def decode(params: Any, state: Any, token: Array, position: Array, *sampling: Array) -> Any:
    _, last = through(params, state[0], token[:, None], jnp.ones_like(position))
    return [last], *choose(logits(params, last), position + 1, *sampling)


def score(params: Any, state: Any, tokens: Array, targets: Array, start: Array, *sampling: Array) -> Any:
    each, last = through(params, state[0], tokens, jnp.full_like(start, tokens.shape[1]))
    positions = start[:, None] + 1 + jnp.arange(tokens.shape[1], dtype=jnp.int32)
    return [last], *judge(logits(params, each), targets, positions, *sampling)


def summary(params: Any, nothing: Any, tokens: Array, length: Array) -> Any:
    return nothing, jnp.tanh(through(params, jnp.zeros((tokens.shape[0], WIDTH)), tokens, length)[1])


def state_space() -> Recipe:
    one, c = sampling_inputs(1), CHUNK
    return Recipe(
        family="state-space",
        licence="Apache-2.0",
        provenance="Random weights, made by a test.",
        entries=("generate", "score", "call"),
        parameters={name: array.shape for name, array in WEIGHTS.items()},
        weights=WEIGHTS,
        state=(Carried("float32", (WIDTH,), None),),
        inputs=(),
        outputs=(Tensor("summary", "float32", (WIDTH,)),),
        programs=(
            Draft("prefill", "prefill", 1, c, CONTEXT, prefill, (i32(1, c), i32(1), i32(1), *one)),
            Draft("decode-1", "decode", 1, 1, CONTEXT, decode, (i32(1), i32(1), *one)),
            Draft("decode-4", "decode", 4, 1, CONTEXT, decode, (i32(4), i32(4), *sampling_inputs(4))),
            Draft("score", "score", 1, c, CONTEXT, score, (i32(1, c), i32(1, c), i32(1), *one)),
            Draft("call", "call", 1, 64, 64, summary, (i32(1, 64), i32(1))),
        ),
        tokenizer=tiny_embed(Path(), lambda _stage, _fraction: None).tokenizer,
        chat_template=None,
        context=CONTEXT,
        end_tokens=(),
        tolerance=Tolerance(1000, 1000, 1000, 0, 0, (), "Not measured."),
    )


def distance_table() -> Recipe:
    """How far each of some points lies from a centre: nothing like a model, and no weights at all."""

    def call(params: Any, nothing: Any, points: Array, centre: Array) -> Any:
        return nothing, jnp.sqrt(jnp.sum(jnp.square(points.astype(jnp.float32) - centre[:, None]), axis=-1))

    def draft(b: int) -> Draft:
        return Draft(f"call-{b}", "call", b, 1, 1, call, (specimen((b, 5, 3), "int16"), specimen((b, 3), "float32")))

    return Recipe(
        family="geometry",
        licence="Apache-2.0",
        provenance="Made by a test.",
        entries=("call",),
        parameters={},
        weights={},
        state=(),
        inputs=(Tensor("points", "int16", (5, 3)), Tensor("centre", "float32", (3,))),
        outputs=(Tensor("distances", "float32", (5,)),),
        programs=(draft(1), draft(2)),
        tokenizer=None,
        chat_template=None,
        context=1,
        end_tokens=(),
        tolerance=Tolerance(1, 0, 0, 0, 0, (), "Not measured."),
    )


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[BundleStore, Mapping[str, Bundle]]:
    home = tmp_path_factory.mktemp("families")
    store, installed = BundleStore(home / "store"), {}
    for name, recipe in (("state-space", state_space()), ("geometry", distance_table())):
        (home / name).mkdir()
        manifest, files = write(name, recipe, home / name, lambda _stage, _fraction: None)
        installed[name] = store.install(manifest, lambda made: sign(made, KEY), files)
    return store, installed


async def test_families_that_no_node_has_seen_are_served_and_checked(
    bundles: tuple[BundleStore, Mapping[str, Bundle]], tmp_path: Path
) -> None:
    store, installed = bundles
    text, geometry = installed["state-space"].cid, installed["geometry"].cid
    async with open_engine(store, [text, geometry], log_path=tmp_path / "worker.log") as engine:
        for parameters in (Parameters(24), SAMPLED):
            tokens, values = await Asked(Work((PROMPT,)), text, parameters=parameters).text(engine)
            assert len(tokens) == 24
            claimed = Asked(Work(((*PROMPT, *tokens),), claimed=24), text, "score", parameters)
            (piece,) = await claimed.answer(engine)
            assert np.abs(np.subtract(values, piece.values_micro)).max() <= 1000
            assert max(piece.gaps_micro) <= 1000
            assert max(piece.masses_ppm) <= parameters.top_p_ppm + 1000
            wrong = Asked(Work(((*PROMPT, *reversed(tokens)),), claimed=24), text, "score", parameters)
            assert max((await wrong.answer(engine))[0].gaps_micro) > 1000
        (piece,) = await Asked(Work((PROMPT, PROMPT[:7])), text, "call", Parameters()).answer(engine)
        assert piece.shape == (2, WIDTH)
        points, centre = RANDOM.integers(-9, 9, (3, 5, 3), dtype=np.int16), np.array([1, -2, 0.5], np.float32)
        work = Work(arrays=tuple(each.tobytes() + centre.tobytes() for each in points))
        (piece,) = await Asked(work, geometry, "call", Parameters()).answer(engine)
        wanted = np.linalg.norm(points - centre, axis=-1)
        np.testing.assert_allclose(np.frombuffer(piece.tensor, "<f4").reshape(piece.shape), wanted, rtol=1e-6)


@pytest.fixture(scope="module")
def model(bundles: tuple[BundleStore, Mapping[str, Bundle]]) -> Model:
    model = load(bundles[1]["state-space"])
    while model.load_next():
        pass
    return model


def lone(model: Model, prompt: tuple[int, ...], count: int) -> list[int]:
    steps = entries.generate(model.manifest, Parameters(count), Work((prompt,)))
    return [step.piece.tokens[0] for step in alone(model, Parameters(count), steps)]


class Written:
    """The tokens of a text that is being written beside others."""

    def __init__(self, turns: Turns, model: Model, prompt: tuple[int, ...], count: int, credit: int) -> None:
        self.tokens: list[int] = []
        steps = entries.generate(model.manifest, Parameters(count), Work((prompt,)))
        self.task = Task(bytes(32), model, Parameters(count), steps, self._take, self._fail, credit)
        turns.add(self.task)

    def _take(self, step: entries.Step, ran: frozenset[str]) -> None:
        self.tokens += step.piece.tokens

    def _fail(self, error: Exception) -> None:
        raise error


def until_idle(turns: Turns) -> None:
    for _ in range(1000):
        if not turns.waiting:
            return
        turns.run()
    raise AssertionError("it never came to rest")


@pytest.mark.spec("B-26")
def test_a_state_without_positions_is_not_garbled_while_its_reader_is_slow(model: Model) -> None:
    turns = Turns([model])
    slow, quick = Written(turns, model, PROMPT, 20, 7), Written(turns, model, PROMPT[:9], 20, 100)
    until_idle(turns)
    assert (len(slow.tokens), len(quick.tokens)) == (7, 20)
    late = Written(turns, model, PROMPT[:21], 20, 100)
    slow.task.credit = 100
    until_idle(turns)
    assert slow.tokens == lone(model, PROMPT, 20)
    assert quick.tokens == lone(model, PROMPT[:9], 20)
    assert late.tokens == lone(model, PROMPT[:21], 20)


@pytest.mark.spec("B-26")
def test_a_state_without_positions_is_not_taken_up_earlier_than_where_it_is(model: Model) -> None:
    turns = Turns([model])
    first = Written(turns, model, PROMPT, 20, 100)
    until_idle(turns)
    again = Written(turns, model, PROMPT, 20, 100)
    other = Written(turns, model, (*PROMPT[:32], 5, 6), 20, 100)
    until_idle(turns)
    assert again.tokens == first.tokens == lone(model, PROMPT, 20)
    assert other.tokens == lone(model, (*PROMPT[:32], 5, 6), 20)


def test_no_code_of_a_node_names_a_family() -> None:
    """Nor does it import what knows them."""
    families = {"llama", "bert", "mobilenet", "vad", *RECIPES}
    found = []
    for path in (ROOT / "node").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        texts = {id(node.body[0].value) for node in ast.walk(tree) if hasattr(node, "body") and _documented(node)}
        for node in ast.walk(tree):
            words = {name for field in ("id", "attr", "arg", "name", "module") if (name := getattr(node, field, None))}
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
                words.add(node.value)
            if isinstance(node, ast.ImportFrom | ast.Import):
                words |= {alias.name for alias in node.names}
                assert "models" not in str(getattr(node, "module", "")), path
            named = {word for text in words for word in re.split(r"[\W_]+", text.lower())}
            found += [f"{path.name}: {word}" for word in named & families]
    assert not found


def _documented(node: Any) -> bool:
    first = node.body[0] if isinstance(node.body, list) and node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)

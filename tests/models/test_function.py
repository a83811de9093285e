"""A publisher's own function as a bundle: what a node makes of it, what is measured, and what cannot be one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fallow.models import bundle
from fallow.models.measure import distance_ppm
from fallow.node.engine import entries
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.programs import load
from fallow.node.engine.turns import alone
from fallow.node.trust import TrustList
from fallow.protocol.bundle import Tensor
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.work import Parameters, Work

RANDOM = np.random.default_rng(5)
PARAMS = {
    "layers": [
        {"w": RANDOM.normal(size=(6, 4)).astype(np.float32)},
        {"w": RANDOM.normal(size=(4, 4)).astype(np.float32)},
    ],
    "scale": jnp.asarray(1.5, jnp.bfloat16),
    "shift": np.array([3, -1, 2, 0], np.int32),
}
PIXELS = np.zeros((2, 3), np.uint8) + np.arange(3, dtype=np.uint8)


def judge(params: Any, pixels: jax.Array, weight: jax.Array) -> dict[str, jax.Array]:
    """Of one image. Integers and bfloat16 stay what they are; the loop is the compiler's."""
    assert params["shift"].dtype == jnp.int32
    assert params["scale"].dtype == jnp.bfloat16
    x = jnp.ravel(pixels).astype(jnp.float32) @ params["layers"][0]["w"] + params["shift"]
    x = jax.lax.fori_loop(0, 2, lambda _, y: jnp.tanh(y @ params["layers"][1]["w"]) * weight, x)
    return {"scores": x * params["scale"], "pairs": jnp.stack([x[:2], x[2:]])}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    return BundleStore(tmp_path_factory.mktemp("home") / "store")


def refused(fn: Callable[..., Any], params: Any = PARAMS, inputs: Any = (PIXELS,), **options: Any) -> str:
    with pytest.raises(EngineError) as raised:
        bundle(fn, params, inputs, name="none", licence="MIT", store=BundleStore(Path("/nowhere")), **options)
    assert raised.value.code is Code.UNSUPPORTED_MODEL
    return raised.value.message


def test_a_node_computes_what_the_function_computes(store: BundleStore) -> None:
    examples = {"pixels": PIXELS, "weight": np.float32(0.5)}
    made = bundle(judge, PARAMS, examples, name="judge", licence="MIT", provenance="a test", store=store, slots=(1, 4))
    manifest = made.manifest
    assert TrustList.load(store.root.parent).trusts(made.signed, made.cid)
    assert manifest.inputs == (Tensor("pixels", "uint8", (2, 3)), Tensor("weight", "float32", ()))
    assert manifest.outputs == (Tensor("pairs", "float32", (2, 2)), Tensor("scores", "float32", (4,)))
    assert manifest.parameters == ("layers.0.w", "layers.1.w", "scale", "shift")
    assert [program.slots for program in manifest.programs] == [1, 4]
    model = load(made)
    while model.load_next():
        pass
    assert model.shared
    given = [(RANDOM.integers(0, 3, (2, 3), dtype=np.uint8), np.float32(0.1 * n)) for n in range(1, 6)]
    work = Work(arrays=tuple(pixels.tobytes() + weight.tobytes() for pixels, weight in given))
    (step,) = alone(model, Parameters(), entries.call(manifest, work))
    rows = np.frombuffer(step.piece.tensor, "<f4").reshape(step.piece.shape)
    params = jax.tree.map(jnp.asarray, PARAMS)
    for row, (pixels, weight) in zip(rows, given, strict=True):
        with jax.default_matmul_precision("highest"):
            wanted = judge(params, jnp.asarray(pixels), jnp.asarray(weight))
        np.testing.assert_allclose(row[:4].reshape(2, 2), wanted["pairs"], atol=1e-5)
        np.testing.assert_allclose(row[4:], wanted["scores"], atol=1e-5)


def test_the_tolerance_holds_honest_runs_and_names_what_it_tells_apart(store: BundleStore) -> None:
    wide = RANDOM.normal(size=(64, 16)).astype(np.float32)
    made = bundle(lambda w, x: x @ w, wide, [np.zeros(64, np.float32)], name="wide", licence="MIT", store=store)
    tolerance = made.manifest.tolerance
    assert (tolerance.samples, tolerance.false_reject_ppm) == (64, 0)
    assert {cheat.name: cheat.samples for cheat in tolerance.cheats} == {"bfloat16-weights": 32, "int8-weights": 32}
    assert max(cheat.false_accept_ppm for cheat in tolerance.cheats) <= 100_000
    told = bundle(
        lambda w, x: x @ w, wide, [np.zeros(64, np.float32)], name="w", licence="MIT", store=store, tolerance_ppm=10**6
    )
    assert [cheat.false_accept_ppm for cheat in told.manifest.tolerance.cheats] == [10**6, 10**6]


def test_a_tolerance_that_tells_nothing_apart_is_refused() -> None:
    def label(params: Any, pixels: jax.Array) -> jax.Array:
        scores = jnp.ravel(pixels).astype(jnp.float32) @ params["layers"][0]["w"]
        return jax.nn.one_hot(jnp.argmax(scores), 4)

    message = refused(label)
    assert "pass 100 % of checks" in message
    assert "tolerance_ppm" in message


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda _, x: x if x[0, 0] > 0 else -x, "branches on a value"),
        (lambda _, x: x[x > 0], "has a shape, that is not known"),
        (lambda _, x: np.sin(x), "use jax.numpy"),
        (lambda _, x: "text", "something else than arrays"),
        (lambda _, x: None, "no numbers"),
        (lambda _, x: x + 1j, "complex"),
        (lambda _, x: x @ jnp.ones((7, 2)), "cannot be traced for these inputs"),
        (lambda _: 1.0, "cannot be traced for these inputs"),
        (
            lambda _, x: jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
            "runs nobody's Python",
        ),
        (lambda _, x: jnp.linalg.inv(x.T @ x + jnp.eye(3)), "native code"),
        (lambda _, x: 0.0 * x, "all zeros"),
        (lambda _, x: x / 0.0, "not a number"),
        (lambda _, x: x.sum() + jnp.asarray(np.ones((200, 200), np.float32)).sum(), "160000 bytes of arrays"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*multi-platform lowering")
def test_what_cannot_be_a_program_is_said_in_a_sentence(fn: Callable[..., Any], why: str) -> None:
    message = refused(fn)
    assert why in message
    assert message.count(".") - message.count("jnp.") - message.count("jax.") - message.count("lax.") <= 3
    assert "\n" not in message


@pytest.mark.parametrize(
    ("params", "inputs", "why"),
    [
        ({"a": "text"}, (PIXELS,), "`params` at 'a'"),
        ({"a": np.array([2**30 + 1])}, (PIXELS,), "integers that float32"),
        ({"a": jax.random.key(0)}, (PIXELS,), "no array of numbers"),
        ({"padding.a": np.ones(2)}, (PIXELS,), "name is taken"),
        (PARAMS, (np.zeros(3, bool),), "Input 'x' is bool"),
        (PARAMS, ([[1, 2], [3]],), "Input 'x'"),
        (PARAMS, (), "at least one input"),
    ],
)
def test_what_is_no_array_is_named(params: Any, inputs: Any, why: str) -> None:
    assert why in refused(lambda _, x: x * 1.0, params, inputs)


def test_outputs_and_samples_have_to_fit() -> None:
    assert "gives 2 arrays" in refused(lambda _, x: (x, x), output_names=["one"])
    assert "other shapes" in refused(lambda _, x: x * 1.0, samples=[(np.zeros((3, 3), np.uint8),)])
    assert "other inputs" in refused(lambda _, x: x * 1.0, samples=[{"y": PIXELS}])


def test_distances_are_the_judgements() -> None:
    a = np.array([1.0, 0.0], np.float32)
    assert distance_ppm(a, a) == 0
    assert distance_ppm(a, np.array([0.0, 1.0], np.float32)) == pytest.approx(1e6)
    assert distance_ppm(a, 2 * a) == pytest.approx(5e5)
    assert distance_ppm(a, np.array([1.0, 1e-3], np.float32)) == pytest.approx(0.5, rel=1e-3)
    assert distance_ppm(a, 0 * a) == 1e6
    assert distance_ppm(a, np.inf * a[:1]) == np.inf

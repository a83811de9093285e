"""The real models against independent implementations (tests/fixtures/references says which, and how they were run)."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer

from fallow.models.llama import Llama
from fallow.models.measure import distances, streamed
from fallow.models.recipes import recipe
from fallow.node.engine import entries
from fallow.node.engine.bundles import Bundle
from fallow.node.engine.device import map_weights
from fallow.node.engine.programs import Model
from fallow.node.engine.sequences import zeros
from fallow.node.engine.turns import alone
from fallow.protocol.work import Parameters, Work

from .conftest import load_kept

REFERENCES = Path(__file__).parents[1] / "fixtures" / "references"
LOGIT_DIFFERENCE_MAX = 2e-4
"""Measured: 8e-5, of logits up to 44; float32 sums in another order."""

Built = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def smollm2(built: Built) -> Bundle:
    return built("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def smollm2_model(smollm2: Bundle) -> Model:
    return load_kept(smollm2)


@pytest.fixture(scope="module")
def minilm(built: Built) -> Bundle:
    return built("minilm-l6")


def reference(name: str) -> dict[str, list[dict[str, list[int]]]]:
    record: dict[str, list[dict[str, list[int]]]] = json.loads((REFERENCES / f"{name}.json").read_text("utf-8"))
    return record


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "minilm-l6"])
def test_texts_become_the_same_tokens(built: Built, name: str) -> None:
    tokenizer = Tokenizer.from_file(str(built(name).path / "tokenizer.json"))
    for row in reference(name.partition("-")[0])["texts"]:
        assert tokenizer.encode(row["text"]).ids == row["tokens"]


def test_smollm2_texts_come_back_from_their_tokens(smollm2: Bundle) -> None:
    tokenizer = Tokenizer.from_file(str(smollm2.path / "tokenizer.json"))
    for row in reference("smollm2")["texts"]:
        assert tokenizer.decode(row["tokens"], skip_special_tokens=False) == row["text"]


def test_smollm2_logits(smollm2: Bundle) -> None:
    llama = Llama(30, 576, 9, 3, 64, 1536, 49152, 1024, 1e5, 1e-5, True)
    weights = dict(zip(smollm2.manifest.parameters, map_weights(smollm2), strict=True))
    state = zeros(smollm2.manifest.state, 1, 256)

    @jax.jit
    def logits(weights: dict[str, jax.Array], tokens: jax.Array) -> jax.Array:
        return llama.logits(weights, llama.extend(weights, state, tokens[None], jnp.zeros(1, jnp.int32))[1])[0]

    record, arrays = reference("smollm2"), np.load(REFERENCES / "smollm2.npz")
    for index, row in enumerate(record["prompts"]):
        tokens = row["prompt"] + row["answer"]
        padded = jnp.array(tokens + [0] * (64 - len(tokens)))
        ours = np.asarray(logits(weights, padded))[: len(tokens), :: record["column_step"]]
        assert np.abs(ours - arrays[f"logits_{index}"]).max() < LOGIT_DIFFERENCE_MAX


def test_smollm2_programs_give_the_reference_s_answers_and_values(smollm2_model: Model) -> None:
    arrays = np.load(REFERENCES / "smollm2.npz")
    for index, row in enumerate(reference("smollm2")["prompts"]):
        prompt, answer = tuple(row["prompt"]), tuple(row["answer"])
        wanted = arrays[f"values_{index}"][-len(answer) :] * 1e6
        parameters = Parameters(max_tokens=len(answer))
        steps = entries.generate(smollm2_model.manifest, parameters, Work((prompt,)))
        pieces = [step.piece for step in alone(smollm2_model, parameters, steps)]
        assert tuple(piece.tokens[0] for piece in pieces) == answer[: len(pieces)]
        values = [piece.values_micro[0] for piece in pieces]
        assert np.abs(wanted[: len(pieces)] - values).max() < smollm2_model.manifest.tolerance.value_micro
        claimed = Work((prompt + answer,), claimed=len(answer))
        (step,) = alone(smollm2_model, parameters, entries.score(smollm2_model.manifest, claimed))
        scored = step.piece
        assert np.abs(wanted - scored.values_micro).max() < smollm2_model.manifest.tolerance.value_micro
        assert set(scored.gaps_micro) == {0}


def test_minilm_vectors(minilm: Bundle) -> None:
    model = load_kept(minilm)
    vectors = np.load(REFERENCES / "minilm.npz")["vectors"]
    work = Work(tuple(tuple(row["tokens"]) for row in reference("minilm")["texts"]))
    (step,) = alone(model, Parameters(), entries.call(model.manifest, work))
    for ours, wanted in zip(np.frombuffer(step.piece.tensor, "<f4").reshape(vectors.shape), vectors, strict=True):
        assert float(ours @ ours) == pytest.approx(1, abs=1e-5)
        assert float(ours @ wanted) >= 0.9999
        assert np.abs(ours - wanted).max() < 1e-5


def called(model: Model, *arrays: np.ndarray) -> np.ndarray:
    """f32[D] of one input of a function of arrays, as a node runs it."""
    work = Work(arrays=(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays),))
    (step,) = alone(model, Parameters(), entries.call(model.manifest, work))
    return np.frombuffer(step.piece.tensor, "<f4")


def test_silero_hears_what_its_onnx_file_hears_from_step_to_step(built: Built) -> None:
    model = load_kept(built("silero-vad"))
    reference = np.load(REFERENCES / "silero.npz")
    context, state = np.zeros(64, np.float32), np.zeros((2, 128), np.float32)
    for audio, probabilities, after in zip(*(reference[k] for k in ("audio", "probabilities", "state")), strict=True):
        output = called(model, audio, context, state)
        heard, context, state = output[:16], output[16:80], output[80:].reshape(2, 128)
        assert np.abs(heard - probabilities).max() < 1e-5  # measured: 1.2e-6
        np.testing.assert_array_equal(context, audio[-64:])
        assert np.abs(state - after).max() < 1e-4  # measured: 8e-6, of values up to 18
    assert reference["probabilities"].min() < 0.01
    assert reference["probabilities"].max() > 0.99


def test_text_direction_sees_what_its_onnx_file_sees(built: Built) -> None:
    model = load_kept(built("text-direction"))
    reference = np.load(REFERENCES / "text_direction.npz")
    for image, probabilities in zip(reference["image"], reference["probabilities"], strict=True):
        output = called(model, image)
        assert np.abs(output[:2] - probabilities).max() < 1e-5  # measured: 2e-7
        assert np.exp(output[2] - output[3]) == pytest.approx(output[0] / output[1], rel=1e-3)


@pytest.mark.parametrize(("name", "fixture"), [("silero-vad", "silero"), ("text-direction", "text_direction")])
def test_what_the_tolerance_of_a_function_says_is_so(built: Built, name: str, fixture: str) -> None:
    """Honest outputs lie within a tenth of it, and those of rounded weights at five times it."""
    bundle = built(name)
    tolerance = bundle.manifest.tolerance
    model = recipe(name).make(bundle.path.parents[1] / "downloads", lambda _stage, _fraction: None)
    with np.load(REFERENCES / f"{fixture}.npz") as arrays:
        given = [{model.inputs[0].name: row} for row in arrays[model.inputs[0].name]]
    measured = distances(model, streamed(model, given))
    assert max(measured.honest) < tolerance.value_micro / 10
    for cheat in tolerance.cheats:
        assert min(measured.cheats[cheat.name.removesuffix("-weights")]) > 5 * tolerance.value_micro
        assert (cheat.samples, cheat.false_accept_ppm) == (len(given), 0)
    assert (tolerance.samples, tolerance.false_reject_ppm) == (len(measured.honest), 0)

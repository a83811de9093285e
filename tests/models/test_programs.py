"""The exported programs of the tiny models, through the engine's own loader: prefill, decode and score agree."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from fallow.models.warm import main as warm
from fallow.node.engine import entries, kernels
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.programs import Model
from fallow.node.engine.turns import alone
from fallow.protocol.work import Parameters, Piece, Work

from .conftest import load_kept

PROMPT = tuple(range(60, 131))
"""71 tokens: two full chunks of 32 and a part."""
SAMPLINGS = [Parameters(48), Parameters(48, 1000, seed=5), Parameters(48, 700, 900_000, seed=2**40 + 3)]


def loaded(store: BundleStore, name: str) -> Model:
    bundle = store.find(name)
    assert bundle is not None
    return load_kept(bundle)


@pytest.fixture(scope="module", params=["tiny-chat", "tiny-chat-q4"])
def chat(tiny_store: BundleStore, request: pytest.FixtureRequest) -> Model:
    assert kernels.register(tiny_store.compile_cache)
    return loaded(tiny_store, request.param)


def answer(model: Model, parameters: Parameters, prompt: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    steps = entries.generate(model.manifest, parameters, Work((prompt,)))
    pieces = [step.piece for step in alone(model, parameters, steps)]
    return tuple(p.tokens[0] for p in pieces), tuple(p.values_micro[0] for p in pieces)


def scored(model: Model, parameters: Parameters, tokens: tuple[int, ...], claimed: int) -> Piece:
    (step,) = alone(model, parameters, entries.score(model.manifest, Work((tokens,), claimed)))
    return step.piece


def vectors(model: Model, *sequences: tuple[int, ...]) -> np.ndarray:
    (step,) = alone(model, Parameters(), entries.call(model.manifest, Work(sequences)))
    return np.frombuffer(step.piece.tensor, "<f4").reshape(step.piece.shape)


@pytest.mark.spec("B-12")
@pytest.mark.parametrize("parameters", SAMPLINGS, ids=["greedy", "sampled", "nucleus"])
def test_what_is_generated_scores_as_it_said(chat: Model, parameters: Parameters) -> None:
    tokens, values = answer(chat, parameters, PROMPT)
    tolerance = chat.manifest.tolerance
    for count in (len(tokens), 20):
        piece = scored(chat, parameters, PROMPT + tokens[:count], count)
        assert max(piece.gaps_micro) <= tolerance.gap_micro
        assert max(piece.masses_ppm) <= parameters.top_p_ppm + tolerance.mass_ppm
        assert np.abs(np.subtract(values[:count], piece.values_micro)).max() <= tolerance.value_micro


@pytest.mark.parametrize("parameters", SAMPLINGS, ids=["greedy", "sampled", "nucleus"])
def test_a_resumed_answer_goes_on_as_it_would_have(chat: Model, parameters: Parameters) -> None:
    tokens, _ = answer(chat, parameters, PROMPT)
    rest = Parameters(28, parameters.temperature_milli, parameters.top_p_ppm, parameters.seed)
    assert answer(chat, rest, PROMPT + tokens[:20])[0] == tokens[20:]


def test_greedy_answers_are_varied_and_printable(chat: Model) -> None:
    text = Tokenizer.from_file(str(chat.bundle.path / "tokenizer.json")).decode(
        list(answer(chat, Parameters(48), PROMPT)[0])
    )
    assert len(set(text)) > 15
    assert text.isprintable()


def test_the_caches_that_a_job_leaves_behind_do_not_matter(chat: Model) -> None:
    before = answer(chat, Parameters(16), PROMPT)
    answer(chat, Parameters(16, 1000, seed=9), tuple(range(3, 90)))
    assert answer(chat, Parameters(16), PROMPT) == before


def test_padding_does_not_change_a_vector(tiny_store: BundleStore) -> None:
    model = loaded(tiny_store, "tiny-embed")
    one, other = vectors(model, (5, 6, 7), (5, 6, 7, 8))
    assert float(one @ one) == pytest.approx(1, abs=1e-5)
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_array_equal(one, vectors(model, (5, 6, 7))[0])


def test_warming_a_bundle_that_is_not_there_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = "bafkr4ihynwj5py2xyaxmj25jzca5o55h2yhqoufb35ymku5sb552szybim"
    assert warm(str(tmp_path), missing) == 1
    assert "bundle_not_built" in capsys.readouterr().err

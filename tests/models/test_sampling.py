"""Sampling against its definition in spec/07-bundles.md, written again in plain Python."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fallow.models import sampling
from fallow.models.sampling import MASS_MARGIN, noise

choose, judge = jax.jit(sampling.choose), jax.jit(sampling.judge)
"""Compiled, as programs run them."""
MASK = 2**32 - 1


def mix(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK
    return x ^ (x >> 16)


def gumbel(seed: int, position: int, token: int) -> float:
    state = mix((seed + 0x9E3779B9) & MASK)
    state = mix(state ^ (seed >> 32))
    state = mix(state ^ position)
    bits = mix(state ^ mix((token + 0x9E3779B9) & MASK))
    return -math.log(-math.log(((bits >> 9) + 0.5) / 2**23))


def words(seed: int) -> jnp.ndarray:
    return jnp.array([seed & MASK, seed >> 32], jnp.uint32)


def alike(seed: int, temperature: float, top_p: float, rows: int = 40) -> tuple[jnp.ndarray, ...]:
    """The same sampling for each of the rows."""
    return jnp.tile(words(seed), (rows, 1)), jnp.full(rows, temperature), jnp.full(rows, top_p)


def judged(logits: np.ndarray, tokens: jnp.ndarray, *how: jnp.ndarray) -> tuple[np.ndarray, ...]:
    """The rows as one sequence from position 0 on."""
    positions = jnp.arange(len(logits))[None]
    return tuple(np.asarray(each)[0] for each in judge(jnp.array(logits)[None], tokens[None], positions, *how))


def inside(probabilities: list[float], top_p: float) -> set[int]:
    return {token for token, p in enumerate(probabilities) if math.fsum(q for q in probabilities if q > p) < top_p}


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(3).normal(0, 3, (40, 257)).astype(np.float32)


@pytest.mark.spec("B-11")
@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
def test_noise_is_the_counter_hash_of_the_specification(seed: int) -> None:
    ours = noise(words(seed), jnp.array([0, 7, 4095]), 300)
    wanted = [[gumbel(seed, position, token) for token in range(300)] for position in (0, 7, 4095)]
    np.testing.assert_allclose(ours, wanted, rtol=2e-5, atol=2e-6)


def test_noise_is_finite_and_standard_gumbel() -> None:
    values = np.asarray(noise(words(9), jnp.arange(64), 49152))
    assert np.isfinite(values).all()
    assert values.mean() == pytest.approx(0.5772, abs=0.005)
    assert values.var() == pytest.approx(math.pi**2 / 6, abs=0.01)
    assert values.max() <= -math.log(-math.log1p(-(2.0**-24))) + 1e-3


@pytest.mark.spec("B-11")
def test_temperature_zero_is_greedy_and_ties_go_to_the_lowest_token(logits: np.ndarray) -> None:
    logits[0, :] = 1.5
    tokens, _ = choose(jnp.array(logits), jnp.arange(40), *alike(5, 0, 0.5))
    assert tokens.tolist() == logits.argmax(axis=1).tolist()
    assert tokens[0] == 0


@pytest.mark.spec("B-11")
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (0.05, 0.5), (3.0, 0.3), (1.0, 0.0)])
def test_the_token_is_the_best_inside_the_nucleus(logits: np.ndarray, temperature: float, top_p: float) -> None:
    positions = np.arange(100, 140)
    tokens, values = choose(jnp.array(logits), jnp.array(positions), *alike(77, temperature, top_p))
    for row, position, token, value in zip(logits.astype(float), positions, tokens.tolist(), values, strict=True):
        weights = np.exp((row - row.max()) / max(temperature, 0.1))
        likely = inside((weights / weights.sum()).tolist(), top_p) if top_p < 1 else set(range(257))
        likely.add(int(row.argmax()))
        scores = {t: row[t] + temperature * gumbel(77, int(position), t) for t in likely}
        assert token == max(scores, key=scores.__getitem__)
        assert float(value) == pytest.approx(row[token] - np.log(np.exp(row).sum()), abs=1e-4)


@pytest.mark.spec("B-11")
def test_a_row_s_token_does_not_depend_on_how_the_other_rows_are_sampled(logits: np.ndarray) -> None:
    temperatures, tops = (
        jnp.tile(jnp.array([0.0, 1.0, 0.7, 3.0]), 10),
        jnp.tile(jnp.array([1.0, 1.0, 0.9, 0.3, 0.5]), 8),
    )
    seeds, positions = jnp.stack([words(2**33 * row + row) for row in range(40)]), jnp.arange(40)
    together, _ = choose(jnp.array(logits), positions, seeds, temperatures, tops)
    for row in range(40):
        one = slice(row, row + 1)
        alone, _ = choose(jnp.array(logits[one]), positions[one], seeds[one], temperatures[one], tops[one])
        assert alone[0] == together[row]


@pytest.mark.spec("B-12")
@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (0.7, 0.9), (0.05, 0.5), (3.0, 0.3)])
def test_what_was_chosen_is_judged_without_a_gap(logits: np.ndarray, temperature: float, top_p: float) -> None:
    tokens, chosen = choose(jnp.array(logits), jnp.arange(40), *alike(2**40 + 1, temperature, top_p))
    values, gaps, masses = judged(logits, tokens, *alike(2**40 + 1, temperature, top_p, rows=1))
    assert gaps.max() == 0
    assert masses.max() < top_p
    assert values.tolist() == chosen.tolist()


@pytest.mark.spec("B-12")
def test_a_token_from_outside_the_nucleus_has_too_much_mass_above_it(logits: np.ndarray) -> None:
    unlikely = jnp.argmin(jnp.array(logits), axis=1).astype(jnp.int32)
    _, _, masses = judged(logits, unlikely, *alike(4, 1.0, 0.6, rows=1))
    assert masses.min() > 0.6 + MASS_MARGIN


@pytest.mark.spec("B-12")
def test_another_seed_shows_as_a_gap(logits: np.ndarray) -> None:
    tokens, _ = choose(jnp.array(logits), jnp.arange(40), *alike(1, 1.0, 1.0))
    _, gaps, _ = judged(logits, tokens, *alike(2, 1.0, 1.0, rows=1))
    assert (gaps > 0.01).mean() > 0.3


def test_a_token_at_the_boundary_is_not_held_against_an_executor_who_rounded_it_out() -> None:
    # Masses 0.5, 0.25 and 0.25: at top-p 0.5 the second lies just outside, with one rounding error less just inside.
    row = np.log(np.array([[0.5, 0.25, 0.25]], np.float32))
    for seed in range(64):
        token, _ = choose(jnp.array(row), jnp.arange(1), *alike(seed, 1.0, 0.5 - 1e-6, rows=1))
        _, gaps, masses = judged(row, token, *alike(seed, 1.0, 0.5 + 1e-6, rows=1))
        assert gaps[0] == 0
        assert masses[0] < 0.5 + MASS_MARGIN

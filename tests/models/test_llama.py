"""Attention over a prefix of the cache, as one slot alone reads it, against the whole cache, as several do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fallow.models.llama import Llama

LLAMA = Llama(
    layers=1, dim=64, heads=4, kv_heads=2, head_dim=16, hidden=128, vocabulary=259, context=1024,
    rope_base=1e4, norm_epsilon=1e-5, tied=True,
)  # fmt: skip
EXTEND = jax.jit(LLAMA.extend)


@pytest.mark.parametrize("chunk", [1, 32])
@pytest.mark.parametrize("end", [32, 256, 257, 512, 513, 1024])
def test_one_slot_finds_in_a_prefix_what_several_find_in_all(end: int, chunk: int) -> None:
    """The caches are full: nothing behind the last position may be seen, whichever prefix is read."""
    generator = np.random.default_rng(5)

    def draw(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, dtype=np.float32)

    weights = {name: 0.2 * draw(*shape) for name, shape in LLAMA.parameters().items()}
    state = [draw(1, *each.shape) for each in LLAMA.state()]
    tokens, start = generator.integers(259, size=(1, chunk)), np.array([end - chunk])
    _, alone = EXTEND(weights, state, tokens, start)
    twice = [np.concatenate([each, each]) for each in (tokens, start)]
    _, beside = EXTEND(weights, [np.concatenate([each, each]) for each in state], *twice)
    assert alone.shape == (1, chunk, LLAMA.dim)
    assert jnp.abs(beside - alone).max() < 1e-3 * jnp.abs(alone).max()

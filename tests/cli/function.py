"""A function of two arrays that gives two, as a publisher might bundle one: small enough to be built within a test."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fallow.models.builder import write
from fallow.models.program import Draft, f32, i32
from fallow.models.publishing import sign_at, trust_on_this_machine
from fallow.models.recipe import Model
from fallow.node.engine.bundles import BundleStore
from fallow.protocol.bundle import CALL, Tensor, Tolerance

NAME = "tiny-running"
WEIGHTS = np.linspace(0.5, 2.0, 4, dtype=np.float32)


def running(params: list[jax.Array], state: list[jax.Array], x: jax.Array, count: jax.Array) -> tuple[object, ...]:
    """The state after `x`, f32[B,2,4], and a measure of it, f32[B]: in one row of nine numbers."""
    (weights,) = params
    total = x * weights + count[:, None, None].astype(jnp.float32)
    return state, jnp.concatenate([total.reshape(x.shape[0], 8), total.mean((1, 2))[:, None]], axis=1)


def expected(
    x: np.ndarray[tuple[int, int], np.dtype[np.float32]], count: int
) -> np.ndarray[object, np.dtype[np.float32]]:
    """What the function's first output should be."""
    return x * WEIGHTS + np.float32(count)


def build(home: Path) -> str:
    """The bundle is in the home's store, and trusted there. Its CID."""
    drafts = tuple(
        Draft(f"call-{slots}", CALL, slots, 1, 1, running, (f32(slots, 2, 4), i32(slots))) for slots in (1, 4)
    )
    model = Model(
        family="running",
        licence="Apache-2.0",
        provenance="Made for a test.",
        entries=(CALL,),
        parameters={"weights": (4,)},
        weights={"weights": WEIGHTS},
        state=(),
        inputs=(Tensor("x", "float32", (2, 4)), Tensor("count", "int32", ())),
        outputs=(Tensor("total", "float32", (2, 4)), Tensor("mean", "float32", ())),
        programs=drafts,
        tokenizer=None,
        chat_template=None,
        context=1,
        end_tokens=(),
        tolerance=Tolerance(1, 0, 0, 0, 0, (), "Not measured: a test's."),
    )
    store = BundleStore(home / "store")
    with tempfile.TemporaryDirectory() as scratch:
        manifest, files = write(NAME, model, Path(scratch), lambda _stage, _fraction: None)
        bundle = store.install(manifest, partial(sign_at, home), files)
    trust_on_this_machine(home, bundle)
    return bundle.cid

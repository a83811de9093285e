"""The products in blocks compute what `spec/07-bundles.md` says, to the bit, however they are compiled and run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fallow.models import build
from fallow.node.engine import kernels
from fallow.node.engine.engine import open_engine
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.work import Work

from .conftest import Asked, Tiny

OUT, IN = 259, 160
"""Not multiples of what the kernel takes at a time, but for the block."""

_RUN = """
import sys
from pathlib import Path
import jax
import numpy as np
from fallow.node.engine import kernels

_, directory, arrays, *options = sys.argv
assert kernels.register(Path(directory), options)
given = np.load(arrays)

def call(shape, *names):
    result = jax.ShapeDtypeStruct(shape, np.float32)
    return np.asarray(jax.jit(jax.ffi.ffi_call(kernels.PRODUCT, result))(*(given[each] for each in names)))

x, out = given["x"], len(given["scales"])
for bits in ("4", "8"):
    print(call((len(x), out), "x", bits, "scales").tobytes().hex())
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the library for this machine."""
    return kernels.build(tmp_path_factory.mktemp("kernels")).parent


@pytest.fixture(scope="session")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.Generator(np.random.PCG64(5))
    scales = (generator.random((OUT, IN // 32, 2)) - 0.5).astype(np.float16).astype(np.float32)
    path = tmp_path_factory.mktemp("arrays") / "arrays.npz"
    np.savez(
        path,
        x=(generator.random((7, IN)) - 0.5).astype(np.float32),
        scales=scales,
        **{bits: generator.integers(0, 256, (OUT, IN * int(bits) // 8), np.uint8) for bits in ("4", "8")},
    )
    return path


def run(library: Path, arrays: Path, *options: str, cores: int | None = None) -> str:
    """What a process of its own computes: JAX takes each name once."""
    pinned = f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])\n" if cores else ""
    words = [sys.executable, "-c", pinned + _RUN, str(library), str(arrays), *options]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout


def weights(codes: NDArray[np.uint8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    blocks = codes.reshape(*scales.shape[:2], -1)
    if blocks.shape[-1] == 16:
        blocks = np.concatenate([blocks & 15, blocks >> 4], -1)
    expanded: NDArray[np.float32] = blocks * scales[..., :1] + scales[..., 1:]
    return expanded.astype(np.float32).reshape(len(codes), -1)


def fused(a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
    """a * b + c, rounded to float32 once.

    The product is exact in float64; its sum with c is rounded to odd there, so that the second rounding is the only one.
    """
    product, addend = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + addend
    head = total - product
    lost = (product - (total - head)) + (addend - head)
    inexact = (lost != 0) & (total.view(np.int64) & 1 == 0)
    towards = np.where(lost > 0, np.inf, -np.inf)
    return np.where(inexact, np.nextafter(total, towards), total).astype(np.float32)


def product(x: NDArray[np.float32], w: NDArray[np.float32]) -> NDArray[np.float32]:
    """As the specification says it: sixteen partial sums, then halves added to halves."""
    sums = np.zeros((len(x), len(w), 16), np.float32)
    for i in range(0, x.shape[1], 16):
        sums = fused(w[None, :, i : i + 16], x[:, None, i : i + 16], sums)
    while sums.shape[-1] > 1:
        half = sums.shape[-1] // 2
        sums = sums[..., :half] + sums[..., half:]
    return sums[..., 0]


@pytest.mark.spec("B-24")
def test_the_kernels_compute_what_the_specification_says(library: Path, arrays: Path) -> None:
    given = np.load(arrays)
    for bits, line in zip("48", run(library, arrays).splitlines(), strict=True):
        assert bytes.fromhex(line) == product(given["x"], weights(given[bits], given["scales"])).tobytes()


@pytest.mark.spec("B-24")
@pytest.mark.parametrize("options", [("-DWIDTH=4",), ("-DWIDTH=8",)])
def test_the_width_of_vectors_changes_no_bit(library: Path, arrays: Path, options: tuple[str, ...]) -> None:
    kernels.build(library, options)
    assert run(library, arrays, *options) == run(library, arrays)


@pytest.mark.spec("B-24")
def test_the_number_of_threads_changes_no_bit(library: Path, arrays: Path) -> None:
    assert run(library, arrays, cores=1) == run(library, arrays)


@pytest.mark.spec("B-24")
def test_other_rows_change_no_bit_of_a_row(library: Path, arrays: Path, tmp_path: Path) -> None:
    given = dict(np.load(arrays))
    whole = [bytes.fromhex(line) for line in run(library, arrays).splitlines()]
    for rows in (1, 4):
        np.savez(tmp_path / "fewer.npz", **(given | {"x": given["x"][-rows:]}))
        fewer = [bytes.fromhex(line) for line in run(library, tmp_path / "fewer.npz").splitlines()]
        assert fewer == [each[-rows * OUT * 4 :] for each in whole]


@pytest.mark.spec("B-25")
@pytest.mark.parametrize(
    ("shapes", "result"),
    [
        ([(2, 64), (5, 48), (5, 2, 2)], (2, 5)),
        ([(2, 64), (5, 32), (5, 1, 2)], (2, 5)),
        ([(2, 64), (5, 32), (4, 2, 2)], (2, 5)),
        ([(2, 64), (5, 32), (5, 2, 1)], (2, 5)),
        ([(2, 64), (5, 32), (5, 2, 2)], (3, 5)),
        ([(2, 64), (5, 32), (5, 2, 2)], (2, 4)),
        ([(2, 48), (5, 24), (5, 1, 2)], (2, 5)),
        ([(2, 0), (5, 0), (5, 0, 2)], (2, 5)),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(
    library: Path, shapes: list[tuple[int, ...]], result: tuple[int, ...]
) -> None:
    import jax

    assert kernels.register(library)
    kinds = np.float32, np.uint8, np.float32
    call = jax.ffi.ffi_call(kernels.PRODUCT, jax.ShapeDtypeStruct(result, np.dtype(np.float32)))
    with pytest.raises(jax.errors.JaxRuntimeError, match="do not fit together"):
        jax.block_until_ready(jax.jit(call)(*(np.ones(s, k) for s, k in zip(shapes, kinds, strict=True))))


def test_without_a_compiler_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EngineError, match=r"No C\+\+ compiler") as caught:
        kernels.build(tmp_path)
    assert caught.value.code is Code.WORKER_FAILED
    assert not kernels.register(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_compile_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot compile"):
        kernels.build(tmp_path, ["-DWIDTH=none"])
    assert list(tmp_path.iterdir()) == []


async def test_a_worker_in_its_sandbox_runs_what_calls_the_library(tiny: Tiny, tmp_path: Path) -> None:
    bundle = build("tiny-chat-q4", tiny.store)
    async with open_engine(tiny.store, [bundle], log_path=tmp_path / "worker.log") as engine:
        prompt = tuple(range(60, 100))
        tokens, values = await Asked(Work((prompt,)), bundle).text(engine)
        work = Work((prompt + tuple(tokens),), claimed=len(tokens))
        (piece,) = await Asked(work, bundle, "score").answer(engine)
    assert np.abs(np.subtract(values, piece.values_micro)).max() <= 1000

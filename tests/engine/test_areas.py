"""What is large in messages goes by shared memory: it arrives, in pieces of its own size, and nobody can make it shorter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax import Array

from fallow.models import bundle
from fallow.node.engine.areas import LEAST_BYTES, Areas, descriptor
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import open_engine
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.limits import MESSAGE_BYTES_MAX
from fallow.protocol.work import Parameters, Work

from .conftest import Asked


def test_both_sides_see_each_area_by_itself() -> None:
    shared = descriptor(2)
    ours, theirs = Areas(shared, 2), Areas(shared, 2)
    contents = {
        (area, answer): bytes([2 * area + answer]) * MESSAGE_BYTES_MAX for area in (0, 1) for answer in (False, True)
    }
    for (area, answer), content in contents.items():
        assert ours.put(area, content, answer=answer) == MESSAGE_BYTES_MAX
    for (area, answer), content in contents.items():
        assert theirs.take_untrusted(area, MESSAGE_BYTES_MAX, answer=answer) == content
    assert ours.put(0, bytes(LEAST_BYTES - 1), answer=False) == 0
    with pytest.raises(RemoteProtocolError) as caught:
        theirs.take_untrusted(0, MESSAGE_BYTES_MAX + 1, answer=False)
    assert caught.value.code is Code.TOO_LARGE
    os.close(shared)


def test_its_size_is_sealed() -> None:
    shared = descriptor(1)
    for length in (0, 4096, 4 * MESSAGE_BYTES_MAX):
        with pytest.raises(PermissionError):
            os.ftruncate(shared, length)
    os.close(shared)


async def test_a_large_input_and_a_large_answer_arrive_whole(tmp_path: Path) -> None:
    def doubled(params: dict[str, Array], x: Array) -> Array:
        return x * params["two"]

    store = BundleStore(tmp_path / "home" / "store")
    made = bundle(
        doubled, {"two": np.full(1, 2, "float32")}, [np.zeros(20_000, "float32")], name="doubled", licence="CC0-1.0",
        store=store, slots=(1,), tolerance_ppm=1,
    )  # fmt: skip
    rows = np.random.default_rng(3).normal(size=(4, 20_000)).astype("<f4")
    asked = Asked(Work(arrays=tuple(row.tobytes() for row in rows)), made.cid, "call", Parameters())
    async with open_engine(store, [made.cid], log_path=tmp_path / "log") as engine:
        assert len(asked.job(engine.hpke_key).sealed) > LEAST_BYTES
        for _ in range(2):
            (piece,) = await asked.answer(engine)
            assert len(piece.tensor) > LEAST_BYTES
            np.testing.assert_array_equal(np.frombuffer(piece.tensor, "<f4").reshape(rows.shape), 2 * rows)


def test_a_worker_that_there_is_no_memory_to_share_with_is_not_started() -> None:
    """As under a limit on the size of files, which counts files in memory, too."""
    code = """
import resource, trio
from pathlib import Path
from fallow.node.engine.process import WorkerProcess
from fallow.protocol.errors import EngineError

async def main():
    before = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        WorkerProcess(["true"], Path("worker.log"))
    except EngineError as error:
        print(error.code, len(list(Path("/proc/self/fd").iterdir())) - before)

trio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "worker_failed 0\n", done.stderr

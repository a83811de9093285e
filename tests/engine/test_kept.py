"""Compiled programs on disk: they give the same bits, and whatever is wrong with one, it is compiled again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fallow.node.engine import device, loading
from fallow.node.engine.entries import generate
from fallow.node.engine.kept import FOLDER, Kept
from fallow.node.engine.loading import own_grant
from fallow.node.engine.programs import load
from fallow.node.engine.turns import alone
from fallow.protocol.work import Parameters, Work

from .conftest import Tiny

PARAMETERS = Parameters(12, 900, 900_000, seed=5)


def answer(tiny: Tiny, kept: Kept | None) -> list[tuple[int, int]]:
    model = load(tiny.store.open(tiny.chat), own_grant(kept))
    steps = alone(model, PARAMETERS, generate(model.manifest, PARAMETERS, Work(((7, 8, 9),))))
    return [(step.piece.tokens[0], step.piece.values_micro[0]) for step in steps]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Artifacts that had to be compiled, by their hashes."""
    seen: list[str] = []
    compile_untrusted = loading._compile_untrusted

    def counting(artifact: bytes, *rest: object) -> object:
        seen.append(artifact[:8].hex())
        return compile_untrusted(artifact, *rest)  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(loading, "_compile_untrusted", counting)
    return seen


def test_what_is_kept_is_not_compiled_again_and_gives_the_same_bits(
    tiny: Tiny, tmp_path: Path, compiled: list[str]
) -> None:
    """Even where JAX's own cache has the program: what was read from there cannot be serialised again."""
    device.configure(tiny.store.compile_cache)
    plain = answer(tiny, None)
    count = len(compiled)
    assert answer(tiny, Kept(tmp_path)) == plain
    assert len(compiled) == 2 * count
    assert answer(tiny, Kept(tmp_path)) == plain
    assert answer(tiny, Kept(tmp_path / "own", tmp_path)) == plain
    assert len(compiled) == 2 * count
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "other bytes", "no head", "not there"])
def test_a_damaged_one_is_compiled_again(tiny: Tiny, tmp_path: Path, compiled: list[str], damage: str) -> None:
    device.configure(tiny.store.compile_cache)
    plain = answer(tiny, Kept(tmp_path))
    count = len(compiled)
    for file in (tmp_path / FOLDER).iterdir():
        content = file.read_bytes()
        if damage == "not there":
            file.unlink()
            continue
        random = np.random.default_rng(1).integers(0, 256, 4096, np.uint8).tobytes()
        damaged = {
            "cut": content[: len(content) // 2],
            "empty": b"",
            "other bytes": content.partition(b"\n")[0] + random,
        }
        file.write_bytes(damaged.get(damage, content.partition(b"\n")[2]))
    assert answer(tiny, Kept(tmp_path)) == plain
    assert len(compiled) == 2 * count

"""Page 07: what a node demands of a bundle's programs, and what stands for figures that are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from nacl.signing import SigningKey

from fallow.node.engine import entries
from fallow.node.engine.bundles import BundleStore, file_of
from fallow.node.engine.operations import ATTRIBUTES, OPERATIONS
from fallow.node.engine.programs import load
from fallow.protocol.bundle import File, Manifest, Program, Tensor, Tolerance
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.work import Work

KEY = SigningKey(b"\x01" * 32)


def manifest_of(file: File, entry: str, programs: Sequence[tuple[str, int]]) -> Manifest:
    listed = tuple(Program(f"p{n}", role, 1, length, 64, file, 0, 0) for n, (role, length) in enumerate(programs))
    tolerance, outputs = Tolerance(0, 0, 0, 0, 0, (), ""), (Tensor("y", "float32", (1,)),)
    return Manifest("m", "none", "", "", (entry,), file, (), (), (), outputs, listed, file, None, 64, (), tolerance)


@pytest.mark.spec("B-8")
@pytest.mark.parametrize(
    ("entry", "programs"),
    [
        ("generate", [("prefill", 32)]),
        ("generate", [("decode", 1)]),
        ("generate", [("decode", 1), ("prefill", 24), ("prefill", 32)]),
        ("generate", [("decode", 1), ("prefill", 48)]),
        ("score", [("prefill", 32)]),
        ("score", [("score", 24)]),
        ("call", [("score", 32)]),
        ("call", [("call", 32)]),
        ("generate", [("decode", 1), ("decode", 1), ("prefill", 32)]),
    ],
)
def test_entries_without_programs_in_lengths_that_fit_are_not_served(
    tmp_path: Path, entry: str, programs: list[tuple[str, int]]
) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    manifest = manifest_of(file_of(empty), entry, programs)
    files = dict.fromkeys(manifest.files(), empty)
    bundle = BundleStore(tmp_path / "store").install(manifest, lambda made: sign(made, KEY), files)
    with pytest.raises(EngineError) as caught:
        load(bundle)
    assert caught.value.code is Code.WORKER_FAILED


def test_an_input_that_no_call_takes_is_too_long_though_the_context_has_room() -> None:
    manifest = manifest_of(File(0, (bytes(32),)), "call", [("call", 32)])
    assert next(entries.call(manifest, Work(((1,) * 32,))))
    with pytest.raises(EngineError) as caught:
        next(entries.call(manifest, Work(((1,) * 33,))))
    assert caught.value.code is Code.INPUT_TOO_LONG


@pytest.mark.spec("B-10")
def test_figures_that_are_none_are_out_of_every_tolerance() -> None:
    none = np.array([[np.nan, -np.inf, -2e6, -1.5e-6], [np.nan, np.inf, 2e6, 2.5e-6], [np.nan, np.inf, 1e-7, -1e-3]])
    manifest = manifest_of(File(0, (bytes(32),)), "score", [("score", 64)])
    steps = entries.score(manifest, Work(((1, 2, 3, 4, 5),), 4))
    assert next(steps) == entries.Judge((1, 2, 3, 4, 5), 4)
    piece = steps.send(none.astype(np.float32)).piece
    assert piece.values_micro == (-(2**40), -(2**40), -(2**40), -2)
    assert piece.gaps_micro == (2**40, 2**40, 2**40, 2)
    assert piece.masses_ppm == (10**6, 10**6, 0, 0)


@pytest.mark.spec("B-16")
def test_the_page_lists_what_programs_may_hold() -> None:
    page = (Path(__file__).parents[2] / "spec/07-bundles.md").read_text("utf-8")
    operations, attributes = (
        page.partition(f"<!-- {name} -->\n```\n")[2].partition("```")[0] for name in ("operations", "attributes")
    )
    listed, dialect = set(), ""
    for line in operations.splitlines():
        dialect = line[:10].strip() or dialect
        listed |= {f"{dialect}.{name}" for name in line[10:].split()}
    assert listed == OPERATIONS
    assert set(attributes.split()) == ATTRIBUTES

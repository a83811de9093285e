"""What fuzzing found is fed again to every function that takes a stranger's bytes, and each of them has its target."""

from __future__ import annotations

import ast
import importlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fallow.protocol.errors import RemoteProtocolError

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "fuzz/corpus"
PURE = (
    *ROOT.glob("protocol/**/*.py"),
    *ROOT.glob("node/network/*.py"),
    *ROOT.glob("node/sensors/*.py"),
    ROOT / "node/engine/messages.py",
)

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "fuzz")
    targets, mutation, seeds = map(importlib.import_module, ("targets", "mutation", "seeds"))

EACH_TARGET = pytest.mark.parametrize("name", targets.TARGETS)
SEEDS: dict[str, list[bytes]] = seeds.seeds()


def _untrusted_functions() -> Iterator[str]:
    for path in PURE:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.ClassDef(name=owner):
                    names = [(f"{owner}.{part.name}", part) for part in node.body if isinstance(part, ast.FunctionDef)]
                case ast.Module():
                    names = [(part.name, part) for part in node.body if isinstance(part, ast.FunctionDef)]
                case _:
                    continue
            yield from (f"{module}.{name}" for name, _ in names if name.endswith("_untrusted"))


def test_every_function_that_is_fed_by_strangers_has_a_target() -> None:
    assert {name for target in targets.TARGETS.values() for name in target.covers} == set(_untrusted_functions())


@EACH_TARGET
def test_the_corpus_brings_out_nothing_else(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs, "python fuzz/run.py TARGET --keep makes one"
    for path in inputs:
        targets.feed(targets.TARGETS[name], path.read_bytes())


@EACH_TARGET
def test_fuzzing_starts_with_what_is_valid(name: str) -> None:
    for seed in SEEDS[name]:
        targets.TARGETS[name].run(seed)


@EACH_TARGET
def test_inputs_near_to_valid_ones_bring_out_nothing_else(name: str) -> None:
    rng = random.Random(name)
    for number in range(100):
        given = SEEDS[name][number % len(SEEDS[name])]
        targets.feed(targets.TARGETS[name], mutation.mutate(given, rng, lambda part: _blunt(part, rng)))


def test_changed_records_get_behind_the_signature() -> None:
    """Otherwise fuzzing would only ever test that signatures do not hold."""
    rng, codes = random.Random(1), set()
    for number in range(300):
        given = SEEDS["identify"][number % len(SEEDS["identify"])]
        try:
            targets.TARGETS["identify"].run(mutation.mutate(given, rng, lambda part: _blunt(part, rng)))
        except RemoteProtocolError as error:
            codes.add(str(error.code))
        else:
            codes.add("accepted")
    assert {"accepted", "bad_record", "bad_encoding", "bad_signature"} <= codes


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 1_000_000


def _blunt(given: bytes, rng: random.Random) -> bytes:
    place, byte = rng.randrange(len(given) + 1), bytes([rng.randrange(256)])
    return rng.choice([given[:place] + byte + given[place + rng.randrange(2) :], given[:place] + given[place + 1 :]])

"""Compiled programs on disk: found as they were, never for another claim, and compiled anew if they cannot be read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fallow.node.engine import device
from fallow.node.engine.artifact import Aval, Signature
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.caps import RUN_RATIO, RUN_S_MAX, Caps, Speed, memory_bytes
from fallow.node.engine.engine import open_engine
from fallow.node.engine.entries import generate
from fallow.node.engine.kept import BEST_S, FOLDER, RATES, SPEED, Kept, hashed, unhashed
from fallow.node.engine.loading import Grant, Loaded, known_speed, load_untrusted, own_grant, unlimited
from fallow.node.engine.messages import Rates
from fallow.node.engine.programs import load as open_model
from fallow.node.engine.turns import alone
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.work import Parameters, Work

from .conftest import Tiny
from .hostile import HONEST_FLOPS, C, honest, serialized

SIGNATURE = Signature((), (), (Aval("int32", (1, C)), Aval("int32", (1,))), (Aval("float32", (1, 2)),))
INPUTS = np.arange(C, dtype=np.int32)[None], np.array([C], np.int32)


@pytest.fixture(scope="module")
def artifact(tiny: Tiny) -> bytes:
    device.configure(tiny.store.compile_cache)  # before anything runs
    return serialized(honest)


def load(artifact: bytes, kept: Kept, flops: int = HONEST_FLOPS) -> Loaded:
    return load_untrusted("program", artifact, SIGNATURE, flops=flops, slots=1, grant=own_grant(kept))


def output(loaded: Loaded) -> bytes:
    return np.asarray(loaded.run([], [], *INPUTS)[1]).tobytes()


def only_file(folder: Path) -> Path:
    (path,) = (folder / FOLDER).iterdir()
    return path


def test_a_program_is_found_as_it_was_also_beside(artifact: bytes, tmp_path: Path) -> None:
    first = load(artifact, Kept(tmp_path))
    written = only_file(tmp_path).stat().st_mtime_ns
    for kept in (Kept(tmp_path), Kept(tmp_path / "own", tmp_path)):
        again = load(artifact, kept)
        assert (again.isolation, again.run_s_max) == (first.isolation, first.run_s_max)
        assert output(again) == output(first)
    assert only_file(tmp_path).stat().st_mtime_ns == written
    assert not (tmp_path / "own").exists()


def test_a_program_that_is_read_ahead_is_found_once_and_then_read_again(artifact: bytes, tmp_path: Path) -> None:
    first, kept = output(load(artifact, Kept(tmp_path))), Kept(tmp_path)
    kept.read_ahead(artifact, SIGNATURE, flops=HONEST_FLOPS)
    for _ in range(2):
        assert output(load(artifact, kept)) == first


def test_a_program_that_is_not_there_when_it_is_read_ahead_is_compiled(artifact: bytes, tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.read_ahead(artifact, SIGNATURE, flops=HONEST_FLOPS)
    load(artifact, kept)
    assert only_file(tmp_path).exists()


def test_a_run_may_take_what_the_best_speed_says_that_was_seen_of_the_machine(artifact: bytes, tmp_path: Path) -> None:
    """What was measured in a busy moment holds until somebody sees more: nothing of it stays with the programs."""

    def limit(kept: Kept) -> float:
        grant = Grant(Caps(memory_bytes(), run_s=0.0), known_speed(kept), unlimited, kept)
        loaded = load_untrusted("program", artifact, SIGNATURE, flops=HONEST_FLOPS, slots=1, grant=grant)
        return loaded.run_s_max

    kept = Kept(tmp_path)
    kept.learn(Speed(100.0, 1e9))
    slow = limit(kept)
    assert slow == pytest.approx(RUN_RATIO * HONEST_FLOPS / 100.0, rel=0.01)
    kept.learn(Speed(10_000.0, 1e3))  # better in one, worse in the other
    assert limit(Kept(tmp_path)) == pytest.approx(slow / 100, rel=0.01)
    assert Kept(tmp_path / "own", tmp_path).speed() == Speed(10_000.0, 1e9)
    for spoilt in (b"", (tmp_path / SPEED).read_bytes()[:-1]):
        (tmp_path / SPEED).write_bytes(spoilt)
        assert kept.speed() is None
    assert limit(kept) <= RUN_S_MAX
    assert kept.speed() is not None  # measured, and kept


@pytest.mark.spec("B-18")
def test_a_manifest_that_claims_other_flops_of_a_kept_program_is_refused(artifact: bytes, tmp_path: Path) -> None:
    load(artifact, Kept(tmp_path))
    with pytest.raises(EngineError, match="claims 5 FLOPs") as caught:
        load(artifact, Kept(tmp_path), flops=5)
    assert caught.value.code is Code.BUNDLE_REFUSED


HEAD = b'{"isolated": true, "reason": "", "needed_bytes": 1, "flops": 5, "moved_bytes": 5, "bounded": true}\n'


@pytest.mark.parametrize("content", [b"", b"[]\n", HEAD + b"cut short", HEAD + b"cno.such.module\nname\n."])
def test_what_cannot_be_read_is_compiled_anew(artifact: bytes, tmp_path: Path, content: bytes) -> None:
    first = output(load(artifact, Kept(tmp_path)))
    only_file(tmp_path).write_bytes(hashed(content))
    assert output(load(artifact, Kept(tmp_path))) == first
    assert len(only_file(tmp_path).read_bytes()) > 1000


def test_a_model_answers_with_the_same_bits_even_where_jax_s_own_cache_has_its_programs(
    tiny: Tiny, tmp_path: Path
) -> None:
    """What was read from that cache cannot be serialised again; see `device.uncached`."""

    def answer(kept: Kept | None) -> list[tuple[int, int]]:
        model, parameters = (
            open_model(tiny.store.open(tiny.chat), own_grant(kept)),
            Parameters(12, 900, 900_000, seed=5),
        )
        steps = alone(model, parameters, generate(model.manifest, parameters, Work(((7, 8, 9),))))
        return [(step.piece.tokens[0], step.piece.values_micro[0]) for step in steps]

    device.configure(tiny.store.compile_cache)
    plain = answer(None)
    assert answer(Kept(tmp_path)) == plain
    assert answer(Kept(tmp_path)) == plain


def test_of_rates_the_better_counts_for_each_bundle_by_itself(artifact: bytes, tmp_path: Path) -> None:
    kept, one, other = Kept(tmp_path), bytes(32), bytes([1]) * 32
    kept.learn_rates(one, Rates(prefill_milli=5, decode_milli=2))
    kept.learn_rates(one, Rates(prefill_milli=4, decode_milli=3))
    assert Kept(tmp_path / "own", tmp_path).rates(one) == Rates(prefill_milli=5, decode_milli=3)
    assert kept.rates(other) is None
    (tmp_path / (RATES + one.hex())).write_bytes(b"{}")
    assert kept.rates(one) is None


def test_after_a_day_the_newest_rates_count_whatever_they_are(artifact: bytes, tmp_path: Path) -> None:
    now_s, bundle = [0.0], bytes(32)
    kept = Kept(tmp_path / "own", tmp_path, lambda: now_s[0])
    (tmp_path / "own").mkdir()
    Kept(tmp_path, clock=lambda: now_s[0]).learn_rates(bundle, Rates(call_milli=9))
    for days, measured, counts in ((0.9, 5, 9), (1.1, 4, 4), (1.2, 7, 7), (2.2, 3, 3)):
        now_s[0] = days * BEST_S
        kept.learn_rates(bundle, Rates(call_milli=measured))
        assert kept.rates(bundle) == Rates(call_milli=counts)
    now_s[0] = 9 * BEST_S
    assert kept.rates(bundle) == Rates(call_milli=3)  # better than none


def test_what_was_measured_with_other_cores_is_not_believed(artifact: bytes, tmp_path: Path) -> None:
    Kept(tmp_path).learn_rates(bytes(32), Rates(call_milli=9))
    assert Kept(tmp_path).rates(bytes(32)) is not None
    content = json.loads(unhashed((tmp_path / (RATES + bytes(32).hex())).read_bytes()))
    content["host"] = content["host"].replace(f", {len(os.sched_getaffinity(0))}, ", ", 999, ")
    (tmp_path / (RATES + bytes(32).hex())).write_bytes(hashed(json.dumps(content).encode()))
    assert Kept(tmp_path).rates(bytes(32)) is None


async def test_a_worker_says_what_an_earlier_one_has_measured_on_this_machine(tiny: Tiny, tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "store")
    shutil.copytree(tiny.store.root / "bundles", store.root / "bundles")
    bundle, measured = store.open(tiny.embed).hash, Rates(call_milli=2**40)
    kept = Kept(store.worker_cache([tiny.embed]))
    async with open_engine(store, [tiny.embed], log_path=tmp_path / "first.log") as engine:
        assert engine.served[bundle].rates == kept.rates(bundle)
    kept.learn_rates(bundle, measured)
    async with open_engine(store, [tiny.embed], log_path=tmp_path / "second.log") as engine:
        assert engine.served[bundle].rates == measured
        better = Rates(call_milli=2**41)  # as the worker itself may find when it measures once more
        kept.learn_rates(bundle, better)
        await engine.restart()
        assert engine.served[bundle].rates == better

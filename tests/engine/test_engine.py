"""The real worker over tiny models: what it computes, what it refuses, and that it is gone when it should be."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trio

from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.messages import AHEAD_PIECES_MAX, DONE, LENGTH, Begin, EngineJob, Here, Loading, Ready
from fallow.node.engine.process import WorkerProcess
from fallow.node.engine.spawning import worker_command
from fallow.protocol.errors import Code, EngineError
from fallow.protocol.identity import cid
from fallow.protocol.work import Parameters, Piece, Work

from .conftest import Asked, Tiny

PROMPT = tuple(range(40, 85))
"""More than one chunk of the tiny model's 32."""
SEEDED = Parameters(max_tokens=40, temperature_milli=900, top_p_ppm=900_000, seed=2**40 + 7)


def ask(tiny: Tiny, prompt: tuple[int, ...] = PROMPT, parameters: Parameters | None = None) -> Asked:
    return Asked(Work((prompt,)), tiny.chat, parameters=parameters or Parameters(max_tokens=16))


async def scored(engine: Engine, tiny: Tiny, text: list[int], parameters: Parameters, prompt: tuple[int, ...]) -> Piece:
    work = Work(((*prompt, *text),), claimed=len(text))
    (piece,) = await Asked(work, tiny.chat, "score", parameters).answer(engine)
    return piece


@pytest.mark.spec("J-19")
async def test_text_is_deterministic_and_checkable(engine: Engine, tiny: Tiny) -> None:
    tolerance = tiny.store.open(tiny.chat).manifest.tolerance
    text, values = await ask(tiny).text(engine)
    assert (text, values) == await ask(tiny).text(engine)
    assert len(text) == 16
    piece = await scored(engine, tiny, text, Parameters(), PROMPT)
    assert max(piece.gaps_micro) <= tolerance.gap_micro
    assert np.abs(np.subtract(piece.values_micro, values)).max() <= tolerance.value_micro
    altered = [*text[:7], (text[7] + 1) % 64, *text[8:]]
    piece = await scored(engine, tiny, altered, Parameters(), PROMPT)
    assert piece.gaps_micro[7] > tolerance.gap_micro
    assert max(piece.gaps_micro[:7]) <= tolerance.gap_micro


async def test_seeded_text_is_reproducible_and_checkable(engine: Engine, tiny: Tiny) -> None:
    tolerance = tiny.store.open(tiny.chat).manifest.tolerance
    text, _ = await ask(tiny, parameters=SEEDED).text(engine)
    assert text == (await ask(tiny, parameters=SEEDED).text(engine))[0]
    other = Parameters(40, 900, 900_000, 2**40 + 8)
    assert text != (await ask(tiny, parameters=other).text(engine))[0]
    piece = await scored(engine, tiny, text, SEEDED, PROMPT)
    assert max(piece.gaps_micro) <= tolerance.gap_micro
    assert max(piece.masses_ppm) < SEEDED.top_p_ppm + tolerance.mass_ppm
    assert max((await scored(engine, tiny, text, other, PROMPT)).gaps_micro) > tolerance.gap_micro


@pytest.mark.parametrize("parameters", [Parameters(max_tokens=40), SEEDED], ids=["greedy", "seeded"])
async def test_another_node_goes_on_where_one_stopped(engine: Engine, tiny: Tiny, parameters: Parameters) -> None:
    whole, _ = await ask(tiny, parameters=parameters).text(engine)
    for made in (1, 19, 39):
        rest = Parameters(40 - made, parameters.temperature_milli, parameters.top_p_ppm, parameters.seed)
        text, _ = await ask(tiny, (*PROMPT, *whole[:made]), rest).text(engine)
        assert text == whole[made:]


@pytest.mark.spec("B-9")
async def test_prompts_of_every_length_fill_the_cache_alike(engine: Engine, tiny: Tiny) -> None:
    for length in (1, 31, 32, 33, 64, 65):
        prompt = tuple(range(30, 30 + length))
        text, values = await ask(tiny, prompt).text(engine)
        piece = await scored(engine, tiny, text, Parameters(), prompt)
        assert np.abs(np.subtract(piece.values_micro, values)).max() <= 100
    most = tiny.store.open(tiny.chat).manifest.context_tokens_max
    for parameters in (Parameters(max_tokens=1), Parameters(max_tokens=6)):
        text, _ = await ask(tiny, (65,) * (most - parameters.max_tokens), parameters).text(engine)
        assert len(text) == parameters.max_tokens


async def test_jobs_side_by_side_give_what_each_gives_alone(engine: Engine, tiny: Tiny) -> None:
    prompts = [PROMPT[:5], PROMPT, PROMPT[::-1], (7,)]
    alone = [await ask(tiny, prompt, SEEDED).text(engine) for prompt in prompts]
    together: dict[int, tuple[list[int], list[int]]] = {}

    async def one(index: int) -> None:
        together[index] = await ask(tiny, prompts[index], SEEDED).text(engine)

    async with trio.open_nursery() as nursery:
        for index in range(4):
            nursery.start_soon(one, index)
    for index in range(4):  # in batches of other widths: the same text, and values within what rounding does
        assert together[index][0] == alone[index][0]
        assert np.abs(np.subtract(together[index][1], alone[index][1])).max() <= 100


async def test_embeddings(engine: Engine, tiny: Tiny) -> None:
    sequences = (PROMPT[:3], PROMPT[:32], PROMPT[:3])
    asked = Asked(Work(sequences), tiny.embed, "call", Parameters())
    pieces = [piece async for piece in engine.submit(asked.job(engine.hpke_key))]
    assert [piece.end for piece in pieces] == [DONE]
    (piece,) = asked.open(pieces)
    output = np.frombuffer(piece.tensor, "<f4").reshape(piece.shape)
    assert output.shape[0] == 3
    assert np.array_equal(output[0], output[2])
    assert not np.array_equal(output[0], output[1])
    assert np.isfinite(output).all()


async def test_a_job_that_nobody_reads_waits_and_holds_up_nobody(engine: Engine, tiny: Tiny) -> None:
    unread = ask(tiny, parameters=Parameters(max_tokens=3 * AHEAD_PIECES_MAX))
    answer = engine.submit(unread.job(engine.hpke_key))
    assert len((await ask(tiny, parameters=Parameters(max_tokens=3 * AHEAD_PIECES_MAX)).text(engine))[0]) == 96
    pieces = [piece async for piece in answer]
    assert pieces[-1].end == LENGTH
    assert len(unread.open(pieces)) == 3 * AHEAD_PIECES_MAX


async def test_cancelled_jobs_end_and_free_their_slot(engine: Engine, tiny: Tiny) -> None:
    slots = engine.free_slots
    asked, unstarted = ask(tiny, parameters=Parameters(max_tokens=150)), ask(tiny)
    answer = engine.submit(asked.job(engine.hpke_key))
    first = await anext(answer)
    engine.cancel(asked.id)
    pieces = [first, *[piece async for piece in answer]]
    assert asked.open(pieces)
    assert not pieces[-1].end
    never = engine.submit(unstarted.job(engine.hpke_key))
    engine.cancel(unstarted.id)
    engine.cancel(unstarted.id)
    assert [piece async for piece in never] == []
    await ask(tiny).text(engine)  # by its end the worker has said that it stopped the others
    assert engine.free_slots == slots
    engine.cancel(b"never heard of")


async def test_a_worker_with_a_pace_writes_the_same_and_hears_its_daemon_in_its_pauses(
    engine: Engine, tiny: Tiny
) -> None:
    before = await ask(tiny).text(engine)
    engine.pace(0.3)
    assert await ask(tiny).text(engine) == before
    engine.pace(0.0)  # as little as there is
    asked = ask(tiny, parameters=Parameters(max_tokens=150))
    answer = engine.submit(asked.job(engine.hpke_key))
    await anext(answer)
    engine.cancel(asked.id)
    engine.pace(1.0)
    assert await ask(tiny).text(engine) == before
    engine.kill()
    engine.pace(0.5)
    await engine.restart()
    assert await ask(tiny).text(engine) == before


async def test_the_owner_takes_the_machine_and_gives_it_back(engine: Engine, tiny: Tiny) -> None:
    before = await ask(tiny).text(engine)
    key, seen = engine.hpke_key, engine.generation
    asked = ask(tiny, parameters=Parameters(max_tokens=150))
    answer = engine.submit(asked.job(key))
    await anext(answer)
    engine.kill()
    assert (engine.hpke_key, engine.free_slots, dict(engine.served)) == (b"", 0, {})
    assert await engine.changed(seen) > seen
    with pytest.raises(EngineError) as caught:
        [piece async for piece in answer]
    assert caught.value.code == Code.WORKER_DIED
    with pytest.raises(EngineError) as caught:
        engine.submit(asked.job(key))
    assert caught.value.code == Code.WORKER_DIED
    await engine.restart()
    assert engine.hpke_key not in (b"", key)
    assert await ask(tiny).text(engine) == before
    with pytest.raises(EngineError) as caught:  # sealed to the worker that is gone
        [piece async for piece in engine.submit(asked.job(key))]
    assert caught.value.code == Code.INPUT_MISMATCH


UNCOVERED: list[tuple[Code, Callable[[EngineJob], dict[str, object]]]] = [
    (Code.INPUT_MISMATCH, lambda job: {"input_digest": bytes(32)}),
    (Code.INPUT_MISMATCH, lambda job: {"input_tokens": job.input_tokens - 1}),
    (Code.INPUT_MISMATCH, lambda job: {"sealed": job.sealed[:-1] + bytes([job.sealed[-1] ^ 1])}),
    (Code.INPUT_MISMATCH, lambda job: {"id": bytes(32)}),
    (Code.INPUT_TOO_LONG, lambda job: {"parameters": Parameters(max_tokens=4096)}),
    (Code.BAD_RECORD, lambda job: {"parameters": Parameters(max_tokens=0)}),
    (Code.BAD_RECORD, lambda job: {"entry": "score"}),
    (Code.UNKNOWN_ENTRY, lambda job: {"entry": "call"}),
    (Code.UNKNOWN_BUNDLE, lambda job: {"bundle": bytes(32)}),
]


@pytest.mark.spec("J-16")
async def test_what_an_order_does_not_cover_is_refused(engine: Engine, tiny: Tiny) -> None:
    for code, change in UNCOVERED:
        asked = ask(tiny)
        changes = change(asked.job(engine.hpke_key))
        with pytest.raises(EngineError) as caught:
            [piece async for piece in engine.submit(asked.job(engine.hpke_key, **changes))]
        assert caught.value.code == code, changes
    assert len((await ask(tiny).text(engine))[0]) == 16
    assert engine.generation == 3  # the worker that started first did all of it


async def test_slots_are_bounded_and_orders_run_once(tiny: Tiny, tmp_path: Path) -> None:
    async with open_engine(tiny.store, [tiny.chat], log_path=tmp_path / "log", max_jobs=2) as engine:
        asked = ask(tiny, parameters=Parameters(max_tokens=150))
        engine.submit(asked.job(engine.hpke_key))
        for code, job in ((Code.REPLAYED, asked), (None, ask(tiny)), (Code.BUSY, ask(tiny))):
            if code is None:
                engine.submit(job.job(engine.hpke_key))
                continue
            with pytest.raises(EngineError) as caught:
                engine.submit(job.job(engine.hpke_key))
            assert caught.value.code == code


@pytest.mark.parametrize("fault", ["corrupt", "absent"])
async def test_a_bundle_that_is_not_as_its_cid_says_is_not_served(tiny: Tiny, tmp_path: Path, fault: str) -> None:
    store, wanted = BundleStore(tmp_path / "store"), tiny.embed
    shutil.copytree(tiny.store.root / "bundles", store.root / "bundles")
    if fault == "corrupt":
        weights = store.open(tiny.embed).path / "weights.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    else:
        wanted = cid(bytes(32))
    with pytest.raises(EngineError) as caught:
        async with open_engine(store, [wanted, tiny.chat], log_path=tmp_path / "log"):
            pytest.fail("it must not start")
    assert caught.value.code == (Code.CORRUPT_CHUNK if fault == "corrupt" else Code.BUNDLE_NOT_BUILT)
    assert (fault == "absent") or "weights.safetensors" in caught.value.message


async def test_the_worker_ignores_ctrl_c_and_goes_with_its_daemon(tiny: Tiny, tmp_path: Path) -> None:
    process = WorkerProcess(
        [*worker_command(), "--store", str(tiny.store.root), "--bundle", tiny.embed], tmp_path / "log"
    )
    await process.begin(Begin())
    for word in (Here, Loading, Ready):
        assert isinstance(await anext(process), word)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 10
    os.kill(process.pid, signal.SIGINT)
    with trio.fail_after(20):
        assert await process.exit_code() == 0


async def test_only_a_first_start_lets_a_crowd_go_before(tiny: Tiny, tmp_path: Path) -> None:
    """After a yield somebody may be waiting: the rest of the programs come at once, however much else wants to run."""
    worker, log = tmp_path / "worker.py", tmp_path / "log"
    worker.write_text(
        "from fallow.node.engine import workbench, worker\n"
        "workbench.crowded = lambda: print('looks', flush=True)\n"  # and the kernel says that there is no crowd
        "worker.main()\n"
    )
    programs = tiny.store.open(tiny.embed).manifest.programs

    async def all_loaded(starts: int) -> int:
        """How often it has looked, once every program was loaded."""
        while True:
            said = log.read_text()
            if all(said.count(f": {each.name} in ") == starts for each in programs):
                return said.count("looks")
            await trio.sleep(0.05)

    with trio.fail_after(120):
        async with open_engine(tiny.store, [tiny.embed], log_path=log, command=[sys.executable, str(worker)]) as engine:
            assert await all_loaded(1) == 1
            engine.kill()
            await engine.restart()
            assert await all_loaded(2) == 1


async def test_a_liar_is_a_few_lines(tiny: Tiny, tmp_path: Path) -> None:
    liar = tmp_path / "liar.py"
    liar.write_text(
        "from dataclasses import replace\n"
        "from fallow.node.engine import entries, worker\n"
        "def lie(manifest, entry, parameters, work):\n"
        "    honest, reply = entries.run_entry(manifest, entry, parameters, work), None\n"
        "    while True:\n"
        "        asked = honest.send(reply)\n"
        "        if isinstance(asked, entries.Step):\n"
        "            asked = replace(asked, piece=replace(asked.piece, values_micro=(-1,)))\n"
        "        reply = yield asked\n"
        "worker.main(run=lie)\n"
    )
    command = [sys.executable, str(liar)]
    async with open_engine(tiny.store, [tiny.chat], log_path=tmp_path / "log", command=command) as engine:
        _, values = await ask(tiny).text(engine)
    assert values == [-1] * 16


async def test_a_worker_that_computes_the_same_again_and_again_is_ended_and_why_is_said(
    tiny: Tiny, tmp_path: Path
) -> None:
    """A step without a piece for each token and input of the work, and no more."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "from fallow.node.engine import entries, worker\n"
        "def again(manifest, entry, parameters, work):\n"
        "    asked = next(entries.run_entry(manifest, entry, parameters, work))\n"
        "    for _ in range(int(parameters.seed)):\n"
        "        result = yield asked\n"
        "    yield entries.Step(entries.Piece(tensor=result.tobytes(), shape=result.shape), entries.DONE)\n"
        "worker.main(run=again)\n"
    )
    command = [sys.executable, str(worker)]
    async with open_engine(tiny.store, [tiny.embed], log_path=tmp_path / "log", command=command) as engine:
        work = Work(((7, 8, 9),))  # three tokens, one input, and then the step that gives the piece
        await Asked(work, tiny.embed, "call", Parameters(seed=5)).answer(engine)
        with pytest.raises(EngineError, match="more steps that gave no piece than its jobs can need") as caught:
            await Asked(work, tiny.embed, "call", Parameters(seed=6)).answer(engine)
        assert caught.value.code == Code.TOO_MANY_STEPS
        assert engine.ended is not None
        assert (engine.ended.code, engine.ended.jobs) == (Code.TOO_MANY_STEPS, 1)


def test_the_daemons_side_loads_no_jax() -> None:
    check = "import fallow.node.engine.engine, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0

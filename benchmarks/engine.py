"""The engine beside the bare compiled step: tokens per second, first token, kill, restart.

    python benchmarks/engine.py [NAME]        a text bundle built on this machine (smollm2-135m-instruct)

Engine and bare runs alternate; on a noisy machine only the ratio within one run means much.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import trio

from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.messages import EngineJob
from fallow.node.engine.process import WorkerProcess
from fallow.node.engine.sealing import seal_input
from fallow.node.engine.spawning import worker_command
from fallow.protocol.work import Input, Parameters, Work

PROMPT = tuple(range(1000, 1040))
TOKENS = 96
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    home = Path(os.environ.get("FALLOW_HOME", Path.home() / ".fallow"))
    store = BundleStore(home / "store")
    bundle = store.find(options.name)
    if bundle is None:
        sys.exit(f"{options.name} is not built: run `fallow bundle build {options.name}`")
    if options.bare:
        return serve_bare(store, bundle)
    words = [sys.executable, __file__, "--bare", options.name]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bare:
        figures = trio.run(measure, store, bundle, bare)
    for name, value in figures.items():
        print(f"{name:30} {value}")


def serve_bare(store: BundleStore, bundle: Bundle) -> None:
    """For each line on standard input, one run without engine, answered with its seconds to first and last token."""
    from fallow.node.engine import device, programs, sequences

    device.configure(store.compile_cache)
    model = programs.load(bundle)
    context = next(each for each in model.contexts("decode") if each >= len(PROMPT) + TOKENS)
    sampling = sequences.sampling_of([None])
    (decode,) = [each for each in model.programs("decode", context) if each.program.slots == 1]
    print("ready", flush=True)
    for _ in sys.stdin:
        began, position = time.perf_counter(), 0
        state = sequences.zeros(bundle.manifest.state, 1, context)
        while position < len(PROMPT):
            prefill = model.chunk("prefill", position, len(PROMPT) - position, context, context)
            taken = PROMPT[position : position + prefill.length]
            tokens = np.zeros((1, prefill.length), np.int32)
            tokens[0, : len(taken)] = taken
            start, length = np.array([position], np.int32), np.array([len(taken)], np.int32)
            state, (token, _) = prefill.run(state, tokens, start, length, *sampling)
            position += len(taken)
        first = time.perf_counter() - began
        for position in range(len(PROMPT), len(PROMPT) + TOKENS - 1):
            state, (token, _) = decode.run(state, token, np.array([position], np.int32), *sampling)
        print(json.dumps([first, time.perf_counter() - began]), flush=True)


async def measure(store: BundleStore, bundle: Bundle, bare: subprocess.Popen[str]) -> dict[str, str]:
    log = Path(tempfile.mkdtemp()) / "worker.log"
    assert bare.stdin
    assert bare.stdout
    bare.stdout.readline()
    pairs: dict[str, list[list[float]]] = {"bare": [], "engine": []}
    async with open_engine(store, [bundle.cid], log_path=log) as engine:
        await one_job(engine, bundle)
        for _ in range(ROUNDS):
            print(file=bare.stdin, flush=True)
            pairs["bare"].append(json.loads(bare.stdout.readline()))
            pairs["engine"].append(await one_job(engine, bundle))
        bare.stdin.close()
        restarts = [await timed_restart(engine) for _ in range(3)]
    kills = [await timed_kill(store, bundle, log) for _ in range(2)]
    rates = {who: [(TOKENS - 1) / (last - first) for first, last in runs] for who, runs in pairs.items()}
    firsts = {who: [first for first, _ in runs] for who, runs in pairs.items()}
    middle = statistics.median
    ratio = middle(rates["engine"]) / middle(rates["bare"])
    return {
        "bare step": f"{middle(rates['bare']):.1f} tokens/s",
        "engine": f"{middle(rates['engine']):.1f} tokens/s, {ratio:.1%} of bare",
        "first token, bare": f"{1e3 * middle(firsts['bare']):.1f} ms after a prompt of {len(PROMPT)}",
        "first token, engine": f"{1e3 * middle(firsts['engine']):.1f} ms",
        "restart to ready, cache warm": f"{middle(restarts):.2f} s",
        "kill to reaped": f"{1e3 * middle(kills):.0f} ms",
    }


async def one_job(engine: Engine, bundle: Bundle) -> list[float]:
    """Seconds to the first and to the last token."""
    plain = Input(os.urandom(32), os.urandom(32), Work((PROMPT,)).encode())
    order = os.urandom(32)
    sealed = seal_input(engine.hpke_key, order, plain.encode())
    began, times = time.perf_counter(), []
    job = EngineJob(order, bundle.hash, bytes(32), "generate", Parameters(TOKENS), plain.digest, len(PROMPT), sealed)
    async for piece in engine.submit(job):
        times += [time.perf_counter() - began] * piece.tokens
    assert len(times) == TOKENS, "the model ended its answer early: choose another prompt"
    return [times[0], times[-1]]


async def timed_restart(engine: Engine) -> float:
    began = time.perf_counter()
    await engine.restart()
    return time.perf_counter() - began


async def timed_kill(store: BundleStore, bundle: Bundle, log: Path) -> float:
    process = WorkerProcess([*worker_command(), "--store", str(store.root), "--bundle", bundle.cid], log)
    await anext(process)
    began = time.perf_counter()
    await process.kill_and_reap()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

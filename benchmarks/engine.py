"""The engine beside the bare compiled step: its overhead, and many streams beside one.

    python benchmarks/engine.py [NAME]        a text bundle built on this machine (smollm2-135m-instruct)

Engine and bare runs take turns, each in a process of its own; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import bare
import jobs
import numpy as np
import table
import trio
from jobs import PROMPT, Text

from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.sequences import sampling_of, zeros

TOKENS = 96
ROUNDS = 7
OVERHEAD_AIM = 0.05
STREAMS, CLIENTS, STREAMS_AIM = 8, 2, 2.5


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    store, bundle = jobs.installed(options.name)
    if options.bare:
        return serve_bare(store, bundle)
    table.head()
    words = [sys.executable, __file__, "--bare", options.name]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        trio.run(measure, store, bundle, child)


def serve_bare(store: BundleStore, bundle: Bundle) -> None:
    """For each line on standard input, one run without engine, answered with its seconds to first and last token."""
    model = bare.load(store, bundle)
    context = next(each for each in model.contexts("decode") if each >= len(PROMPT) + TOKENS)
    sampling = sampling_of([None])
    decode = bare.program(model, "decode", 1, 1, context)
    print("ready", flush=True)
    for _ in sys.stdin:
        began, position = time.perf_counter(), 0
        state = zeros(bundle.manifest.state, 1, context)
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


async def measure(store: BundleStore, bundle: Bundle, child: subprocess.Popen[str]) -> None:
    assert child.stdin
    assert child.stdout
    child.stdout.readline()
    alone: list[list[float]] = []
    ones: list[Text] = []
    many: list[list[Text]] = []
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "worker.log")
        async with open_engine(store, [bundle.cid], log_path=log, max_jobs=STREAMS) as engine:
            await jobs.all_loaded(bundle, log)
            await warm_up(engine, bundle)
            for _ in range(ROUNDS):
                print(file=child.stdin, flush=True)
                alone.append(json.loads(child.stdout.readline()))
                ones.append(await jobs.write(engine, bundle, PROMPT, TOKENS))
                many.append(await jobs.write_beside(engine, bundle, STREAMS, CLIENTS, TOKENS))
    child.stdin.close()
    assert all(len(text.tokens) == TOKENS for text in ones), "the model ended its answer early: choose another prompt"
    overhead(alone, ones)
    streams(ones, many)


async def warm_up(engine: Engine, bundle: Bundle) -> None:
    await jobs.write(engine, bundle, PROMPT, TOKENS)
    await jobs.write_beside(engine, bundle, STREAMS, CLIENTS, TOKENS)


def overhead(alone: list[list[float]], ones: list[Text]) -> None:
    bare_rates = [(TOKENS - 1) / (last - first) for first, last in alone]
    rates = [text.rate for text in ones]
    share = median(bare.ratios(rates, bare_rates))
    table.row("bare step", table.per_s(bare_rates))
    table.row(
        "engine",
        f"{table.per_s(rates)}, {share:.1%} of the bare step",
        f">= {1 - OVERHEAD_AIM:.0%}",
        share >= 1 - OVERHEAD_AIM,
    )
    table.row(f"first token after a prompt of {len(PROMPT)}, bare", table.ms([first for first, _ in alone]))
    table.row("first token, engine", table.ms([text.first_s for text in ones]))


def streams(ones: list[Text], many: list[list[Text]]) -> None:
    """Prints the tokens per second of all streams together while all of them write, and from submission to the last end."""
    together = [while_all_write(texts) for texts in many]
    whole = [sum(len(text.tokens) for text in texts) / spent(texts) for texts in many]
    one_whole = [len(text.tokens) / spent([text]) for text in ones]
    times = median(bare.ratios(together, [text.rate for text in ones]))
    table.row(
        f"{STREAMS} streams of {CLIENTS} clients, all writing",
        f"{table.per_s(together)}, {times:.2f}x one",
        f">= {STREAMS_AIM}x one",
        times >= STREAMS_AIM,
    )
    table.row(
        f"the same with their prompts, {TOKENS} tokens each",
        f"{table.per_s(whole)}, {median(bare.ratios(whole, one_whole)):.2f}x one",
    )
    table.row("first token of the last of them", table.ms([max(text.first_s for text in texts) for texts in many]))


def while_all_write(texts: list[Text]) -> float:
    """Tokens per second from when the last has begun until the first ends."""
    begin, end = max(text.arrivals[0] for text in texts), min(text.arrivals[-1] for text in texts)
    return sum(begin < arrival <= end for text in texts for arrival in text.arrivals) / (end - begin)


def spent(texts: list[Text]) -> float:
    """Seconds from the first submission to the last token."""
    return max(text.arrivals[-1] for text in texts) - min(text.submitted for text in texts)


if __name__ == "__main__":
    main()

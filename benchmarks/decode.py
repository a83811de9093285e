"""Tokens per second of the compiled decode steps alone, beside the speed at which this machine reads the weights.

    python benchmarks/decode.py [NAME]        a text bundle built on this machine (smollm2-135m-instruct)

A step of one slot has to read all weights once: bandwidth / bytes is the most steps that a second can have. Readers and
steps take turns; ratios are medians over the rounds. Each slot holds a sequence of its own.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from statistics import median

import bare
import jax
import jax.numpy as jnp
import jobs
import numpy as np
import table
from bare import Writer, ratios, take_turns

from fallow.node.engine import device
from fallow.protocol.bundle import Manifest

ROUNDS = 15
STEPS = 8
"""Of each decode program in a round: a third of a second for one slot."""
BANDWIDTH_AIM = 0.85
STREAMS, STREAMS_AIM = 8, 2.5


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    store, bundle = jobs.installed(parser.parse_args().name)
    model = bare.load(store, bundle)
    weights = device.map_weights(bundle)
    readers = readers_of(weights)
    programs = sorted(model.programs("decode"), key=lambda each: each.program.slots)  # one slot's next to the readers
    sizes = [(each.program.slots, each.program.context) for each in programs]
    calls: dict[str, Callable[[], object]] = dict(readers)
    for size in sizes:
        calls[label(*size)] = partial(Writer(model, *size).steps, STEPS)
    taken = take_turns(calls, ROUNDS)
    table.head()
    quickest = reading(taken, list(readers), sum(each.nbytes for each in weights))
    deciding(taken, quickest, sizes, bundle.manifest, sum(each.nbytes for each in weights))


def label(slots: int, context: int) -> str:
    return f"decode, {slots} slot{'s' * (slots > 1)}, context {context}"


def readers_of(weights: list[jax.Array]) -> dict[str, Callable[[], object]]:
    """Ways to read every weight once. No one of them is the best on every machine."""
    sums = jax.jit(lambda arrays: [jnp.sum(array) for array in arrays])
    products = jax.jit(lambda arrays: [array @ jnp.ones(array.shape[-1], array.dtype) for array in arrays])
    wait: Callable[[object], object] = jax.block_until_ready
    readers: dict[str, Callable[[], object]] = {
        "all weights read: XLA, their sums": lambda: wait(sums(weights)),
        "all weights read: XLA, each by a vector of ones": lambda: wait(products(weights)),
    }
    if jax.default_backend() == "cpu":
        threads = os.cpu_count() or 1
        pool = ThreadPoolExecutor(threads)
        pieces = [piece for array in weights for piece in np.array_split(np.asarray(array).ravel(), threads)]
        readers[f"all weights read: NumPy, their maxima, {threads} threads"] = lambda: list(pool.map(np.max, pieces))
    return readers


def reading(taken: dict[str, list[float]], readers: list[str], length_bytes: int) -> str:
    """Prints what each reader does; returns the name of the one that is taken for the machine's bandwidth."""
    for name in readers:
        best = length_bytes / min(taken[name]) / 1e9
        table.row(
            f"{name} ({length_bytes / 1e6:.0f} MB)",
            f"{length_bytes / median(taken[name]) / 1e9:.1f} GB/s (best {best:.1f})",
        )
    quickest = min(readers, key=lambda name: median(taken[name]))
    most = [1 / each for each in taken[quickest]]
    table.row("the most that the quickest of these allows one slot, by weights alone", table.per_s(most))
    return quickest


def deciding(
    taken: dict[str, list[float]], quickest: str, sizes: list[tuple[int, int]], manifest: Manifest, length_bytes: int
) -> None:
    """Prints one row for each decode program, the wide ones beside that of one slot in the same context."""
    for slots, context in sorted(sizes, key=lambda size: (size[1], size[0])):
        name = label(slots, context)
        rates = table.per_s([slots * STEPS / each for each in taken[name]])
        if slots == 1:
            share = median(ratios([STEPS * each for each in taken[quickest]], taken[name]))
            cache = sum(prod(each.shape_in(context)) * np.dtype(each.dtype).itemsize for each in manifest.state)
            both = (
                f"{share * (1 + cache / length_bytes):.0%} of what weights and its cache of {cache / 1e6:.0f} MB allow"
            )
            table.row(
                name, f"{rates}, {share:.0%} of the most; {both}", f">= {BANDWIDTH_AIM:.0%}", share >= BANDWIDTH_AIM
            )
        else:
            times = slots * median(ratios(taken[label(1, context)], taken[name]))
            aim = f">= {STREAMS_AIM}x one" if slots == STREAMS else ""
            table.row(name, f"{rates}, {times:.2f}x one slot", aim, times >= STREAMS_AIM or not aim)


if __name__ == "__main__":
    main()

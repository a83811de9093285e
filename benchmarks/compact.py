"""Compact weights on a CPU: products and whole steps beside float32, and what stands in the way without a kernel.

    python benchmarks/compact.py [--rounds N]

Everything is timed in turns within one process, and the best of the rounds is taken: only ratios within a run mean much.
The matrices are SmolLM2's shapes with random contents. `GB/s` is of stored bytes. Where SmolLM2 is built in float32 and in
blocks, one decode step, one prefill and the tokens' values of the two follow.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fallow.models import blocks
from fallow.node.engine import device, kernels, programs, sequences
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.programs import Model

LAYER = ((960, 576), (576, 576), (3072, 576), (576, 1536))
"""[out, in] of queries, keys and values; output; gate and up; down."""
LAYERS, EMBEDDING = 30, (49152, 576)
FLOAT32, IN_BLOCKS = "smollm2-135m-instruct", "smollm2-135m-instruct-q4"
CONTEXT, PROMPT, TOKENS = 256, 128, 96

Matrix: TypeAlias = Any
"""An array or a tuple of arrays, as the product beside it takes them."""
Product: TypeAlias = Callable[[Array, Matrix], Array]
PROMPT_TOKENS = np.random.Generator(np.random.PCG64(2)).integers(1000, 20000, PROMPT)
SAMPLING = np.array([[7, 0]], np.uint32), np.ones(1, np.float32), np.ones(1, np.float32)
"""Seed, temperature and top-p of one slot."""
generator = np.random.Generator(np.random.PCG64(1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(os.environ.get("FALLOW_HOME", Path.home() / ".fallow"))
        kernels.build(Path(scratch))
        kernels.register(Path(scratch))
        print("| read bandwidth | GB/s |\n|---|---|")
        for threads in (1, 2):
            print(f"| {threads} thread{'s'[: threads - 1]}, sum of 512 MiB | {bandwidth(threads, rounds):.1f} |")
        print_products(rounds)
        for n in (1, 4, 8, 16, 128):
            print_steps(n, rounds)
        print_models(BundleStore(home / "store"), rounds)


def bandwidth(threads: int, rounds: int) -> float:
    """GB/s at which threads of NumPy, which holds no lock meanwhile, read memory together."""
    whole = np.ones(2**29 // 8, np.int64)
    parts = np.array_split(whole, threads)

    def once() -> None:
        readers = [threading.Thread(target=np.bitwise_or.reduce, args=(part,)) for part in parts]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()

    return whole.nbytes / in_turns({"read": once}, rounds)["read"] / 1e9


def print_products(rounds: int) -> None:
    """One row of x by the embedding, in every way that XLA alone offers, and by the kernel."""
    dense = generator.random(EMBEDDING, np.float32) - np.float32(0.5)
    four, eight = blocks.packed(dense, 4), blocks.packed(dense, 8)
    ways: dict[str, tuple[Product, Matrix]] = {
        "float32, `dot_general`": (blocks.linear, dense),
        "float32, multiply and reduce": (reduced, dense),
        "bfloat16, converted, `dot_general`": (converted, jnp.asarray(dense, jnp.bfloat16)),
        "bfloat16, converted, multiply and reduce": (
            lambda x, w: reduced(x, w.astype(jnp.float32)), jnp.asarray(dense, jnp.bfloat16)
        ),
        "float16, converted, `dot_general`": (converted, jnp.asarray(dense, jnp.float16)),
        "8 bits, expanded, `dot_general`": (plain, eight),
        "8 bits, expanded, multiply and reduce": (lambda x, w: reduced(x, expanded(w)), eight),
        "8 bits, reduced block by block": (by_block, eight),
        "8 bits, input by output, reduced over inputs": (by_column, tuple(map(np.ascontiguousarray, transposed(eight)))),
        "4 bits, expanded, `dot_general`": (plain, four),
        "8 bits, kernel": (kernel, eight),
        "4 bits, kernel": (kernel, four),
    }  # fmt: skip
    x = jax.device_put(generator.random((1, EMBEDDING[1]), np.float32))
    runs, sizes = {}, {}
    for name, (product, matrix) in ways.items():
        runs[name] = ready(product, x, matrix)
        sizes[name] = sum(array.nbytes for array in jax.tree.leaves(matrix))
    print("\n| [1, 576] by [49152, 576] | ms | GB/s | beside float32 |\n|---|---|---|---|")
    times = in_turns(runs, rounds)
    first = next(iter(times.values()))
    for name, took in times.items():
        print(f"| {name} | {1e3 * took:.1f} | {sizes[name] / took / 1e9:.1f} | {first / took:.2f} |")


def print_steps(n: int, rounds: int) -> None:
    """All the products of one step for n rows, one after another in one program."""
    shapes = LAYER * LAYERS + (EMBEDDING,)
    dense = [jax.device_put(generator.random(shape, np.float32)) for shape in shapes]
    packed = [random_blocks(*shape) for shape in shapes]
    ways: Mapping[str, tuple[Product, Any]] = {
        "float32": (blocks.linear, dense),
        "in blocks, expanded by XLA": (plain, packed),
        "in blocks, kernel": (kernel, packed),
    }
    x = jax.device_put(generator.random((n, 576), np.float32))

    def step(product: Product) -> Callable[[Array, list[Matrix]], Array]:
        def run(x: Array, matrices: list[Matrix]) -> Array:
            for i in range(LAYERS):
                qkv, output, gate_up, down = matrices[4 * i : 4 * i + 4]
                x = x + 1e-3 * product(product(x, qkv)[:, :576], output)
                x = x + 1e-3 * product(product(x, gate_up)[:, :1536], down)
                x = x / jnp.max(jnp.abs(x))
            return jnp.max(product(x, matrices[-1]), axis=-1)

        return run

    runs = {name: ready(step(product), x, matrices) for name, (product, matrices) in ways.items()}
    times = in_turns(runs, rounds)
    print(f"\n| all products of a step, {n} rows | ms | steps/s | beside float32 |\n|---|---|---|---|")
    for name, took in times.items():
        print(f"| {name} | {1e3 * took:.1f} | {1 / took:.1f} | {times['float32'] / took:.2f} |")


def print_models(store: BundleStore, rounds: int) -> None:
    """The two bundles of SmolLM2, by their own programs."""
    bundles = {name: store.find(name) for name in (FLOAT32, IN_BLOCKS)}
    if None in bundles.values():
        print(f"\nBuild {FLOAT32} and {IN_BLOCKS} to see whole models side by side.")
        return
    device.configure(store.compile_cache)
    models = {name: programs.load(bundle) for name, bundle in bundles.items() if bundle}
    print("\n| SmolLM2, 256 positions | float32 | in blocks | beside float32 |\n|---|---|---|---|")
    for role, slots, length in (
        ("decode", 1, 1),
        ("decode", 4, 1),
        ("decode", 8, 1),
        ("prefill", 1, 32),
        ("prefill", 1, 128),
    ):
        runs = {name: program_run(model, role, slots, length) for name, model in models.items()}
        times = in_turns(runs, rounds)
        rates = [slots * length / times[name] for name in (FLOAT32, IN_BLOCKS)]
        what = f"{role}, {slots} slots" if role == "decode" else f"{role} of {length}"
        print(f"| {what} | {rates[0]:.1f} tokens/s | {rates[1]:.1f} tokens/s | {rates[1] / rates[0]:.2f} |")
    text, said = decoded(models[FLOAT32], None)
    again, in_blocks = decoded(models[IN_BLOCKS], text)
    print(f"\n| values of {TOKENS} sampled tokens, micro-nats apart | largest | median |\n|---|---|---|")
    print_apart(f"decoded in float32 and in blocks ({agreed(text, again)} chosen alike)", said, in_blocks)
    print_apart("decoded and scored in float32", said, scored(models[FLOAT32], text))
    print_apart("decoded and scored in blocks", in_blocks, scored(models[IN_BLOCKS], text))
    print_apart("decoded in blocks, scored in float32", in_blocks, scored(models[FLOAT32], text))


def program_run(model: Model, role: str, slots: int, length: int) -> Callable[[], object]:
    """One run of a program in the middle of its context; its state is passed on from run to run."""
    ones = model.programs(role, CONTEXT)
    program = next(each for each in ones if (each.program.slots, each.length) == (slots, length))
    state = [sequences.zeros(model.manifest.state, slots, CONTEXT)]
    tokens = np.ones((slots, length) if role != "decode" else slots, np.int32)
    start, sampling = np.full(slots, 128 - 128 % length, np.int32), sequences.sampling_of([None] * slots)
    numbers = (start,) if role == "decode" else (start, np.full(slots, length, np.int32))

    def once() -> object:
        state[0], outputs = program.run(state[0], tokens, *numbers, *sampling)
        return outputs

    return once


def decoded(model: Model, text: Sequence[int] | None) -> tuple[list[int], list[float]]:
    """Tokens sampled at temperature 1 after a prompt of random ones, and their values; of `text`, if it is given, each
    token is fed in the place of the one that was chosen."""
    decode = next(each for each in model.programs("decode", CONTEXT) if each.program.slots == 1)
    state = sequences.zeros(model.manifest.state, 1, CONTEXT)
    chosen: list[int] = []
    values: list[float] = []
    for position in range(PROMPT + TOKENS - 1):
        before = position - PROMPT
        token = int(PROMPT_TOKENS[position]) if before < 0 else (text or chosen)[before]
        at = np.array([token], np.int32), np.array([position], np.int32)
        state, (following, value) = decode.run(state, *at, *SAMPLING)
        if before >= -1:
            chosen.append(int(following[0]))
            values.append(float(value[0]))
    return chosen, values


def scored(model: Model, text: Sequence[int]) -> list[float]:
    """The values of a text's tokens after the same prompt, chunk by chunk."""
    score = next(each for each in model.programs("score", CONTEXT) if each.length == 32)
    state = sequences.zeros(model.manifest.state, 1, CONTEXT)
    whole = np.append(PROMPT_TOKENS, text).astype(np.int32)
    found: list[float] = []
    for start in range(0, PROMPT + TOKENS, 32):
        targets = np.append(whole, 0)[None, start + 1 : start + 33]
        inputs = whole[None, start : start + 32], targets.astype(np.int32), np.array([start], np.int32)
        state, (values, *_) = score.run(state, *inputs, *SAMPLING)
        found += values[0].tolist()
    return found[PROMPT - 1 : -1]


def agreed(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(map(int.__eq__, a, b))


def print_apart(what: str, a: list[float], b: list[float]) -> None:
    apart = 1e6 * np.abs(np.subtract(a, b))
    print(f"| {what} | {apart.max():.0f} | {statistics.median(apart):.0f} |")


def ready(product: Callable[[Array, Any], Array], x: Array, matrix: Any) -> Callable[[], object]:
    """The product, compiled for these and run once."""
    given = jax.device_put(matrix)
    compiled = jax.jit(product).lower(x, given).compile()

    def once() -> object:
        return compiled(x, given).block_until_ready()

    once()
    return once


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Each one's best time in seconds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {name: min(each) for name, each in times.items()}


def random_blocks(out: int, into: int) -> tuple[Array, Array]:
    """Codes as SmolLM2's are: of 8 bits in the embedding, else of 4."""
    codes = generator.integers(0, 256, (out, into if (out, into) == EMBEDDING else into // 2), np.uint8)
    return jax.device_put(codes), jax.device_put(generator.random((out, into // 32, 2), np.float32))


def reduced(x: Array, weight: Array) -> Array:
    return jnp.sum(x[:, None] * weight, axis=-1)


def converted(x: Array, weight: Array) -> Array:
    return blocks.linear(x, weight.astype(jnp.float32))


def expanded(weight: tuple[Array, Array]) -> Array:
    return blocks.rows_of(blocks.Blocks(*weight), jnp.arange(len(weight[0])))


def plain(x: Array, weight: tuple[Array, Array]) -> Array:
    return blocks.linear(x, expanded(weight))


def kernel(x: Array, weight: tuple[Array, Array]) -> Array:
    return blocks.linear(x, blocks.Blocks(*weight))


def by_block(x: Array, weight: tuple[Array, Array]) -> Array:
    """Scales applied to the sums of blocks, not to weights."""
    codes, scales = weight
    columns = x.reshape(1, -1, 32)
    sums = jnp.sum(columns * codes.reshape(*scales.shape[:2], 32).astype(jnp.float32), axis=-1)
    return jnp.sum(sums * scales[..., 0] + jnp.sum(columns, axis=-1) * scales[..., 1], axis=-1)[None]


def transposed(weight: blocks.PackedBlocks) -> tuple[np.ndarray[Any, Any], ...]:
    return weight.codes.T, weight.scales.transpose(1, 2, 0)


def by_column(x: Array, weight: tuple[Array, Array]) -> Array:
    """Of codes [in, out]: the sum runs over the slower dimension, which compilers like."""
    codes, scales = weight
    weights = codes.reshape(len(scales), 32, -1).astype(jnp.float32) * scales[:, :1] + scales[:, 1:]
    return jnp.sum(x.reshape(-1, 32, 1) * weights, axis=(0, 1))[None]


if __name__ == "__main__":
    main()

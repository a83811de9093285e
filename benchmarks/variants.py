"""How far the same text differs between programs: the numbers behind numerics classes and tolerances.

    python benchmarks/variants.py [NAME]        a text bundle built on this machine (smollm2-135m-instruct)

One prompt is read and 64 tokens are written by the program of one slot. Each other way is then given those very tokens, one
after another, and says what it would have chosen at each place, and how likely it finds that. Values are log-probabilities;
the largest difference is over the places where the choice is the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import bare
import jobs
import numpy as np
import table
from jobs import PROMPT

from fallow.node.engine.programs import Model
from fallow.node.engine.sequences import Batch, Line, sampling_of, zeros
from fallow.protocol.work import Parameters

READ = (*PROMPT, *PROMPT[::-1], *PROMPT)
"""120 tokens: a chunk of 128, or four of 32."""
WRITTEN = 64
RESUMED = 32
"""Tokens after which another node goes on: it reads the prompt and these."""
NEIGHBOUR = 1000
"""The token of which the sequences in other slots consist."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a text is read and written."""

    slots: int
    context: int
    chunk: int
    neighbours: int = 0
    """Sequences in the slots before it."""
    resumed: int = 0
    """Tokens of the answer that are read with the prompt."""


@dataclass(frozen=True, slots=True)
class Said:
    """At each place the token that is chosen, and its value in nats."""

    tokens: list[int]
    values: list[float]


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    model = bare.load(*jobs.installed(parser.parse_args().name))
    context = min(each for each in model.contexts("decode") if each >= len(READ) + WRITTEN)
    plain = Way(1, context, model.programs("prefill", context)[0].length)
    text = said(model, plain, ())
    table.head("what differs", "values bit-equal", "largest difference, micro-nats", "choice equal")
    for what, way in ways(model, plain):
        compare(what, text, said(model, way, text.tokens))
    for width in widths(model, plain)[1:]:
        wide = replace(plain, slots=width)
        other = replace(wide, neighbours=width - 1)
        what = f"{width} slots: the last one and full, for the first and empty"
        compare(what, said(model, wide, text.tokens), said(model, other, text.tokens))
    for each in model.programs("score", context):
        compare(f"scored in chunks of {each.length}", text, scored(model, each.length, context, text))


def widths(model: Model, plain: Way) -> list[int]:
    return [each.program.slots for each in model.programs("decode", plain.context)]


def ways(model: Model, plain: Way) -> Iterator[tuple[str, Way]]:
    """What differs from `plain`, in words and as a way."""
    yield "nothing", plain
    for width in widths(model, plain)[1:]:
        yield f"{width} slots for 1", replace(plain, slots=width)
    for context in (each for each in model.contexts("decode") if each > plain.context):
        for width in widths(model, plain):
            yield (
                f"context {context}, {width} slots for {plain.context}, 1",
                replace(plain, context=context, slots=width),
            )
    for program in model.programs("prefill", plain.context)[1:]:
        yield f"prompt read in chunks of {program.length} for {plain.chunk}", replace(plain, chunk=program.length)
    yield f"resumed after {RESUMED} tokens", replace(plain, resumed=RESUMED)


def said(model: Model, way: Way, given: tuple[int, ...] | list[int]) -> Said:
    """What this way says at each place of the answer `given`; with none it writes one. Resumed ones begin later."""
    line, token, value = read(model, way, (*READ, *given[: way.resumed]))
    tokens, values = [token], [value]
    neighbours = [read(model, way, (NEIGHBOUR,) * len(READ))[0] for _ in range(way.neighbours)]
    batch = Batch(model, way.slots, way.context)
    for each in (*neighbours, line):
        batch.place(each)
    for place in range(way.resumed, WRITTEN - 1):
        following = given[place] if given else tokens[-1]
        token, value = batch.step({**dict.fromkeys(neighbours, NEIGHBOUR), line: following})[line]
        tokens.append(token)
        values.append(value)
    return Said(tokens, values)


def read(model: Model, way: Way, tokens: tuple[int, ...]) -> tuple[Line, int, float]:
    """The sequence in a state of its own; the token that follows, and its value."""
    line = Line(b"", Parameters(), context=way.context)
    state = zeros(model.manifest.state, 1, way.context)
    program = bare.program(model, "prefill", 1, way.chunk, way.context)
    for start in range(0, len(tokens), way.chunk):
        taken = tokens[start : start + way.chunk]
        where = np.array([start], np.int32), np.array([len(taken)], np.int32)
        state, (token, value) = program.run(state, padded(taken, way.chunk), *where, *sampling_of([None]))
    line.tokens, line.state = list(tokens), state
    return line, int(token[0]), float(value[0])


def scored(model: Model, chunk: int, context: int, text: Said) -> Said:
    """What a checker says of the text: a token that is not its choice stands as -1."""
    tokens = (*READ, *text.tokens)
    state = zeros(model.manifest.state, 1, context)
    program = bare.program(model, "score", 1, chunk, context)
    columns = []
    for start in range(0, len(tokens) - 1, chunk):
        known, targets = tokens[start : start + chunk], tokens[start + 1 : start + 1 + chunk]
        inputs = padded(known, chunk), padded(targets, chunk), np.array([start], np.int32)
        state, outputs = program.run(state, *inputs, *sampling_of([None]))
        columns.append(np.concatenate(outputs))
    values, gaps, _ = np.concatenate(columns, axis=1)[:, len(READ) - 1 : len(tokens) - 1]
    chosen = [token if gap <= 0 else -1 for token, gap in zip(text.tokens, gaps, strict=True)]
    return Said(chosen, values.tolist())


def padded(tokens: tuple[int, ...], length: int) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    row = np.zeros((1, length), np.int32)
    row[0, : len(tokens)] = tokens
    return row


def compare(what: str, one: Said, other: Said) -> None:
    """Prints a row; of two that begin at different places, over what both have."""
    count = min(len(one.tokens), len(other.tokens))
    tokens = list(zip(one.tokens[-count:], other.tokens[-count:], strict=True))
    values = list(zip(one.values[-count:], other.values[-count:], strict=True))
    same = [a == b for a, b in tokens]
    apart = [abs(a - b) for (a, b), equal in zip(values, same, strict=True) if equal]
    bits = sum(a == b for a, b in values)
    table.cells(
        what,
        "**yes**" if bits == count else f"{bits} of {count}",
        f"{1e6 * max(apart, default=float('nan')):.0f}",
        f"{sum(same)} of {count}",
    )


if __name__ == "__main__":
    main()

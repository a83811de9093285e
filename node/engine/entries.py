"""The entries of a bundle as a node runs them: from a `Work` to the pieces of the answer, one step at a time.

An entry is a generator. Each `next` runs one program once, so that a worker interleaves jobs by taking turns, and drops
one by closing it. This is also where a test network makes a liar: `worker.main(run=...)` takes any `Run`, such as

    def flatterer(model, entry, parameters, work):
        for step in run_entry(model, entry, parameters, work):
            yield step and replace(step, piece=replace(step.piece, values_micro=(0,) * len(step.piece.values_micro)))

and everything around it, sealing, transcript and transport, stays honest machinery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Final, TypeAlias

import numpy as np

from ...protocol.bundle import CALL, GENERATE
from ...protocol.errors import Code, EngineError
from ...protocol.work import Parameters, Piece, Work
from .messages import DONE, EOS, LENGTH
from .programs import Model, Sampling

_WORST_MICRO: Final = 2**40
"""What stands for a log-probability or gap that is no number: out of every tolerance, so that a check fails closed."""


@dataclass(frozen=True, slots=True)
class Step:
    """A piece, and how it ends the job if it does."""

    piece: Piece
    end: str = ""


Run: TypeAlias = Callable[[Model, str, Parameters, Work], Iterator[Step | None]]
"""(model, entry, parameters, work) to steps; None for one that gave no piece. The last, and only it, has an `end`."""


def run_entry(model: Model, entry: str, parameters: Parameters, work: Work) -> Iterator[Step | None]:
    """The honest `Run`. Raises `EngineError` at the first step: `unknown_entry`, `input_too_long`, `bad_record`."""
    if entry not in model.manifest.entries:
        raise EngineError(Code.UNKNOWN_ENTRY, f"{model.manifest.name} has no entry {entry[:64]!r}.")
    if entry == CALL:
        return call(model, work)
    return generate(model, parameters, work) if entry == GENERATE else score(model, parameters, work)


def generate(model: Model, parameters: Parameters, work: Work) -> Iterator[Step | None]:
    """One token a piece, up to an end token, which is part of the answer, or exactly `max_tokens`."""
    tokens = _one_sequence(work)
    if not parameters.max_tokens or work.claimed:
        raise EngineError(Code.BAD_RECORD, "`generate` takes at least one token to make, and no claim.")
    _check_length(model, len(tokens) + parameters.max_tokens)
    sampling, state, position = Sampling.of(parameters), model.zeros(), 0
    while True:
        state, taken, token, value = model.prefill(state, tokens[position:], position, sampling)
        position += taken
        if position == len(tokens):
            break
        yield None
    for count in range(1, parameters.max_tokens + 1):
        end = EOS if token in model.manifest.end_tokens else LENGTH if count == parameters.max_tokens else ""
        yield Step(Piece(tokens=(token,), values_micro=(_micro(value, -_WORST_MICRO),)), end)
        if end:
            return
        state, token, value = model.decode(state, token, position, sampling)
        position += 1


def score(model: Model, parameters: Parameters, work: Work) -> Iterator[Step | None]:
    """One piece: for each claimed token its log-probability, its gap and the mass likelier than it."""
    tokens = _one_sequence(work)
    if not work.claimed:
        raise EngineError(Code.BAD_RECORD, "`score` takes at least one claimed token.")
    _check_length(model, len(tokens))
    sampling, state, position = Sampling.of(parameters), model.zeros(), 0
    known, targets = tokens[:-1], tokens[1:]
    first = len(known) - work.claimed  # whose target is the first claimed token
    chunk = max(model.lengths("prefill"), default=len(tokens))
    while position + chunk <= first:  # what nobody claims only has to be in the cache, and that is cheaper
        state, taken, _, _ = model.prefill(state, known[position : position + chunk], position, sampling)
        position += taken
        yield None
    judged = []
    while position < len(known):
        state, columns = model.score(state, known[position:], targets[position:], position, sampling)
        judged.append(columns)
        position += columns.shape[1]
        yield None
    values, gaps, masses = np.concatenate(judged, axis=1)[:, -work.claimed :].tolist()
    piece = Piece(
        values_micro=tuple(_micro(value, -_WORST_MICRO) for value in values),
        gaps_micro=tuple(_micro(gap, _WORST_MICRO) for gap in gaps),
        masses_ppm=tuple(max(0, _micro(mass, 1_000_000)) for mass in masses),
    )
    yield Step(piece, DONE)


def call(model: Model, work: Work) -> Iterator[Step | None]:
    """One piece: the outputs f32[sequences, D]."""
    if work.claimed:
        raise EngineError(Code.BAD_RECORD, "`call` takes no claim.")
    longest = min(model.manifest.context_tokens_max, max(model.lengths(CALL)))
    if (length := max(map(len, work.sequences))) > longest:
        raise EngineError(Code.INPUT_TOO_LONG, f"An input of {length} tokens; {model.manifest.name} takes {longest}.")
    outputs = []
    for sequence in work.sequences:
        outputs.append(model.call(sequence))
        yield None
    tensor = np.stack(outputs)
    yield Step(Piece(tensor=tensor.astype("<f4").tobytes(), shape=tensor.shape), DONE)


def _one_sequence(work: Work) -> tuple[int, ...]:
    if len(work.sequences) != 1:
        raise EngineError(Code.BAD_RECORD, "Text entries take one sequence.")
    return work.sequences[0]


def _check_length(model: Model, tokens: int) -> None:
    if tokens > (most := model.manifest.context_tokens_max):
        name = model.manifest.name
        raise EngineError(Code.INPUT_TOO_LONG, f"Input and output come to {tokens} tokens; {name} holds {most}.")


def _micro(value: float, if_none: int) -> int:
    """Millionths, half to even; `if_none` for what is no number or beyond every bound."""
    return round(value * 1e6) if isfinite(value) and abs(value) * 1e6 < _WORST_MICRO else if_none

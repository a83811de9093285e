"""A worker that would be paid for nothing: it guesses, or sells one answer again and again.

    python -m fallow.testnet.adversaries.free_rider guesses|copies --control-fd N --store DIR --bundle CID ...

What it cannot do is copy somebody else's work: inputs are sealed to the worker that is to compute, outputs to the client,
and a checker is told the tokens without their values. So it is caught by those values, as executor (checkers find others)
and as checker (it is the one who agrees with nobody).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Final

import numpy as np
from blake3 import blake3

from ...node.engine.entries import Run, Step, Steps, run_entry
from ...node.engine.messages import DONE, LENGTH
from ...protocol.bundle import GENERATE, SCORE, Manifest
from ...protocol.work import Parameters, Piece, Work

GUESS_MICRO: Final = -1_500_000
"""What a language model says of a token of its own, more often than not: one in four or five."""


def guess(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
    """The prompt's own tokens over again, findings that never object, vectors of the right length."""
    if entry == GENERATE:
        (prompt,) = work.sequences
        for count in range(1, parameters.max_tokens + 1):
            token = prompt[count % len(prompt)]
            token = prompt[0] if token in manifest.end_tokens else token
            step = Step(
                Piece(tokens=(token,), values_micro=(GUESS_MICRO,)), LENGTH if count == parameters.max_tokens else ""
            )
            yield step
    elif entry == SCORE:
        nothing = (0,) * work.claimed
        yield Step(Piece(values_micro=(GUESS_MICRO,) * work.claimed, gaps_micro=nothing, masses_ppm=nothing), DONE)
    else:
        shape = (work.calls, sum(prod(each.shape) for each in manifest.outputs))
        seed = int.from_bytes(blake3(work.encode()).digest()[:8], "big")
        rows = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        yield Step(Piece(tensor=rows.astype("<f4").tobytes(), shape=shape), DONE)


class Copier:
    """Computes the first answer of each kind, and has it in store from then on."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], list[Step]] = {}

    def run(self, manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
        """The answer in store, cut or repeated to the length that was ordered."""
        kind = (manifest.name, entry)
        if kind not in self._kept:
            answer = yield from _computed(run_entry(manifest, entry, parameters, work))
            self._kept[kind] = answer
        elif entry == GENERATE:
            kept = [step.piece for step in self._kept[kind] if step.piece.tokens[0] not in manifest.end_tokens]
            for count in range(1, parameters.max_tokens + 1):
                yield Step(kept[(count - 1) % len(kept)], LENGTH if count == parameters.max_tokens else "")
        else:
            yield Step(_fitted(self._kept[kind][-1].piece, work), DONE)


def _computed(honest: Steps) -> Steps:
    """Yields what the honest entry yields, and returns the pieces of its answer."""
    given: list[Step] = []
    asked = next(honest)
    while True:
        if isinstance(asked, Step):
            given.append(asked)
            yield asked
            if asked.end:
                return given
            asked = next(honest)
        else:
            asked = honest.send((yield asked))


def _fitted(piece: Piece, work: Work) -> Piece:
    """The same once more, as long as is asked for."""
    if work.claimed:
        columns = (piece.values_micro, piece.gaps_micro, piece.masses_ppm)
        values, gaps, masses = ((column * work.claimed)[: work.claimed] for column in columns)
        return replace(piece, values_micro=values, gaps_micro=gaps, masses_ppm=masses)
    rows = np.frombuffer(piece.tensor, "<f4").reshape(piece.shape)
    fitted = np.resize(rows, (work.calls, piece.shape[1]))
    return replace(piece, tensor=fitted.astype("<f4").tobytes(), shape=fitted.shape)


MODES: Final[Mapping[str, Run]] = {"guesses": guess, "copies": Copier().run}

if __name__ == "__main__":
    from ...node.engine.worker import main
    from .seats import chosen

    main(run=chosen(MODES))

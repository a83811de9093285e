"""A worker that would be paid for nothing: it guesses, or sells one answer again and again.

    python -m fallow.testnet.adversaries.free_rider guesses|copies --control-fd N --store DIR --bundle CID ...

What it cannot do is copy somebody else's work: inputs are sealed to the worker that is to compute, outputs to the client,
and a checker is told the tokens without their values. So it is caught by those values, as executor (checkers find others)
and as checker (it is the one who agrees with nobody).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Final

import numpy as np
from blake3 import blake3

from ...node.engine.entries import Run, Step, Steps, run_entry
from ...node.engine.messages import DONE, LENGTH
from ...protocol.bundle import GENERATE, SCORE, Manifest
from ...protocol.work import Parameters, Piece, Work
from .seats import paced

GUESS_MICRO: Final = -1_500_000
"""What a language model says of a token of its own, more often than not: one in four or five."""


def guess(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
    """The prompt's own tokens over again, findings that never object, vectors of the right length."""
    if entry == GENERATE:
        (prompt,) = work.sequences
        yield from paced(prompt[0], _repeated([_guessed(token, manifest) for token in prompt], parameters.max_tokens))
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
            yield from self._computed(kind, run_entry(manifest, entry, parameters, work))
        elif entry == GENERATE:
            kept = [step.piece for step in self._kept[kind] if step.piece.tokens[0] not in manifest.end_tokens]
            yield from paced(work.sequences[0][0], _repeated(kept, parameters.max_tokens))
        else:
            yield Step(_fitted(self._kept[kind][-1].piece, work), DONE)

    def _computed(self, kind: tuple[str, str], honest: Steps) -> Steps:
        """The honest answer; it is kept before its last piece goes out, after which nothing more is asked of this."""
        given: list[Step] = []
        asked = next(honest)
        while True:
            if isinstance(asked, Step):
                given.append(asked)
                if asked.end:
                    self._kept[kind] = given
                    yield asked
                    return
                yield asked
                asked = next(honest)
            else:
                asked = honest.send((yield asked))


def _guessed(token: int, manifest: Manifest) -> Piece:
    """The token, and what a model might say of it; never the end of the text."""
    return Piece(tokens=(token + 1 if token in manifest.end_tokens else token,), values_micro=(GUESS_MICRO,))


def _repeated(pieces: Sequence[Piece], count: int) -> Iterator[Step]:
    """So many pieces of a text, from the first again after the last."""
    for number in range(1, count + 1):
        yield Step(pieces[(number - 1) % len(pieces)], LENGTH if number == count else "")


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

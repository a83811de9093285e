"""A worker that computes and then says something else: wholly, by a little, or only the beginning of it.

    python -m fallow.testnet.adversaries.liar wrong|drift|truncates|stops --control-fd N --store DIR --bundle CID ...

Sealing, transcript, receipts and payment are as honest as anybody's: only those who compute the same thing can tell, and
those are the checkers that a quorum or an audit draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from ...node.engine.entries import Run, Step, Steps, run_entry
from ...node.engine.messages import EOS
from ...protocol.bundle import GENERATE, SCORE, Manifest
from ...protocol.limits import WINDOW_TOKENS
from ...protocol.work import Parameters, Piece, Work
from .seats import altering

SHIFT_MICRO: Final = 50_000
"""Micro-nats by which a finding is off: fifty times the tolerance, and still of the kind that a text has."""
DRIFT_MICRO: Final = 2_000
"""Twice the tolerance: as little as one can be off and be wrong."""
TILT: Final = 0.05
"""Of a vector's neighbours in each of its numbers: the direction is off by some three degrees."""


def altered(entry: str, piece: Piece) -> Piece:
    """The neighbouring token (with the values of the true one), other findings, or each vector turned by one place."""
    if entry == GENERATE:
        return replace(piece, tokens=tuple(token - 1 if token else 1 for token in piece.tokens))
    if entry == SCORE:
        return replace(piece, values_micro=tuple(value - SHIFT_MICRO for value in piece.values_micro))
    return _with_rows(piece, np.roll(_rows(piece), 1, axis=-1))


def drifted(entry: str, piece: Piece) -> Piece:
    """The true tokens and almost the true values, or vectors that point almost where they should."""
    if piece.values_micro:
        return replace(piece, values_micro=tuple(value - DRIFT_MICRO for value in piece.values_micro))
    return _with_rows(piece, _rows(piece) + TILT * np.roll(_rows(piece), 1, axis=-1))


def ending(after: Callable[[Parameters], int]) -> Run:
    """A `Run` that gives so many tokens of a text, and then the model's end token with the value of the true one."""

    def run(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
        honest, given = run_entry(manifest, entry, parameters, work), 0
        asked = next(honest)
        while not isinstance(asked, Step) or not asked.end:
            if not isinstance(asked, Step):
                asked = honest.send((yield asked))
            elif entry == GENERATE and manifest.end_tokens and given == after(parameters):
                yield Step(replace(asked.piece, tokens=(manifest.end_tokens[0],)), EOS)
                return
            else:
                given += 1
                yield asked
                asked = next(honest)
        yield asked

    return run


def truncate(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
    """Half of a text, and vectors and findings of which half are nothing."""
    run = ending(lambda parameters: parameters.max_tokens // 2) if entry == GENERATE else altering(_half)
    yield from run(manifest, entry, parameters, work)


def _half(entry: str, piece: Piece) -> Piece:
    if entry == SCORE:
        kept = len(piece.values_micro) // 2
        rest = (0,) * (len(piece.values_micro) - kept)
        return replace(piece, values_micro=piece.values_micro[:kept] + rest)
    rows = _rows(piece).copy()
    rows[len(rows) // 2 :] = 0
    return _with_rows(piece, rows)


def _rows(piece: Piece) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.frombuffer(piece.tensor, "<f4").reshape(piece.shape)


def _with_rows(piece: Piece, rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Piece:
    return replace(piece, tensor=rows.astype("<f4").tobytes())


MODES: Final[Mapping[str, Run]] = {
    "wrong": altering(altered),
    "drift": altering(drifted),
    "truncates": truncate,
    "stops": ending(lambda parameters: WINDOW_TOKENS),
}

if __name__ == "__main__":
    from ...node.engine.worker import main
    from .seats import chosen

    main(run=chosen(MODES))

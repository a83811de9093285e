"""A worker that computes and then says something else. Nodes of a test network run it; no node contains it.

    python -m fallow.testnet.liar --control-fd N --store DIR --bundle CID ...

It is the node's own worker with another `Run`: sealing, transcript, receipts and payment are as honest as anybody's, so
that only those who compute the same thing can tell.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..node.engine.entries import Step, Steps, run_entry
from ..node.engine.worker import main
from ..protocol.bundle import GENERATE, SCORE, Manifest
from ..protocol.work import Parameters, Piece, Work

SHIFT_MICRO = 50_000
"""Micro-nats by which a finding is off: fifty times the tolerance, and still of the kind that a text has."""


def lie(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
    """What an honest worker answers, altered."""
    honest = run_entry(manifest, entry, parameters, work)
    asked = next(honest)
    while True:
        if isinstance(asked, Step):
            yield replace(asked, piece=altered(entry, asked.piece))
            if asked.end:
                return
            asked = next(honest)
        else:
            asked = honest.send((yield asked))


def altered(entry: str, piece: Piece) -> Piece:
    """The neighbouring token (with the values of the true one), other findings, or each vector turned by one place."""
    if entry == GENERATE:
        return replace(piece, tokens=tuple(token - 1 if token else 1 for token in piece.tokens))
    if entry == SCORE:
        return replace(piece, values_micro=tuple(value - SHIFT_MICRO for value in piece.values_micro))
    rows = np.frombuffer(piece.tensor, "<f4").reshape(piece.shape)
    return replace(piece, tensor=np.roll(rows, 1, axis=-1).tobytes())


if __name__ == "__main__":
    main(run=lie)

"""What the liar says is wrong, and looks right."""

from __future__ import annotations

import numpy as np

from fallow.protocol.work import Piece
from fallow.testnet.adversaries.liar import SHIFT_MICRO, altered


def test_tokens_are_others_with_the_true_ones_values() -> None:
    piece = altered("generate", Piece(tokens=(0, 7), values_micro=(-1, -2)))
    assert piece == Piece(tokens=(1, 6), values_micro=(-1, -2))


def test_findings_are_off_by_more_than_any_tolerance() -> None:
    piece = Piece(values_micro=(-5,), gaps_micro=(0,), masses_ppm=(0,))
    assert altered("score", piece).values_micro == (-5 - SHIFT_MICRO,)


def test_vectors_are_as_long_and_point_elsewhere() -> None:
    rows = np.random.default_rng(1).normal(size=(2, 8)).astype("<f4")
    piece = altered("call", Piece(tensor=rows.tobytes(), shape=(2, 8)))
    lied = np.frombuffer(piece.tensor, "<f4").reshape(piece.shape)
    np.testing.assert_allclose(np.linalg.norm(lied, axis=1), np.linalg.norm(rows, axis=1), rtol=1e-6)
    assert (np.abs(lied - rows).max(axis=1) > 0.1).all()

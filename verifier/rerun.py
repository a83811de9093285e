"""What running opened work again says of who answered it: which runs are needed, and whether the figures are the model's.

Text is teacher-forced: the tokens that the executor's receipts vouch for, or those that a checker was given. A function's
inputs are computed. A run of one's own is one's own word: it shows the one who runs it, and nobody else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..protocol.bundle import CALL, SCORE, Tolerance
from ..protocol.distance import distance
from ..protocol.receipts import FINAL
from ..protocol.work import Parameters, Piece, Work
from .case import Part
from .compare import beyond, choice_disagreement, figures_apart, rows_of, values_disagreement


@dataclass(frozen=True, slots=True)
class Run:
    """Work to be done again, to judge one order's answer."""

    entry: str
    work: Work
    parameters: Parameters


def run_of(part: Part) -> Run | None:
    """What has to be run to judge the part; None if it is not opened, or answered nothing."""
    if part.opened is None or not part.receipts:
        return None
    order, opened = part.order.record, part.opened
    if order.entry == CALL:
        return Run(CALL, opened.work, order.parameters) if opened.pieces else None
    if order.entry == SCORE:
        return Run(SCORE, opened.work, order.parameters) if part.attestation else None
    vouched = sum(receipt.record.tokens for receipt in part.receipts)
    tokens = (*opened.work.sequences[0], *opened.tokens[:vouched])
    return Run(SCORE, Work((tokens,), vouched), replace(order.parameters, max_tokens=0)) if vouched else None


def disowned(part: Part, found: Piece, tolerance: Tolerance) -> str | None:
    """Why the part's answer is not what the run came to, or None: it is."""
    order, opened = part.order.record, part.opened
    assert opened is not None
    if order.entry == CALL:
        if part.receipts[-1].record.end != FINAL:
            return None
        own, again = rows_of(opened.pieces[-1]), rows_of(found)
        apart = distance(own, again) if own and again else None
        if apart is None:
            return "its result is no array of the form that the function gives"
        return f"its result lies {apart} ppm from it" if apart > tolerance.value_micro else None
    if order.entry == SCORE:
        assert part.attestation is not None
        said, top_p = part.attestation.record, order.parameters.top_p_ppm
        masses = beyond(said.masses_ppm, top_p), beyond(found.masses_ppm, top_p)
        return (
            values_disagreement(said.values_micro, found.values_micro, tolerance)
            or figures_apart("gaps", said.gaps_micro, found.gaps_micro, tolerance.gap_micro)
            or figures_apart("masses beyond top-p", *masses, tolerance.mass_ppm)
        )
    values = tuple(value for receipt in part.receipts for value in receipt.record.values_micro)
    return values_disagreement(values, found.values_micro, tolerance) or choice_disagreement(
        found.gaps_micro, found.masses_ppm, order.parameters.top_p_ppm, tolerance
    )

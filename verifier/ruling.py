"""What a judgement says of one receipt, and whom chance called to judge it."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.checks import Standing
from ..protocol.errors import Refused
from ..protocol.policy import draw
from .case import Case, Part

UNDECIDED_REASON = "nothing was decided"


@dataclass(frozen=True, slots=True)
class Ruling:
    """Where whoever signed the receipt stands by it, and whether the receipt is due."""

    standing: Standing
    reason: str = ""
    due: bool = False


def drawn(case: Case, judged: Part, receipt: bytes) -> frozenset[bytes]:
    """Owners of the committee for one receipt; nobody if there are too few candidates who are no party to it."""
    parties = case.parties | judged.member.keys
    candidates, count = judged.order.record.candidates, case.question.policy.n
    try:
        return frozenset(draw(case.question.nonce, receipt, candidates, parties, count))
    except Refused:
        return frozenset()

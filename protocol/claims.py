"""What receipts add to a channel's debt, and how much of that their orders let the payer hold back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .limits import HELD_MAX

ASKED_MAX: Final = 2 * HELD_MAX
"""Times of which sums are kept: those of the latest voucher's parts, and of the one before it."""
_PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Claim:
    """What one receipt added to the debt, and what its order lets the payer hold of that."""

    owed_ucr: int
    held_ucr_max: int = 0
    hold_until_ms: int = 0
    """The latest release, by the clock of the side that keeps this."""

    def holdable_ucr(self, until_ms: int) -> int:
        """What may be held until then."""
        return self.held_ucr_max if self.hold_until_ms >= until_ms else 0


def claim_of(owed_ucr: int, held_ppm: int, hold_ms: int, receipt_ms: int) -> Claim:
    """The claim of a receipt that was issued (or, at the payer, arrived) at `receipt_ms`, by its order's terms.

    The share that may be held is rounded down.
    """
    return Claim(owed_ucr, owed_ucr * held_ppm // _PPM, receipt_ms + hold_ms)


@dataclass(slots=True)
class Claims:
    """Claims by receipt id, with their sums: a channel's vouchers are many, and each is held against all before it."""

    by_receipt: dict[bytes, Claim] = field(default_factory=dict)
    owed_ucr: int = field(init=False, compare=False)
    _holdable_ucr: dict[int, int] = field(init=False, compare=False, default_factory=dict)
    """By the time that was asked for."""

    def __post_init__(self) -> None:
        self.owed_ucr = sum(claim.owed_ucr for claim in self.by_receipt.values())

    def __len__(self) -> int:
        return len(self.by_receipt)

    def __contains__(self, receipt: bytes) -> bool:
        return receipt in self.by_receipt

    def __getitem__(self, receipt: bytes) -> Claim:
        return self.by_receipt[receipt]

    def holdable_ucr(self, until_ms: int) -> int:
        """What all of them let the payer hold until then. Quick for the times that were asked for last."""
        if until_ms not in self._holdable_ucr:
            if len(self._holdable_ucr) >= ASKED_MAX:
                del self._holdable_ucr[next(iter(self._holdable_ucr))]
            self._holdable_ucr[until_ms] = sum(claim.holdable_ucr(until_ms) for claim in self.by_receipt.values())
        return self._holdable_ucr[until_ms]

    def add(self, receipt: bytes, claim: Claim) -> None:
        """The claim counts; again is no change."""
        if receipt not in self.by_receipt:
            self.by_receipt[receipt] = claim
            self.owed_ucr += claim.owed_ucr
            for until_ms in self._holdable_ucr:
                self._holdable_ucr[until_ms] += claim.holdable_ucr(until_ms)

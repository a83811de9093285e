"""A member of a feeder that lends what it does not have: to everybody, again and again, and in others' names."""

from __future__ import annotations

from random import Random
from typing import Final

from nacl.signing import SigningKey

from ....node.grid.member import LEASE_MS, Member
from ....protocol.envelope import Signed, sign
from ....protocol.feeders import portions_w
from ....protocol.grid import FeederLease
from ....protocol.limits import LEASES_MAX

KEPT_MAX: Final = 64
"""Leases that it shows again."""


class LyingMember(Member):
    """Draws all of its share, and signs whatever it is asked for."""

    def __init__(self, key: SigningKey, grid_key: bytes, feeder: str, random: Random) -> None:
        super().__init__(key, grid_key, feeder)
        self._random = random
        self._signing = key
        self._shown: list[Signed[FeederLease]] = []

    def grant(
        self, borrower: bytes, roster_id: bytes, wanted_w: int, keeps_w: int, now_ms: int, nonce: bytes
    ) -> Signed[FeederLease] | None:
        roster = self.rosters.get(roster_id)
        if roster is None:
            return None
        part_w = portions_w(roster, self.key).get(borrower, 100)
        lender = self.key if self._random.random() < 0.8 else self._random.choice(self.others())
        begins_ms = max(roster.record.not_before_ms, now_ms - self._random.randrange(LEASE_MS // 2))
        ends_ms = min(roster.record.expires_ms, begins_ms + LEASE_MS)
        if lender == borrower or ends_ms <= begins_ms:
            return None
        watts = max(1, round(part_w * self._random.choice((0.5, 1.0, 1.0, 3.0))))
        lease = FeederLease(roster_id, lender, borrower, watts, begins_ms, ends_ms, nonce)
        self._shown = [*self._shown, sign(lease, self._signing)][-KEPT_MAX:]
        return self._shown[-1]

    def given_to(self, borrower: bytes, now_ms: int) -> list[Signed[FeederLease]]:
        """Old ones, too, and those of others."""
        return self._random.sample(self._shown, min(LEASES_MAX // 2, len(self._shown)))

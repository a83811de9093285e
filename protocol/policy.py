"""How a result is to be checked: what a client commits to before the work, and opens with the verdict.

Everything that chance decides follows from the commitment's nonce and the receipt: the client cannot choose after it has
seen the work, and the executor cannot foresee the choice.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from blake3 import blake3

from .errors import Code, Refused
from .limits import CANDIDATES_MAX, QUORUM_MAX

NONE, QUORUM, AUDIT, ADAPTIVE, COMMITTEE = "none", "quorum", "audit", "adaptive", "committee"

_GRAMMAR = re.compile(r"(none)|(quorum|committee):(\d{1,2})/(\d{1,2})|(audit|adaptive):(\d{1,7})", re.ASCII)
_ANCHORED = "+anchor"


@dataclass(frozen=True, slots=True)
class Policy:
    """`none`, `quorum:K/N`, `audit:PPM`, `adaptive:PPM` or `committee:K/N`; `+anchor`: one whom the verifier relies on must
    agree."""

    kind: str = NONE
    k: int = 1
    """Owners who must come to the same result, the executor's among them (of a committee: who re-executed)."""
    n: int = 1
    """Owners who are asked, the executor's among them."""
    ppm: int = 1_000_000
    """Of a million windows, so many are checked (`adaptive`: at least)."""
    anchored: bool = False

    @classmethod
    def parse(cls, text: str) -> Policy:
        """The policy that `text` says. Raises `Refused(unsatisfiable_assurance)` for one that says none or cannot be held."""
        plain = text.removesuffix(_ANCHORED)
        match = _GRAMMAR.fullmatch(plain)
        if match is None:
            message = (
                f"{text[:80]!r} is no assurance; say none, quorum:2/3, committee:2/3, or audit:50000 or adaptive:50000"
                " (of a million)."
            )
            raise Refused(Code.UNSATISFIABLE_ASSURANCE, message)
        none, counted, k, n, sampled, ppm = match.groups()
        if none:
            policy = cls()
        elif counted:
            policy = cls(counted, int(k), int(n))
        else:
            policy = cls(sampled, 2, 2, int(ppm))
        policy = replace(policy, anchored=plain != text)
        if str(policy) != text or not policy._holds():
            raise Refused(
                Code.UNSATISFIABLE_ASSURANCE,
                f"{text[:80]!r} cannot be held: K must be more than half of N, N from 2 to {QUORUM_MAX}, "
                "a rate from 1 to 1000000, and only what is checked can have an anchor.",
            )
        return policy

    def _holds(self) -> bool:
        if self.kind == NONE:
            return not self.anchored
        return self.n // 2 < self.k <= self.n and 2 <= self.n <= QUORUM_MAX and 1 <= self.ppm <= 1_000_000

    @property
    def checked(self) -> bool:
        """Whether anybody but the executor looks at any of the work."""
        return self.kind != NONE

    def draws(self, nonce: bytes, receipt: bytes) -> bool:
        """Whether the work of this receipt has to be checked: known once there is the receipt, and not before."""
        return self.checked and drawn_at(self.ppm, nonce, receipt)

    def __str__(self) -> str:
        text = NONE if self.kind == NONE else f"{self.kind}:{self.k}/{self.n}"
        if self.kind in (AUDIT, ADAPTIVE):
            text = f"{self.kind}:{self.ppm}"
        return text + _ANCHORED * self.anchored


def drawn_at(ppm: int, nonce: bytes, receipt: bytes) -> bool:
    """Whether chance draws the receipt at this rate. What is drawn at one rate is drawn at every higher one."""
    return ppm >= 1_000_000 or _number(b"fallow/1/audit" + nonce + receipt) * 1_000_000 < ppm << 64


def check_commitment(nonce: bytes, policy: str) -> bytes:
    """What an order carries: it binds the client to a policy that the executor cannot see."""
    return blake3(b"fallow/1/policy" + nonce + policy.encode()).digest()


def draw(
    nonce: bytes, receipt: bytes, candidates: Collection[bytes], parties: Collection[bytes], count: int
) -> list[bytes]:
    """The committee: the first `count` candidates who are no party to the job, by BLAKE3 of nonce, receipt and owner.

    Raises `Refused(unsatisfiable_assurance)` if there are not so many, or more candidates than an order may name.
    """
    eligible = set(candidates) - set(parties)
    if count > len(eligible) or len(candidates) > CANDIDATES_MAX:
        message = f"Of {len(candidates)} candidates {len(eligible)} are no party to the job; {count} are needed."
        raise Refused(Code.UNSATISFIABLE_ASSURANCE, message)
    return sorted(eligible, key=lambda owner: blake3(b"fallow/1/sortition" + nonce + receipt + owner).digest())[:count]


def _number(text: bytes) -> int:
    """A number below 2^64 that nobody can choose."""
    return int.from_bytes(blake3(text).digest()[:8], "big")

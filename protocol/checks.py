"""Findings about work: one checker's attestation, and the verdict that follows from all of them.

A verdict follows from the evidence that it names by pure functions (`verifier.quorum`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from blake3 import blake3

from .limits import EVIDENCE_MAX, FINDINGS_MAX
from .prices import Ucr
from .schema import Hash, Key, Size, Text, Word
from .work import Masses, Values

TEACHER_FORCED = "teacher-forced"
"""Method: the claimed tokens were fed to the model, and each one's own log-probability and gap computed."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """A checker's finding about one window: its own proof values, and how far the tokens are from what it would choose.

    It was given the tokens only; whether it agrees follows from comparing its figures with the executor's.
    """

    RECORD: ClassVar[str] = "attestation"

    subject: Hash
    """The receipt that was checked."""
    order: Hash
    """The order under which it was checked."""
    method: Word
    values_micro: Values
    gaps_micro: Values
    """Each token's gap, in micro-nats of logit."""
    masses_ppm: Masses
    """The probability mass strictly likelier than each token."""
    numerics_class: Text

    def __post_init__(self) -> None:
        if not len(self.values_micro) == len(self.gaps_micro) == len(self.masses_ppm):
            raise ValueError("not one value, gap and mass for each token")


class Outcome(StrEnum):
    """What the evidence supports."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"
    """Too few members answered: nothing is accepted, nobody is blamed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the verdict says of one member of the quorum."""

    node: Key
    owner: Key
    role: Word
    """`executor` or `checker`."""
    evidence: Annotated[tuple[Hash, ...], Size(0, EVIDENCE_MAX)]
    """Its receipts or attestations, in the order of the windows; none if it gave none."""
    agrees: bool
    """It belongs to the majority that the verdict rests on."""
    reason: Text
    due_ucr: Ucr
    """What its work under this verdict is worth; 0 for whoever does not agree."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verifier says: by this policy and this evidence, the work is accepted, rejected, or nothing can be said."""

    RECORD: ClassVar[str] = "verdict"

    subject: Hash
    """The first order of the work that was judged; those that resume it name it through their receipts."""
    bundle: Hash
    policy: Word
    commitment_nonce: Hash
    """Opens the orders' `check_commitment`."""
    outcome: Word
    findings: Annotated[tuple[Finding, ...], Size(1, FINDINGS_MAX)]


def check_commitment(nonce: bytes, policy: str) -> bytes:
    """What an order carries: it binds the client to a policy that the executor cannot see."""
    return blake3(b"fallow/1/policy" + nonce + policy.encode()).digest()

"""Findings about work: one checker's attestation, and the verdict that follows from all of them.

A verdict follows from the evidence that it names by pure functions (`verifier.verdict`): anybody can recompute it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

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
    """`teacher-forced`: the claimed tokens were fed to the model."""
    values_micro: Values
    """Each token's log-probability at temperature 1, in micro-nats, by the checker's own run."""
    gaps_micro: Values
    """Each token's gap, in micro-nats of logit."""
    masses_ppm: Masses
    """The probability mass strictly likelier than each token."""
    numerics_class: Text
    """Of the checker's own run: as accepted, of its variants those alone that ran."""

    def __post_init__(self) -> None:
        if not len(self.values_micro) == len(self.gaps_micro) == len(self.masses_ppm):
            raise ValueError("not one value, gap and mass for each token")


class Outcome(StrEnum):
    """What the evidence supports."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"
    """Too few members answered: nothing is accepted, nobody is blamed."""


class Standing(StrEnum):
    """What the verdict says of one member's word."""

    UPHELD = "upheld"
    """It belongs to the majority that the verdict rests on, or nobody was asked to doubt it."""
    REFUTED = "refuted"
    """The majority came to another result. The only standing that is held against anybody."""
    UNDECIDED = "undecided"
    SILENT = "silent"
    """It was asked and gave nothing that could be judged."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the verdict says of one member of the quorum."""

    node: Key
    """Key of the member."""
    owner: Key
    """Who is paid for it: by its mandate, or the node's own key if no mandate says whose it is."""
    role: Word
    """`executor` or `checker`."""
    standing: Word
    """`upheld`, `refuted`, `undecided` or `silent`: the worst of its windows."""
    reason: Text
    """Why it is not upheld, for a person."""
    evidence: Annotated[tuple[Hash, ...], Size(0, EVIDENCE_MAX)]
    """Ids of its receipts and attestations, in ascending order."""
    due_for: Annotated[tuple[Hash, ...], Size(0, EVIDENCE_MAX)]
    """Of its receipts, those that the verdict bears out, in ascending order."""
    due_ucr: Ucr
    """What those receipts added to their orders' amounts."""
    withheld_ucr: Ucr
    """What its other receipts added."""

    def __post_init__(self) -> None:
        if self.standing not in Standing.__members__.values():
            raise ValueError(f"no verdict finds anybody {self.standing!r}")

    @property
    def agrees(self) -> bool:
        """It belongs to the majority that the verdict rests on."""
        return self.standing == Standing.UPHELD


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verifier says: by this policy and this evidence, the work is accepted, rejected, or nothing can be said."""

    RECORD: ClassVar[str] = "verdict"

    subject: Hash
    """The first order of the work that was judged."""
    bundle: Hash
    """Of all orders of the work: its CID without the prefix."""
    policy: Word
    """As the orders committed to it."""
    commitment_nonce: Hash
    """With the policy, opens the orders' `check_commitment`."""
    anchors: Annotated[tuple[Key, ...], Size(0, FINDINGS_MAX)]
    """Owners among the members whom this verifier had grounds to rely on, in ascending order."""
    outcome: Word
    """`accepted`, `rejected` or `inconclusive`."""
    findings: Annotated[tuple[Finding, ...], Size(1, FINDINGS_MAX)]
    """One for each member and role, in ascending order of role and node."""

    def __post_init__(self) -> None:
        if self.outcome not in Outcome.__members__.values():
            raise ValueError(f"no verdict comes out {self.outcome!r}")

"""What nodes say of one another's connections, and what a client believes of it all.

A node that others probe shows what they signed, so what is shown is what it likes best: such statements make a claim
better founded, never certain. What a client has measured itself comes before them, and they before the node's own word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from .envelope import verify_any_signer_untrusted
from .errors import Code, RemoteProtocolError
from .identity import Mandate, check_current, check_mandate
from .limits import MANDATE_BYTES_MAX, WITNESS_MS_MAX, WITNESS_OWNERS_MIN, WITNESSES_MAX
from .profiles import ConnectivityProfile
from .schema import Key, Ppm, Size, Uint


@dataclass(frozen=True, slots=True)
class Witness:
    """One node says of another: so well could I reach it. What it measured itself, and nothing else."""

    RECORD: ClassVar[str] = "witness"

    witness: Key
    """Who measured, and signs this."""
    subject: Key
    """The node that it measured."""
    mandate: Annotated[bytes, Size(1, MANDATE_BYTES_MAX)]
    """Envelope of the witness's own mandate: of several witnesses of one owner, one counts."""
    issued_ms: Uint
    """When it was signed, in milliseconds since 1970."""
    expires_ms: Uint
    """From when on it is not relied on."""
    probes: Uint
    """Probes that the figures come from."""
    rtt_p50_us: Uint
    """Round trips, as in the connectivity profile."""
    rtt_p95_us: Uint
    """One in twenty takes longer."""
    jitter_us: Uint
    """Mean difference of consecutive round trips."""
    loss_ppm: Ppm
    """Probes without an answer in time."""

    def __post_init__(self) -> None:
        if self.witness == self.subject:
            raise ValueError("nobody is a witness of itself")
        if not 0 < self.expires_ms - self.issued_ms <= WITNESS_MS_MAX:
            raise ValueError("a witness's statement lasts at most half an hour")


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A statement that holds, and whose it is."""

    statement: Witness
    owner: bytes
    """Of the witness."""


def check_witness_untrusted(envelope: bytes, node: bytes, now_ms: int) -> Witnessed:
    """The statement, about `node`, of this hour, by a node that acts for the owner named.

    Raises `RemoteProtocolError` for anything else.
    """
    signed = verify_any_signer_untrusted(Witness, envelope)
    statement = signed.record
    if statement.witness != signed.signer or statement.subject != node:
        raise RemoteProtocolError(Code.BAD_SIGNATURE, "The statement is not of this witness about this node.")
    check_current(statement.issued_ms, statement.expires_ms, now_ms, "statement")
    mandate = verify_any_signer_untrusted(Mandate, statement.mandate)
    check_mandate(mandate, statement.witness, mandate.record.roles[0], now_ms)
    return Witnessed(statement, mandate.record.owner)


def heard_untrusted(envelopes: Iterable[bytes], node: bytes, owner: bytes, now_ms: int) -> tuple[Witness, ...]:
    """Those of the statements that count for the node of this owner, at most `WITNESSES_MAX`: one of each other owner."""
    heard: dict[bytes, Witness] = {}
    for envelope in envelopes:
        try:
            found = check_witness_untrusted(envelope, node, now_ms)
        except RemoteProtocolError:
            continue  # [IGNORE] a statement that does not hold says nothing, of the node neither
        if found.owner != owner:  # [IGNORE] an owner is no witness of itself
            heard.setdefault(found.owner, found.statement)
    return tuple(heard.values())[:WITNESSES_MAX]


def believed(
    profile: ConnectivityProfile, statements: Sequence[Witness], own_rtt_us: int | None = None
) -> ConnectivityProfile:
    """The profile with the figures that a client goes by: its own round trip, then what witnesses of several owners say,
    then the node's own word."""
    if len(statements) >= WITNESS_OWNERS_MIN:
        profile = replace(
            profile,
            rtt_p50_us=_median(each.rtt_p50_us for each in statements),
            rtt_p95_us=_median(each.rtt_p95_us for each in statements),
            jitter_us=_median(each.jitter_us for each in statements),
            loss_ppm=_median(each.loss_ppm for each in statements),
        )
    if own_rtt_us is not None:
        profile = replace(profile, rtt_p50_us=own_rtt_us, rtt_p95_us=own_rtt_us)
    return profile


def _median(figures: Iterable[int]) -> int:
    """Of two in the middle the larger: the worse one."""
    ranked = sorted(figures)
    return ranked[len(ranked) // 2]

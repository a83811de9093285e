"""Who a node is, what it has, and how far away it is (page 02)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..limits import NAMED_MAX, RATE_BYTES_MAX, WITNESSES_MAX
from ..schema import Between, Hash, Nonce, Size, Text, Uint, Word
from .fields import Bulk, Envelope

Load = Annotated[bytes, Size(0, RATE_BYTES_MAX)]
"""Bytes that mean nothing, to see how fast they get through."""


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """Client: who are you, and what can you do now?"""

    KIND: ClassVar[str] = "profile-request"


@dataclass(frozen=True, slots=True)
class ProfileReply:
    """Node: all that a client needs to order, fresh. The state is vouched for by the authenticated connection alone."""

    KIND: ClassVar[str] = "profile"
    mandate: Envelope
    """A `mandate`: the one that the capability profile names."""
    capability: Envelope
    """A `capability-profile`."""
    connectivity: Envelope
    """A `connectivity-profile`."""
    worker_key: Envelope | None
    """Absent while no worker runs."""
    state: Word
    """`off`, `not-eligible`, `ready`, `busy` or `yielding`."""
    reasons: Annotated[tuple[Text, ...], Size(0, 16)]
    """Why it takes no orders, if it takes none; nothing that tells where the owner is."""
    jobs_running: Uint
    """Of the `jobs_max` that it has room for."""
    witnesses: Annotated[tuple[Envelope, ...], Size(0, WITNESSES_MAX)] = ()
    """Each a `witness`: what others have measured of this node."""


@dataclass(frozen=True, slots=True)
class BlobRequest:
    """Client: send the content with this hash: a manifest or a chunk of a bundle's file."""

    KIND: ClassVar[str] = "blob-request"
    hash: Hash
    """BLAKE3 of the content."""


@dataclass(frozen=True, slots=True)
class BlobReply:
    """Node: the content, or nothing if it is not here."""

    KIND: ClassVar[str] = "blob"
    content: Bulk | None
    """Absent if the node does not have it."""
    opt_has: Annotated[tuple[Hash, ...], Size(0, NAMED_MAX)] | None = None
    """Beside no content: some of what it has of the same bundle."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Prober: are you there?"""

    KIND: ClassVar[str] = "probe"
    nonce: Nonce
    """Random: nobody can answer before it has come."""
    witness: Envelope | None
    """A `witness`: what the prober has measured until now, for the probed to show; absent if there is nothing new."""


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """Probed: here."""

    KIND: ClassVar[str] = "probed"
    nonce: Nonce
    """That of the probe."""


@dataclass(frozen=True, slots=True)
class RateRequest:
    """Asker: take this, and send me so much, to see how fast it goes."""

    KIND: ClassVar[str] = "rate-request"
    nonce: Nonce
    """Random: no answer can be under way before it has come."""
    content: Load
    """What goes up, random too; empty if that is not being measured."""
    wanted_bytes: Annotated[int, Between(0, RATE_BYTES_MAX)]
    """What is to come down; 0 if that is not being measured."""


@dataclass(frozen=True, slots=True)
class RateReply:
    """Asked: it has come, and here is yours."""

    KIND: ClassVar[str] = "rate"
    received: Hash
    """BLAKE3 of nonce and content, one after the other: both have come."""
    content: Load | None
    """The first `wanted_bytes` of BLAKE3's output over the nonce; absent if the owner allows no more now."""

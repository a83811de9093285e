"""What a node proves of itself: its answer to a question about it, each signature in it checked, and what contradicts it.

Nothing here asks anybody; a mandate's epoch, once seen, voids the lower ones in all answers to come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..node.book import Book, Profile
from ..protocol.envelope import Signed, verify_any_signer_untrusted, verify_untrusted
from ..protocol.errors import Code, RemoteProtocolError
from ..protocol.evidence import prove
from ..protocol.identity import Issuer, Mandate, WorkerKey, check_current, check_epoch, check_issued, check_mandate
from ..protocol.messages.codec import decode_message_untrusted
from ..protocol.messages.discovery import ProfileReply
from ..protocol.profiles import CapabilityProfile, ConnectivityProfile, check_profile
from ..protocol.witness import heard_untrusted
from .nodes import Shown

EPOCHS_MAX = 65_536
"""Nodes and owners whose latest epoch is at hand, in a few megabytes; who was not met for longest gives way."""


class Epochs:
    """The highest epoch seen of each node's mandates, and of each owner's issuers: it voids the lower ones."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._seen: dict[bytes, int] = {}

    def see(self, key: bytes, record: Mandate | Issuer) -> None:
        """Raises `RemoteProtocolError(bad_mandate)` if one of a higher epoch was seen for this key."""
        subject = record.RECORD.encode() + key
        check_epoch(record, self._seen.get(subject) or self._book.epoch(subject))
        self._seen.pop(subject, None)
        while len(self._seen) >= EPOCHS_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[subject] = record.epoch
        self._book.see_epoch(subject, record.epoch)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a node has shown, everything verified."""

    mandate: Signed[Mandate]
    capability: Signed[CapabilityProfile]
    connectivity: Signed[ConnectivityProfile]
    worker_key: Signed[WorkerKey] | None
    shown: Shown
    reply: ProfileReply

    @property
    def profile(self) -> Profile:
        """As it came."""
        return Profile(self.reply.mandate, self.reply.capability, self.reply.connectivity)


def read_credentials_untrusted(key: bytes, frame: bytes, epochs: Epochs, now_ms: int) -> Credentials:
    """What the node of that key has answered; its mandate's epoch was seen."""
    reply = decode_message_untrusted(frame)
    if not isinstance(reply, ProfileReply):
        raise RemoteProtocolError(Code.BAD_ENCODING, "The node answered something else than its profile.")
    capability = verify_untrusted(CapabilityProfile, reply.capability, signer=key)
    connectivity = verify_untrusted(ConnectivityProfile, reply.connectivity, signer=key)
    check_profile(capability, key, now_ms)
    check_profile(connectivity, key, now_ms)
    mandate = _mandate_untrusted(reply.mandate, capability.record, epochs, now_ms)
    worker_key = _worker_key_untrusted(reply.worker_key, key, now_ms)
    shown = Shown(partial(heard_untrusted, reply.witnesses, key, mandate.record.owner, now_ms))
    return Credentials(mandate, capability, connectivity, worker_key, shown, reply)


def contradictions(key: bytes, before: Profile, now: Credentials) -> Iterator[Sequence[Signed[Any]]]:
    """Records of both times that prove a fault together: a node may say but once what it says otherwise now.

    Raises `RemoteProtocolError` if what is known from before does not hold.
    """
    if before == now.profile:
        return
    shown: Sequence[Signed[Any]] = (now.mandate, now.capability, now.connectivity)
    pairs = list(zip(_signed_untrusted(key, before), shown, strict=True))
    for records in (*pairs, (*pairs[0], *pairs[1])):
        if prove(records):
            yield records


def _mandate_untrusted(envelope: bytes, profile: CapabilityProfile, epochs: Epochs, now_ms: int) -> Signed[Mandate]:
    """The mandate that the node itself names in its profile, of no epoch that a later one has voided.

    It pins the owner from here on. Which roles it gives is for who asks.
    """
    mandate = verify_any_signer_untrusted(Mandate, envelope)
    if mandate.id != profile.mandate:
        raise RemoteProtocolError(Code.BAD_MANDATE, "The node shows another mandate than its profile names.")
    check_mandate(mandate, profile.node, mandate.record.roles[0], now_ms)
    if issuer := check_issued(mandate, now_ms):
        epochs.see(mandate.record.owner, issuer)
    epochs.see(profile.node, mandate.record)
    return mandate


def _worker_key_untrusted(envelope: bytes | None, node: bytes, now_ms: int) -> Signed[WorkerKey] | None:
    if envelope is None:
        return None
    worker_key = verify_untrusted(WorkerKey, envelope, signer=node)
    check_current(worker_key.record.not_before_ms, worker_key.record.expires_ms, now_ms, "worker key")
    if worker_key.record.node != node:
        raise RemoteProtocolError(Code.BAD_RECORD, "The worker key is another node's.")
    return worker_key


def _signed_untrusted(key: bytes, profile: Profile) -> tuple[Signed[Any], Signed[Any], Signed[Any]]:
    return (
        verify_any_signer_untrusted(Mandate, profile.mandate),
        verify_untrusted(CapabilityProfile, profile.capability, signer=key),
        verify_untrusted(ConnectivityProfile, profile.connectivity, signer=key),
    )

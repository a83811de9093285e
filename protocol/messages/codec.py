"""A message as one frame, and back: of every kind there is."""

from __future__ import annotations

from typing import Final, TypeAlias, get_args

from ..codec import decode_untrusted, encode, encode_packed
from ..errors import Code, RemoteProtocolError
from ..limits import MESSAGE_BYTES_MAX, MESSAGE_ENTRIES_MAX
from ..reading import read_tagged_untrusted
from ..schema import from_map_untrusted, to_map
from .assurance import (
    DecidedReply,
    DecidedRequest,
    DecisionReply,
    DisputeRequest,
    DisputesReply,
    DisputesRequest,
    EvidenceMessage,
    NotedMessage,
    PleaReply,
    VerdictReply,
    VerdictRequest,
)
from .discovery import (
    BlobReply,
    BlobRequest,
    Probe,
    ProbeReply,
    ProfileReply,
    ProfileRequest,
    RateReply,
    RateRequest,
)
from .grid import FeederReply, FeederRequest, ShedExchange
from .jobs import JobMessage
from .payment import (
    GroundReply,
    GroundRequest,
    MeansReply,
    MeansRequest,
    RailsReply,
    RailsRequest,
    VoucherReply,
    VoucherRequest,
)

Message: TypeAlias = (
    JobMessage | ProfileRequest | ProfileReply | VoucherRequest | VoucherReply | BlobRequest | BlobReply
    | Probe | ProbeReply | RateRequest | RateReply | VerdictRequest | VerdictReply | GroundRequest | GroundReply
    | ShedExchange | FeederRequest | FeederReply
    | DisputeRequest | PleaReply | DecisionReply | DisputesRequest | DisputesReply | DecidedRequest | DecidedReply
    | EvidenceMessage | NotedMessage | RailsRequest | RailsReply | MeansRequest | MeansReply
)  # fmt: skip

MESSAGES: Final[dict[str, type[Message]]] = {kind.KIND: kind for kind in get_args(Message)}
"""Every message by its kind, in the order of the specification's table."""
_TAGS = {encode(tag): kind for tag, kind in MESSAGES.items()}
"""Each of less than 24 bytes, so that the first one says how many follow."""


def encode_message(message: Message) -> bytes:
    """One frame."""
    return encode_packed({"t": message.KIND, **to_map(message)})


def decode_message_untrusted(frame: bytes) -> Message:
    """The message in a frame. Raises `RemoteProtocolError` for anything that is not one."""
    if 3 < len(frame) <= MESSAGE_BYTES_MAX and (kind := _TAGS.get(frame[3 : 4 + (frame[3] & 31)])):
        message = read_tagged_untrusted(kind, kind.KIND, frame)
        if message is not None:
            return message
    value = decode_untrusted(frame, bytes_max=MESSAGE_BYTES_MAX, entries_max=MESSAGE_ENTRIES_MAX)
    if not isinstance(value, dict) or not isinstance(tag := value.pop("t", None), str) or tag not in MESSAGES:
        raise RemoteProtocolError(Code.BAD_ENCODING, "The frame is not a message of this protocol.")
    return from_map_untrusted(MESSAGES[tag], value)

"""What a node publishes in the DHT: both profiles, and the rules by which others keep and choose them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .codec import decode_untrusted, encode
from .envelope import Signed, claimed_signer_untrusted, verify_untrusted
from .errors import Code, RemoteProtocolError
from .limits import PUBLISHED_BYTES_MAX
from .names import profile_key
from .profiles import CapabilityProfile, ConnectivityProfile, check_profile


@dataclass(frozen=True, slots=True)
class Profiles:
    """Both profiles of one moment. A later one has a higher sequence, also after a restart: it is the time."""

    capability: Signed[CapabilityProfile]
    connectivity: Signed[ConnectivityProfile]

    def encode(self) -> bytes:
        """The value in the DHT."""
        return encode([self.capability.envelope, self.connectivity.envelope])


def decode_profiles_untrusted(value: bytes, now_ms: int) -> Profiles:
    """Both profiles of a value in the DHT, of this hour and signed by one node. Raises `RemoteProtocolError`."""
    envelopes = decode_untrusted(value, bytes_max=PUBLISHED_BYTES_MAX)
    match envelopes:
        case [bytes(first), bytes(second)]:
            node = claimed_signer_untrusted(first)
        case _:
            raise RemoteProtocolError(Code.BAD_RECORD, "A node's profiles are a list of two envelopes.")
    capability = verify_untrusted(CapabilityProfile, first, signer=node)
    connectivity = verify_untrusted(ConnectivityProfile, second, signer=node)
    check_profile(capability, node, now_ms)
    check_profile(connectivity, node, now_ms)
    return Profiles(capability, connectivity)


def check_published_untrusted(key: str, value: bytes, now_ms: int) -> None:
    """Returns if `value` may stand in the DHT under `key`: the profiles of the node that it names.

    Raises `RemoteProtocolError`.
    """
    if key != profile_key(decode_profiles_untrusted(value, now_ms).capability.signer):
        raise RemoteProtocolError(Code.BAD_SIGNATURE, "The profiles are not of the node that the key names.")


def newest(values: Sequence[bytes], now_ms: int) -> int:
    """The index of the value with the highest sequence; of equals the one whose bytes come first, everywhere the same."""

    def rank(index: int) -> tuple[int, bytes]:
        return -decode_profiles_untrusted(values[index], now_ms).capability.record.sequence, values[index]

    return min(range(len(values)), key=rank)

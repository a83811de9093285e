"""What a node says of itself: what it can run and for how much, and how it is connected.

Advertised figures are a prior; clients decide by what they measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from .envelope import Signed
from .errors import Code, RemoteProtocolError
from .identity import check_current
from .limits import ADDRESSES_MAX, BUNDLES_MAX, PRICES_MAX, PROFILE_MS_MAX
from .prices import Price
from .schema import Between, Hash, Key, Size, Text, Uint, Word

Ppm = Annotated[int, Between(0, 1_000_000)]
Region = Annotated[str, Size(0, 3)]
"""A geohash of at most three characters (about 150 km), set by the owner; empty if not said."""


class State(StrEnum):
    """What a node is doing, as its owner's rules allow."""

    OFF = "off"
    NOT_ELIGIBLE = "not-eligible"
    READY = "ready"
    BUSY = "busy"
    YIELDING = "yielding"


@dataclass(frozen=True, slots=True)
class ServedBundle:
    """One bundle on offer. Rates are measured by the node at start-up, in thousandths per second."""

    bundle: Hash
    entries: Annotated[tuple[Word, ...], Size(1, 8)]
    numerics_class: Text
    """Results are bit-exact only within one class: precision, jaxlib, platform, instruction set, variant."""
    input_tokens_per_s_milli: Uint
    output_tokens_per_s_milli: Uint
    calls_per_s_milli: Uint


@dataclass(frozen=True, slots=True)
class CapabilityProfile:
    """What a node offers. Never a place, a VIN or telemetry."""

    RECORD: ClassVar[str] = "capability-profile"

    node: Key
    sequence: Uint
    """A higher one replaces lower ones."""
    issued_ms: Uint
    expires_ms: Uint
    kind: Word | None
    """`vehicle`, `robot`, `site` or `host`, if the owner wishes to say it."""
    region: Region
    roles: Annotated[tuple[Word, ...], Size(1, 8)]
    accelerators: Annotated[tuple[Text, ...], Size(0, 64)]
    served: Annotated[tuple[ServedBundle, ...], Size(0, BUNDLES_MAX)]
    prices: Annotated[tuple[Price, ...], Size(0, PRICES_MAX)]
    jobs_max: Uint

    def served_bundle(self, bundle: bytes) -> ServedBundle | None:
        """The offer for one bundle."""
        return next((served for served in self.served if served.bundle == bundle), None)


@dataclass(frozen=True, slots=True)
class ConnectivityProfile:
    """How a node is reached and how well, measured by itself against `vantage_peers` others. Absent: not measured."""

    RECORD: ClassVar[str] = "connectivity-profile"

    node: Key
    sequence: Uint
    issued_ms: Uint
    expires_ms: Uint
    addresses: Annotated[tuple[Text, ...], Size(0, ADDRESSES_MAX)]
    link_kinds: Annotated[tuple[Word, ...], Size(0, 8)]
    metered: bool | None
    vantage_peers: Uint
    rtt_p50_us: Uint | None
    rtt_p95_us: Uint | None
    jitter_us: Uint | None
    loss_ppm: Ppm | None
    up_kbit_per_s: Uint | None
    down_kbit_per_s: Uint | None

    @property
    def interactive(self) -> bool:
        """Whether a person can wait for it: p95 under 150 ms, jitter under 50 ms, loss under 2 %; unmeasured counts as not.

        150 ms one way is where ITU-T G.114 says conversation starts to suffer; here it is a round trip, because tokens
        stream one way.
        """
        if self.rtt_p95_us is None or self.jitter_us is None or self.loss_ppm is None:
            return False
        return self.rtt_p95_us <= 150_000 and self.jitter_us <= 50_000 and self.loss_ppm <= 20_000


def check_profile(profile: Signed[CapabilityProfile] | Signed[ConnectivityProfile], node: bytes, now_ms: int) -> None:
    """Raises `RemoteProtocolError` unless `node` itself signed the profile and it is of this hour."""
    record = profile.record
    if profile.signer != node or record.node != node:
        raise RemoteProtocolError(Code.BAD_SIGNATURE, "The profile is not signed by the node that it is about.")
    if record.expires_ms - record.issued_ms > PROFILE_MS_MAX:
        raise RemoteProtocolError(Code.BAD_RECORD, "The profile claims to be valid for too long.")
    check_current(record.issued_ms, record.expires_ms, now_ms, "profile")

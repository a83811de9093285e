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
from .limits import ADDRESSES_MAX, BUNDLES_MAX, CANDIDATES_MAX, HOLD_MS_MAX, PRICES_MAX, PROFILE_MS_MAX
from .prices import Price
from .schema import Between, Hash, Key, Ppm, Size, Text, Uint, Word

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
    """Id of its manifest."""
    entries: Annotated[tuple[Word, ...], Size(1, 8)]
    """Those of its entries that the node runs."""
    numerics_class: Text
    """Precision, jaxlib, platform, instruction set, and all variants that may run."""
    input_tokens_per_s_milli: Uint
    """Tokens that it reads before the first one of an answer."""
    output_tokens_per_s_milli: Uint
    """Tokens that it generates for one job."""
    calls_per_s_milli: Uint
    """Inputs of a `call`; 0 if it has none."""


@dataclass(frozen=True, slots=True)
class CapabilityProfile:
    """What a node offers. Never a place, a VIN or telemetry."""

    RECORD: ClassVar[str] = "capability-profile"

    node: Key
    """Who signs this."""
    mandate: Hash
    """Id of the mandate that the node acts under: with it the node consents to that owner and epoch."""
    sequence: Uint
    """A higher one replaces lower ones."""
    issued_ms: Uint
    """When it was signed, in milliseconds since 1970."""
    expires_ms: Uint
    """From when on it is not relied on."""
    kind: Word | None
    """`vehicle`, `robot`, `site` or `host`, if the owner wishes to say it."""
    region: Region
    """For clients that look for nodes near them."""
    roles: Annotated[tuple[Word, ...], Size(1, 8)]
    """At most those of the mandate."""
    accelerators: Annotated[tuple[Text, ...], Size(0, 64)]
    """For people: what it computes on, a line each."""
    served: Annotated[tuple[ServedBundle, ...], Size(0, BUNDLES_MAX)]
    """What is ready to run."""
    prices: Annotated[tuple[Price, ...], Size(0, PRICES_MAX)]
    """One for each bundle and entry on offer; an order holds the one that it is priced by."""
    jobs_max: Uint
    """Jobs side by side."""
    held_ppm_max: Ppm
    """Share of its pay that the node lets a client hold back for later checks."""
    hold_ms_max: Annotated[int, Between(0, HOLD_MS_MAX)]
    """For how long."""
    arbiters: Annotated[tuple[Key, ...], Size(0, CANDIDATES_MAX)]
    """Owners of verifiers from whom the node lets a committee be drawn."""

    def __post_init__(self) -> None:
        _check_times(self.issued_ms, self.expires_ms)

    def served_bundle(self, bundle: bytes) -> ServedBundle | None:
        """The offer for one bundle."""
        return next((served for served in self.served if served.bundle == bundle), None)


@dataclass(frozen=True, slots=True)
class ConnectivityProfile:
    """How a node is reached and how well, measured by itself against `vantage_peers` others. Absent: not measured."""

    RECORD: ClassVar[str] = "connectivity-profile"

    node: Key
    """Who signs this."""
    sequence: Uint
    """A higher one replaces lower ones."""
    issued_ms: Uint
    """When it was signed, in milliseconds since 1970."""
    expires_ms: Uint
    """From when on it is not relied on."""
    addresses: Annotated[tuple[Text, ...], Size(0, ADDRESSES_MAX)]
    """Multiaddresses, each with the node's peer id at its end; relayed ones too."""
    link_kinds: Annotated[tuple[Word, ...], Size(0, 8)]
    """For people, as `ethernet`, `wifi` or `cellular`; none if not known."""
    metered: bool | None
    """Whether traffic costs the owner money; absent if not known."""
    vantage_peers: Uint
    """Connected peers that answered when the figures below were taken; 0: there are none."""
    rtt_p50_us: Uint | None
    """Round trips of a small question on an open stream, several to each of them."""
    rtt_p95_us: Uint | None
    """One in twenty takes longer."""
    jitter_us: Uint | None
    """Mean difference of one peer's consecutive round trips."""
    loss_ppm: Ppm | None
    """Questions without an answer in time."""
    up_kbit_per_s: Uint | None
    """From the node to others."""
    down_kbit_per_s: Uint | None
    """From others to the node."""

    def __post_init__(self) -> None:
        _check_times(self.issued_ms, self.expires_ms)

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
    check_current(record.issued_ms, record.expires_ms, now_ms, "profile")


def _check_times(issued_ms: int, expires_ms: int) -> None:
    if not 0 < expires_ms - issued_ms <= PROFILE_MS_MAX:
        raise ValueError("a profile lasts at most half an hour")

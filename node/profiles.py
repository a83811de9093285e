"""What this node says of itself, signed: its offer and its profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import floor
from typing import Final

from nacl.signing import SigningKey

from ..protocol.bundle import CALL, SCORE, Manifest
from ..protocol.envelope import Signed, sign
from ..protocol.identity import CHECKER, EXECUTOR, WorkerKey
from ..protocol.limits import ADDRESSES_MAX, PROFILE_MS_MAX, WORKER_KEY_MS_MAX
from ..protocol.orders import Terms
from ..protocol.prices import Price
from ..protocol.profiles import CapabilityProfile, ConnectivityProfile, ServedBundle
from ..protocol.published import Profiles
from .config import DAY_MS, Config
from .connection import HIDES_LINK, Connection
from .costs import EntryPrice, entry_price
from .credit import STRANGERS_PPM, day_ucr, windows_ucr
from .engine.engine import Engine
from .engine.messages import Rates
from .machine import threads
from .rules.policy import DUTY_MIN

DUTY_STEPS: Final = 10
"""Of full speed, as others are told of it: finer would tell each of a site's chargers, and sign a profile for it."""


@dataclass(frozen=True)
class Offer:
    """What can be ordered while one worker runs: a new worker is a new offer."""

    node: bytes
    manifests: Mapping[bytes, Manifest]
    served: tuple[ServedBundle, ...]
    """With its rates as they were measured, without pauses: others are told of them as `slowed`."""
    prices: tuple[Price, ...]
    worker_key: Signed[WorkerKey]
    strangers_ppm: int = STRANGERS_PPM
    """Of what it earns in a day, what strangers may take on credit in a day."""

    @cached_property
    def strangers_ucr(self) -> int:
        """The same in micro-credits."""
        return day_ucr(self.served, self.prices) * self.strangers_ppm // 1_000_000

    @cached_property
    def unanswered_ucr(self) -> int:
        """What a payer may leave without vouchers."""
        return windows_ucr(self.prices)

    held_ppm_max: int = 0
    hold_ms_max: int = 0
    arbiters: tuple[bytes, ...] = ()

    @cached_property
    def terms(self) -> Terms:
        """What orders are held against."""
        bundles = frozenset((served.bundle, entry) for served in self.served for entry in served.entries)
        return Terms(
            self.node,
            self.worker_key.id,
            frozenset(self.prices),
            bundles,
            self.held_ppm_max,
            self.hold_ms_max,
            frozenset(self.arbiters),
        )

    def numerics_class(self, bundle: bytes) -> str:
        """The class of what the worker computes for a bundle on offer."""
        return next(served.numerics_class for served in self.served if served.bundle == bundle)


def make_offer(
    config: Config, key: SigningKey, engine: Engine, manifests: Mapping[bytes, Manifest], now_ms: int
) -> Offer:
    """The offer of the worker that is ready now."""
    served = tuple(
        ServedBundle(
            bundle=bundle,
            entries=tuple(entry for entry in manifests[bundle].entries if _plays(config.roles, entry)),
            numerics_class=loaded.numerics_class,
            input_tokens_per_s_milli=loaded.rates.prefill_milli,
            output_tokens_per_s_milli=loaded.rates.decode_milli,
            calls_per_s_milli=loaded.rates.call_milli,
        )
        for bundle, loaded in engine.served.items()
        if any(_plays(config.roles, entry) for entry in manifests[bundle].entries)
    )
    prices = tuple(
        _price(bundle.bundle, entry, asked(config, entry, engine.served[bundle.bundle].rates))
        for bundle in served
        for entry in bundle.entries
    )
    node = bytes(key.verify_key)
    worker_key = WorkerKey(node, engine.hpke_key, now_ms, now_ms + WORKER_KEY_MS_MAX)
    return Offer(
        node, manifests, served, prices, sign(worker_key, key), config.strangers_ppm,
        config.held_percent * 10_000, config.hold_days * DAY_MS, config.arbiters,
    )  # fmt: skip


def earns_ucr(offer: Offer) -> float:
    """What an hour of the best-paid work on offer brings, one job after another at the measured rates."""
    rates = {served.bundle: served for served in offer.served}
    hourly = [
        price.output_token_ucr * rates[price.bundle].output_tokens_per_s_milli
        + (price.call_ucr * rates[price.bundle].calls_per_s_milli if price.entry == CALL else 0)
        for price in offer.prices
    ]
    return 3.6 * max(hourly, default=0)


def told_duty(duty: float) -> float:
    """The share of full speed that others are told of; never more than is kept, but for the least that any node keeps."""
    return max(DUTY_MIN, floor(duty * DUTY_STEPS + 1e-9) / DUTY_STEPS)


def slowed(served: Sequence[ServedBundle], duty: float) -> tuple[ServedBundle, ...]:
    """What was measured without pauses, as it comes with them, at a share of full speed. Never 0 where there is a rate."""

    def slow(per_s_milli: int) -> int:
        return max(min(per_s_milli, 1), floor(per_s_milli * duty))

    return tuple(
        replace(
            each,
            input_tokens_per_s_milli=slow(each.input_tokens_per_s_milli),
            output_tokens_per_s_milli=slow(each.output_tokens_per_s_milli),
            calls_per_s_milli=slow(each.calls_per_s_milli),
        )
        for each in served
    )


def _plays(roles: Sequence[str], entry: str) -> bool:
    return (CHECKER if entry == SCORE else EXECUTOR) in roles


def asked(config: Config, entry: str, rates: Rates) -> EntryPrice:
    """As the owner says, or as it follows from what the owner says that an hour costs."""
    if config.costs is None or entry in config.priced:
        return config.prices[entry]
    price = entry_price(entry, rates, config.costs)
    # Not measured: better the usual price than none.
    return price if price != EntryPrice() or not config.costs.hour_ucr else config.prices[entry]


def _price(bundle: bytes, entry: str, price: EntryPrice) -> Price:
    return Price(bundle, entry, price.call_ucr, price.input_token_ucr, price.output_token_ucr, price.checked_token_ucr)


def make_profiles(
    config: Config,
    key: SigningKey,
    mandate: bytes,
    offer: Offer,
    addresses: Sequence[str],
    connection: Connection,
    sequence: int,
    now_ms: int,
    duty: float = 1.0,
) -> Profiles:
    """The profiles as of now; `mandate` is the id of the one that the node acts under, `sequence` higher than ever before,
    `duty` the share of full speed at which it works."""
    node, expires_ms = bytes(key.verify_key), now_ms + PROFILE_MS_MAX
    measured, hides = connection.measured, config.kind in HIDES_LINK
    capability = CapabilityProfile(
        node=node,
        mandate=mandate,
        sequence=sequence,
        issued_ms=now_ms,
        expires_ms=expires_ms,
        kind=config.kind,
        region=config.region,
        roles=config.roles,
        accelerators=tuple(sorted({f"{_device(s.numerics_class)}, {threads()} threads" for s in offer.served})),
        served=slowed(offer.served, duty),
        prices=offer.prices,
        jobs_max=config.jobs_max,
        held_ppm_max=offer.held_ppm_max,
        hold_ms_max=offer.hold_ms_max,
        arbiters=offer.arbiters,
    )
    connectivity = ConnectivityProfile(
        node=node,
        sequence=sequence,
        issued_ms=now_ms,
        expires_ms=expires_ms,
        addresses=tuple(addresses[:ADDRESSES_MAX]),
        link_kinds=() if hides else connection.link.kinds[:8],
        metered=None if hides else connection.link.metered,
        vantage_peers=measured.peers if measured else 0,
        rtt_p50_us=measured.rtt_p50_us if measured else None,
        rtt_p95_us=measured.rtt_p95_us if measured else None,
        jitter_us=measured.jitter_us if measured else None,
        loss_ppm=measured.loss_ppm if measured else None,
        up_kbit_per_s=connection.up_kbit_per_s,
        down_kbit_per_s=connection.down_kbit_per_s,
    )
    return Profiles(sign(capability, key), sign(connectivity, key))


def _device(numerics_class: str) -> str:
    """`platform/instruction set or device` of a class `precision/jaxlib/platform/device/variant`."""
    return "/".join(numerics_class.split("/")[2:4]) or numerics_class

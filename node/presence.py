"""This node's presence in the mesh: it says who it is to whoever asks, and leaves hints in the DHT where to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import trio
from nacl.signing import SigningKey

from ..protocol.envelope import Signed
from ..protocol.errors import NetworkError
from ..protocol.identity import Mandate
from ..protocol.messages import ProfileReply, ProfileRequest
from ..protocol.names import WORLD, holder_key, profile_key, provider_key, relay_key
from ..protocol.published import Profiles
from .availability import Availability
from .config import Config
from .connection import Connection
from .delivery import now_ms
from .log import EventLog, wall_ms
from .mandates import Authority, current_mandate
from .network.seam import Network, Stream
from .profiles import Offer, make_profiles
from .questions import answer_each

ANNOUNCE_S: Final = 300.0
"""Of a profile that lives for 30 minutes: a few lost refreshes do no harm."""
ANNOUNCE_LIMIT_S: Final = 30.0
PROVIDED_AT_ONCE: Final = 8
PROVIDE_GAP_S: Final = 1.5
"""Between further records: py-libp2p takes ten in ten seconds from one peer (kad_dht/kad_dht.py:313)."""
QUESTIONS_MAX: Final = 64
"""On one stream; a prober asks six."""


def regions(config: Config) -> tuple[str, ...]:
    """Under which of them the DHT names this node, and names others to it."""
    return tuple(dict.fromkeys((WORLD, config.region or WORLD)))


class Presence:
    """What others can learn of this node."""

    def __init__(
        self,
        config: Config,
        key: SigningKey,
        authority: Authority,
        network: Network,
        availability: Availability,
        offer: Offer,
        held: Callable[[], Iterable[bytes]] = tuple,
        connection: Callable[[], Connection] = Connection,
        witnesses: Callable[[], tuple[bytes, ...]] = tuple,
    ) -> None:
        """As of now: `held` are the bundles that this node has for others to fetch, `connection` is what it knows of its own,
        `witnesses` what others have signed of it."""
        self._offer = offer
        self._held = held
        self._working = True
        self._config = config
        self._key = key
        self._node = bytes(key.verify_key)
        self._authority = authority
        self._network = network
        self._availability = availability
        self._connection = connection
        self._witnesses = witnesses
        self.mandate: Signed[Mandate] = current_mandate(config, self._node, authority, wall_ms())
        self._sequence = 0
        self._announced: tuple[str, ...] = ()
        self._profiles: Profiles = self._fresh()

    async def answer(self, stream: Stream) -> None:
        """`/fallow/profile/1`: each question has got its answer, until the asker ends the stream."""

        async def reply(_: ProfileRequest) -> ProfileReply:
            return self._reply()

        await answer_each(stream, ProfileRequest, reply, QUESTIONS_MAX)

    def refresh(self) -> None:
        """Whoever asks from now on is told of this moment; the table hears of it in its own time."""
        self._profiles = self._fresh()

    async def announce(self) -> None:
        """The DHT names this node under each bundle on offer or held, and as a relay; it holds its profiles as of now.

        Not while it needs a relay and has none: there is nowhere to send anybody.
        """
        self.mandate = current_mandate(self._config, self._node, self._authority, wall_ms())
        self._announced = self._network.addresses()
        self._profiles = self._fresh()
        if not self._announced:
            return
        with trio.move_on_after(ANNOUNCE_LIMIT_S):
            await self._network.put(profile_key(self._node), self._profiles.encode())
            where = regions(self._config)
            served = [served.bundle for served in self._offer.served]
            keys = [provider_key(bundle, region) for bundle in served for region in where]
            keys += [relay_key(region) for region in where if self._config.is_relay]
            keys += [holder_key(bundle) for bundle in await trio.to_thread.run_sync(self._held) if bundle not in served]
            for index, key in enumerate(keys):
                if index >= PROVIDED_AT_ONCE:
                    await trio.sleep(PROVIDE_GAP_S)
                await self._network.provide(key)

    async def keep(self, log: EventLog) -> None:
        """Announced every five minutes, and at once when the way here is another; until cancelled.

        A failure waits for the next round.
        """
        while True:
            with trio.move_on_after(ANNOUNCE_S):
                await self._network.moved(self._announced)
            try:
                await self.announce()
            except NetworkError as error:
                log.write("announce_failed", code=error.code, why=error.message)

    def renew(self, offer: Offer | None) -> None:
        """A new worker's offer stands from now on. None: there is no worker; what it could do is still said."""
        self._working = offer is not None
        if offer:
            self._offer = offer
            self._profiles = self._fresh()

    def _fresh(self) -> Profiles:
        addresses = self._network.addresses()
        now_ms = wall_ms()
        self._sequence = max(self._sequence + 1, now_ms)  # two profiles of one sequence would be fraud
        return make_profiles(
            self._config, self._key, self.mandate.id, self._offer, addresses, self._connection(), self._sequence, now_ms
        )

    def _reply(self) -> ProfileReply:
        now = now_ms()
        return ProfileReply(
            mandate=self.mandate.envelope,
            capability=self._profiles.capability.envelope,
            connectivity=self._profiles.connectivity.envelope,
            worker_key=self._offer.worker_key.envelope if self._working else None,
            state=str(self._availability.state(now)),
            reasons=self._availability.reasons_public(now),
            jobs_running=self._availability.jobs,
            witnesses=self._witnesses(),
        )

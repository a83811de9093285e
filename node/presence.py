"""This node's presence in the mesh: it says who it is to whoever asks, and leaves hints in the DHT where to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import trio
from nacl.signing import SigningKey

from ..protocol.envelope import Signed
from ..protocol.errors import NetworkError
from ..protocol.identity import Mandate
from ..protocol.messages.discovery import ProfileReply, ProfileRequest
from ..protocol.names import WORLD, holder_key, profile_key, relay_key
from ..protocol.published import Profiles
from .announcing import Announcer
from .availability import Availability
from .config import Config
from .connection import Connection
from .log import EventLog, wall_ms
from .machine import beside, chance
from .mandates import Authority, current_mandate
from .network.seam import Network, Stream
from .profiles import Offer, make_profiles, told_duty
from .questions import answer_at_once

ANNOUNCE_S: Final = 600.0
"""Of a profile, and of provider records, that last 30 minutes: each half of their keepers is told in every other round."""
SPREAD_S: Final = 300.0
"""In a later round, all keys are said over so long: an index node hears of each in its own time."""
ANNOUNCE_LIMIT_S: Final = 30.0
JITTER: Final = 0.1
"""Rounds are so much longer or shorter, by chance, so that the nodes that started together do not stay together."""
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
        duty: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """As of now: `held` are the bundles that this node has for others to fetch, `connection` is what it knows of its own,
        `witnesses` what others have signed of it, `duty` the share of full speed at which it works."""
        self._offer = self._public = offer
        """What is for sale now, and what the DHT says: measured once, since a new worker's rates would tell of its start."""
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
        self._duty = duty
        self._told_duty = self._public_duty = told_duty(duty())
        """As the DHT says it: the owner's bound at the start, and not what the grid or the chargers leave at the moment."""
        self.mandate: Signed[Mandate] = current_mandate(config, self._node, authority, wall_ms())
        self._sequence = 0
        self._announced: tuple[str, ...] = ()
        self._announcer = Announcer(self._node, network)
        self._profiles: Profiles | None = None
        """As whoever asks is told; signed when somebody does."""

    async def answer(self, stream: Stream) -> None:
        """`/fallow/profile/1`: each question has got its answer, until the asker ends the stream."""
        await answer_at_once(stream, ProfileRequest, lambda _: self._reply(), QUESTIONS_MAX)

    def refresh(self) -> None:
        """Whoever asks from now on is told of this moment; the table hears of it in its own time."""
        self._profiles = None

    def paced(self) -> None:
        """The node works at another share of its speed: who asks from now on hears of it, as far as that is told."""
        if told_duty(self._duty()) != self._told_duty:
            self.refresh()

    async def announce(self) -> None:
        """The DHT names this node under each bundle on offer or held, and as a relay; it holds its profiles.

        Not while it needs a relay and has none: there is nowhere to send anybody.
        """
        with trio.move_on_after(ANNOUNCE_LIMIT_S):
            await self._announce(0.0)

    async def keep(self, log: EventLog) -> None:
        """Announced every ten minutes, whatever this machine does; until cancelled.

        At once only when it has become reachable, or if it says openly where it is and that has changed: relays of a
        machine that moves change when it does. A failure waits for the next round.
        """
        due_at = _next_round()
        while True:
            with trio.move_on_at(due_at):
                while self._hides():
                    await self._network.moved(self._network.addresses())
                await self._network.moved(self._announced)
            due_at = _next_round()  # by the beginning of this one, however long it takes
            try:
                await self._announce(SPREAD_S)
            except NetworkError as error:
                log.write("announce_failed", code=error.code, why=error.message)

    def _hides(self) -> bool:
        """Whether it would tell of a move that others now learn of another way to this node."""
        return bool(self._announced) and self._network.reachability().relayed

    async def _announce(self, spread_s: float) -> None:
        self.mandate = current_mandate(self._config, self._node, self._authority, wall_ms())
        self.refresh()
        self._announced = self._network.addresses()
        if not self._announced:
            return
        await self._network.put(profile_key(self._node), self._published().encode())
        where = regions(self._config)
        served = [served.bundle for served in self._public.served]
        held = await beside(self._held)
        keys = [relay_key(region) for region in where if self._config.is_relay]
        keys += [holder_key(bundle) for bundle in held if bundle not in served]
        await self._announcer.say([(bundle, region) for bundle in served for region in where], keys, spread_s)

    def renew(self, offer: Offer | None) -> None:
        """A new worker's offer stands from now on. None: there is no worker; what it could do is still said."""
        self._working = offer is not None
        if offer:
            self._offer = offer
            if not _same_goods(offer, self._public):
                self._public = offer
            self.refresh()

    def _published(self) -> Profiles:
        """As others read them in the DHT: nothing in them but its time follows from what the machine does just now, and no
        figures of its link are, which are others at home and on the road. Whoever needs those asks the node."""
        return self._made(self._public, Connection(), self._public_duty)

    def _told(self) -> Profiles:
        """As of now, for whoever asks."""
        self._told_duty = told_duty(self._duty())
        return self._made(self._offer, self._connection(), self._told_duty)

    def _made(self, offer: Offer, connection: Connection, duty: float) -> Profiles:
        addresses, now_ms = self._network.addresses(), wall_ms()
        self._sequence = max(self._sequence + 1, now_ms)  # two profiles of one sequence would be fraud
        return make_profiles(
            self._config, self._key, self.mandate.id, offer, addresses, connection, self._sequence, now_ms, duty
        )

    def _reply(self) -> ProfileReply:
        profiles = self._profiles = self._profiles or self._told()
        return ProfileReply(
            mandate=self.mandate.envelope,
            capability=profiles.capability.envelope,
            connectivity=profiles.connectivity.envelope,
            worker_key=self._offer.worker_key.envelope if self._working else None,
            state=str(self._availability.state_public),
            reasons=self._availability.reasons_public,
            jobs_running=self._availability.jobs,
            witnesses=self._witnesses(),
        )


def _next_round() -> float:
    return trio.current_time() + ANNOUNCE_S * chance().uniform(1 - JITTER, 1 + JITTER)


def _same_goods(one: Offer, other: Offer) -> bool:
    """Whether they differ in their worker alone: its key, and the rates that it measured at its start."""

    def goods(offer: Offer) -> tuple[object, ...]:
        served = tuple((each.bundle, each.entries, each.numerics_class) for each in offer.served)
        return served, offer.prices

    return goods(one) == goods(other)

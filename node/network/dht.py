"""The table of hints, as the seam promises it.

Upstream's client is not used. It answers from its own copy for 24 h (kad_dht/kad_dht.py:1415) and from its own provider
list (kad_dht/provider_store.py:370), counts duplicates (provider_store.py:433), spends 10 s on every frozen peer
(kad_dht/common.py:24) and cannot look up keys over 50 bytes (kad_dht/kad_dht.py:706). Here one exchange per peer both
asks and learns who is closer, so that no key is ever looked up by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from random import Random
from typing import Final, NamedTuple, Protocol

import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID

from ...protocol.errors import Code, FallowError, NetworkError
from ...protocol.limits import ADDRESSES_MAX
from .entries import NAMED_MAX, Addresses, Sender
from .identity import full_addresses, key_of
from .index import Index
from .kad import peer_untrusted, readable
from .seam import KEY_BYTES_MAX, PROVIDERS_MAX, VALUE_BYTES_MAX, Provider, Validator
from .standing import Fault
from .walk import FANOUT, PARALLEL, PARALLEL_CALM, PARALLEL_NAMED, PEER_S, WITNESSES, Named, Walk

ENOUGH_VALUES: Final = 8
"""Valid copies after which a search for a value stops; the newest of them counts. Of the twenty peers that keep it, were
a third to show an old one, the others are among these."""

FRESH_NAMES_MAX: Final = PROVIDERS_MAX // FANOUT
"""Providers that one peer's answer brings at once; of its others, those that several peers name come first. So nobody fills
the list alone."""

PLENTY: Final = 16
PLENTY_ANSWERS: Final = 3
"""Providers, and peers that have named some, after which a search for more is in ever less of a hurry: whoever asked has its
hands full."""

FEW: Final = 4
"""Addresses of one provider that one peer adds: two relays' ways by IPv4 and IPv6, and room for what others say."""

REFRESH_S: Final = 1800.0
"""Between an index node's searches for its own neighbours, and anybody's for no matter whom if it has not searched at all: they
keep the table of who is there fresh. libp2p has a third of that; here every node says its own records every ten minutes, and is
heard of by those whom it tells."""

SOUGHT_S: Final = 3300.0
"""For so long a record is said again to those who took it the last time, without another search for who is closest: in five of
six rounds. Index nodes stay for days: should as many come meanwhile as there were, half of those that are asked were told."""

KEEPERS_MIN: Final = 0.75
"""If fewer of them confirm it, others are sought at once."""

TURNS: Final = 2
"""Of those who took a record, each half is told again in every other round: after twenty minutes, of the thirty for which they
keep it. If a round is lost, the other half has it. Where fewer than `FANOUT` keep it, all are told."""

SOUGHT_MAX: Final = 1024
"""Records of one node: its bundles in two regions."""

SWEEP_S: Final = 60.0

PROVIDERS_REMEMBERED: Final = 4096
"""That are not read again, at some kilobyte each: every search hears of the same few hundred from each peer that it asks."""


class Exchanges(Protocol):
    """This node's part of the table, and the way to ask others: `kad.Kad`, or the simulator's."""

    serves: bool
    index: Index
    told: dict[bytes, tuple[bytes, ...]]

    @property
    def own(self) -> bytes: ...
    def spawn(self, task: Callable[[], Awaitable[None]]) -> None: ...
    def message(self, kind: Message.MessageType, key: bytes) -> Message: ...
    async def exchange(self, peer: ID, message: Message, addresses: Sequence[bytes] = ()) -> Message: ...
    def accuse(self, peer: ID, fault: Fault) -> None: ...
    def connected(self, peer: ID) -> bool: ...
    def lost(self, peer: ID) -> None: ...
    def frozen(self, peer: ID) -> None: ...


class Table:
    """Searches in the table, and this node's entries in it."""

    def __init__(
        self, addresses: Callable[[], Addresses], kad: Exchanges, validator: Validator, random: Random
    ) -> None:
        """`addresses` are this node's, as of now, in their binary form."""
        self._addresses = addresses
        self._kad = kad
        self._validator = validator
        self._random = random
        self._own = Sender(kad.own, "")
        self._keepers: dict[bytes, _Keepers] = {}
        """Of each record of this node."""
        self._searched_at = trio.current_time()

    async def join(self, peers: Sequence[ID]) -> None:
        """An index node and those closest to it know one another. Who keeps no part of the table is nobody's neighbour: one
        of the peers has told it of others, whom its searches dial when they need them.
        """
        if self._kad.serves:
            await self._closest(self._kad.own, peers)
            return

        def take(peer: ID, answer: Message) -> None:
            self._kad.told |= {entry.id: tuple(entry.addrs[:FEW]) for entry in answer.closerPeers[:FANOUT]}

        await self._walk(self._kad.own, Message.FIND_NODE, take, lambda: bool(self._kad.told)).run(peers)

    async def maintain(self) -> None:
        """Runs until cancelled: who is near stays known, and what has expired is dropped."""
        refreshed_at = trio.current_time()
        while True:
            await trio.sleep(SWEEP_S * self._random.uniform(0.75, 1.25))
            now = trio.current_time()
            self._kad.index.sweep(now)
            if now - refreshed_at >= REFRESH_S:
                refreshed_at, quiet = now, now - self._searched_at >= REFRESH_S
                if self._kad.serves:
                    await self._closest(self._kad.own)
                if quiet:
                    await self._closest(self._random.randbytes(32))

    async def put(self, key: str, value: bytes) -> int:
        """See `Network.put`."""
        raw = _checked(key)
        if len(value) > VALUE_BYTES_MAX:
            raise NetworkError(Code.TOO_LARGE, f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}")
        self._validator.validate(key, value)
        if self._kad.serves:
            self._kad.index.put(raw, value, self._own, trio.current_time())
        message = self._kad.message(Message.PUT_VALUE, raw)
        message.record.key, message.record.value = raw, value
        return await self._spread(raw, message)

    async def get(self, key: str) -> bytes | None:
        """See `Network.get`."""
        raw = _checked(key)
        values: list[bytes] = []

        def take(peer: ID, answer: Message) -> None:
            if answer.HasField("record"):
                if self._valid(key, answer.record.value):
                    values.append(answer.record.value)
                else:
                    self._kad.accuse(peer, Fault.BAD_RECORD)

        await self._walk(raw, Message.GET_VALUE, take, lambda: len(values) >= ENOUGH_VALUES).run()
        own = self._kad.index.value(raw, trio.current_time())
        if own is not None:
            values.append(own)
        values = [value for value in values if self._valid(key, value)]  # one may have expired while others were asked
        return values[self._validator.select(key, values)] if values else None

    async def provide(self, key: str) -> int:
        """See `Network.provide`."""
        raw = _checked(key)
        addresses = self._addresses()
        message = self._kad.message(Message.ADD_PROVIDER, raw)
        message.providerPeers.add(id=self._kad.own, addrs=addresses)
        if self._kad.serves:
            self._kad.index.providers.add(raw, addresses, self._own, trio.current_time())
        return await self._spread(raw, message)

    async def find(self, key: str, tell: Callable[[Provider], None] | None = None) -> list[Provider]:
        """See `Network.find`."""
        raw = _checked(key)
        crowd = _Crowd(self._kad.own, tell)
        crowd.take(self._kad.index.providers.named(raw, trio.current_time()))

        def take(peer: ID, answer: Message) -> None:
            crowd.take([(entry.id, tuple(entry.addrs)) for entry in answer.providerPeers[:NAMED_MAX]])

        await self._walk(raw, Message.GET_PROVIDERS, take, parallel=crowd.parallel).run()
        return crowd.all()

    async def _closest(self, target: bytes, start: Sequence[ID] = ()) -> list[ID]:
        return await self._walk(target, Message.FIND_NODE, lambda peer, answer: None).run(start)

    def _walk(
        self,
        target: bytes,
        kind: Message.MessageType,
        take: Callable[[ID, Message], None],
        enough: Callable[[], bool] | None = None,
        parallel: Callable[[], int] = lambda: PARALLEL,
    ) -> Walk:
        """A search whose answers `take` gets."""
        self._searched_at = trio.current_time()
        question = self._kad.message(kind, target)

        async def ask(peer: ID, addresses: Sequence[bytes]) -> list[Named]:
            answer = await self._kad.exchange(peer, question, addresses)
            take(peer, answer)
            closer = ((peer_untrusted(entry.id), tuple(entry.addrs)) for entry in answer.closerPeers[:FANOUT])
            return [(named, where) for named, where in closer if named is not None]

        return Walk(self._kad.own, target, _Searched(self._kad, self._random), ask, enough, parallel)

    async def _spread(self, raw: bytes, message: Message) -> int:
        """So many of those who are told of it now confirmed the message: the peers closest to the key, or a part of them."""
        addresses, kept = self._addresses(), self._keepers.pop(raw, None)
        known = min(len(self._kad.index.buckets), FANOUT)
        if kept is not None and trio.current_time() - kept.sought_at < SOUGHT_S and len(kept.peers) >= known:
            due = kept.due if kept.addresses == addresses else kept.peers
            confirmed = await self._tell(due, message)
            if confirmed >= max(1.0, KEEPERS_MIN * len(due)):
                self._keepers[raw] = kept._replace(addresses=addresses, turn=kept.turn + 1)
                return confirmed
        sought_at, peers = trio.current_time(), await self._closest(raw)
        while len(self._keepers) >= SOUGHT_MAX:
            del self._keepers[next(iter(self._keepers))]
        self._keepers[raw] = _Keepers(sought_at, peers, addresses)
        return await self._tell(peers, message)

    async def _tell(self, peers: Sequence[ID], message: Message) -> int:
        """So many of them confirmed the message."""
        confirmed = 0

        async def tell(peer: ID) -> None:
            nonlocal confirmed
            with trio.move_on_after(PEER_S):
                try:
                    await self._kad.exchange(peer, message)
                    confirmed += 1
                except NetworkError:
                    pass  # it has left, or has something newer: the others keep the record

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(tell, peer)
        return confirmed

    def _valid(self, key: str, value: bytes) -> bool:
        try:
            self._validator.validate(key, value)
        except FallowError:
            return False  # [IGNORE] some peer keeps what is not, or no longer, valid
        return True


class _Keepers(NamedTuple):
    """Those who keep one of this node's records, the closest first."""

    sought_at: float
    peers: list[ID]
    addresses: Addresses
    """Of this node, as they were told last."""
    turn: int = 0

    @property
    def due(self) -> list[ID]:
        """Who is told next, if this node is where it was."""
        turns = TURNS if len(self.peers) >= FANOUT else 1
        return self.peers[self.turn % turns :: turns]


class _Searched:
    """The routing table as a search sees it."""

    def __init__(self, kad: Exchanges, random: Random) -> None:
        self._kad = kad
        self._random = random

    def start(self, target: bytes) -> list[ID]:
        closest = self._kad.index.buckets.closest(target, FANOUT)
        others = [peer for peer in self._kad.index.buckets.peers() if peer not in closest]
        witnesses = self._random.sample(others, min(WITNESSES, len(others)))
        begin = [ID(peer) for peer in (*closest, *witnesses)]
        if any(map(self._kad.connected, begin)):
            return begin
        return begin + [peer for name in self._kad.told if (peer := peer_untrusted(name)) is not None]

    def late(self, peer: ID) -> None:
        self._kad.frozen(peer)

    def lost(self, peer: ID) -> None:
        self._kad.lost(peer)

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        self._kad.spawn(task)


class _Crowd:
    """The providers that were named, each once, with the addresses that anybody gave."""

    def __init__(self, own: bytes, tell: Callable[[Provider], None] | None) -> None:
        self._own = own
        self._tell = tell
        self._found: dict[bytes, list[bytes]] = {}
        self._left: dict[bytes, list[bytes]] = {}
        """Named beyond an answer's share."""
        self._votes: Counter[bytes] = Counter()
        self._answers = 0

    def parallel(self) -> int:
        """So many are asked at a time: the fewer, the more there is to go on with."""
        if len(self._found) < PLENTY:
            return PARALLEL
        return PARALLEL_NAMED if self._answers < PLENTY_ANSWERS else PARALLEL_CALM

    def take(self, named: Sequence[tuple[bytes, Sequence[bytes]]]) -> None:
        """One peer's answer."""
        self._answers += bool(named)
        fresh = 0
        for name, addresses in named:
            if name == self._own:
                continue
            if name in self._found:
                self._add(name, addresses)
            elif fresh < FRESH_NAMES_MAX and len(self._found) < PROVIDERS_MAX:
                fresh += 1
                self._add(name, addresses)
            elif name in self._left or len(self._left) < FANOUT * NAMED_MAX:
                self._votes[name] += 1
                _merge(self._left.setdefault(name, []), addresses)

    def all(self) -> list[Provider]:
        """Those of this mesh; of those beyond anybody's share, the ones that most have named."""
        for name, addresses in sorted(self._left.items(), key=lambda each: -self._votes[each[0]]):
            if len(self._found) < PROVIDERS_MAX and name not in self._found:
                self._add(name, addresses)
        found = (_provider(name, tuple(addresses)) for name, addresses in self._found.items())
        return [provider for provider in found if provider is not None]

    def _add(self, name: bytes, addresses: Sequence[bytes]) -> None:
        if _merge(self._found.setdefault(name, []), addresses) and self._tell is not None:
            provider = _provider(name, tuple(self._found[name]))
            if provider is not None:
                self._tell(provider)


def _merge(known: list[bytes], addresses: Sequence[bytes]) -> bool:
    """Whether there are new ones among the addresses; a few of them are known now."""
    fresh = [address for address in addresses if address not in known][: min(FEW, ADDRESSES_MAX - len(known))]
    known += fresh
    return bool(fresh)


def _checked(key: str) -> bytes:
    raw = key.encode()
    if not 0 < len(raw) <= KEY_BYTES_MAX:
        raise NetworkError(Code.TOO_LARGE, f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(raw)}")
    return raw


@lru_cache(maxsize=PROVIDERS_REMEMBERED)
def _provider(name: bytes, addresses: tuple[bytes, ...]) -> Provider | None:
    peer = peer_untrusted(name)  # [IGNORE] no Ed25519 key: not a node of this mesh
    return Provider(key_of(peer), full_addresses(peer, readable(peer, addresses))) if peer else None

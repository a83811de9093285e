"""Who is there: the DHT's hints, each confirmed by asking the node itself.

Many are asked at once (`inquiry` says which), and those that answer fast are known first. A node that does not answer is
gone from here at once; the DHT may name it for a while. The peer book adds whom this client met before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from statistics import median_high
from typing import Any

import trio

from ..node.book import Book, Profile
from ..node.machine import chance
from ..node.network.seam import Network, Provider
from ..protocol.envelope import Signed, verify_any_signer_untrusted, verify_untrusted
from ..protocol.errors import Code, NetworkError, RemoteProtocolError
from ..protocol.evidence import prove
from ..protocol.identity import Issuer, Mandate, WorkerKey, check_current, check_epoch, check_issued, check_mandate
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.messages.discovery import ProfileReply, ProfileRequest
from ..protocol.names import profile_key, provider_key
from ..protocol.profiles import CapabilityProfile, ConnectivityProfile, check_profile
from ..protocol.published import decode_profiles_untrusted
from ..protocol.streams import PROFILE_PROTOCOL
from ..protocol.witness import Witness, believed, heard_untrusted
from .inquiry import Inquiry
from .sampling import Sampler

ASK_S = 2.0
"""For a node's answer about itself: a bad mobile link's connect and round trip."""
FIND_S = 5.0
"""For the DHT's answer, dead index nodes included."""
GRACE_S = 0.05
GRACE_SHARE = 0.15
"""After the nodes that have answered suffice, this much longer for the others under way, or this share of the time so far if
that is less: choice is worth a little waiting."""
FRESH_S = 20.0
"""How long an answer is used without asking again, while the connection stands."""
LOOKUPS_MAX = 3
"""In one search: a shard, and where everybody meets if there are too few in it."""
SEARCH_S = 2.0
"""Between two searches of the DHT for the same bundle."""
WARM_S = 60.0
"""So long after the last work, known nodes are kept fresh, so that a handover finds its next node without a question."""
ASKED_AT_ONCE = 64
OWN_RTTS, OWN_RTTS_MIN = 8, 3
"""Round trips of our own that are kept of each node, and from how many on they count: one alone may have met a busy moment."""
EPOCHS_MAX = 65_536
"""Nodes and owners whose latest epoch is at hand, in a few megabytes; who was not met for longest gives way."""


class Shown:
    """What a node shows of others' statements about it. Reading them takes two thirds of the signatures of its whole answer, so
    they are read of those nodes alone that somebody thinks of choosing."""

    def __init__(self, read: Callable[[], tuple[Witness, ...]]) -> None:
        self._read = read

    @cached_property
    def statements(self) -> tuple[Witness, ...]:
        """Those that count."""
        return self._read()


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it described itself, everything verified. The state is of the moment when it was asked."""

    key: bytes
    mandate: Signed[Mandate]
    capability: CapabilityProfile
    connectivity: ConnectivityProfile
    worker_key: Signed[WorkerKey] | None
    state: str
    reasons: tuple[str, ...]
    jobs_running: int
    addresses: tuple[str, ...]
    rtt_ms: float
    """Of our own question to it; the first one includes connecting."""
    asked_at: float
    shown: Shown = field(default_factory=lambda: Shown(tuple))
    own_rtts_us: tuple[int, ...] = ()
    """Of our last questions over a connection that stood already, the newest last; at most `OWN_RTTS`."""

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """What nodes of other owners say of its connection."""
        return self.shown.statements

    @property
    def own_rtt_us(self) -> int | None:
        """Their median; None while they are too few to say anything."""
        return median_high(self.own_rtts_us) if len(self.own_rtts_us) >= OWN_RTTS_MIN else None

    @property
    def interactive(self) -> bool:
        """Whether a person can wait for it, by our own measurement, then the witnesses', then its own word."""
        return believed(self.connectivity, self.witnesses, self.own_rtt_us).interactive

    @property
    def owner(self) -> bytes:
        return self.mandate.record.owner


Enough = Callable[[Sequence[Node]], bool]
"""Whether the nodes known so far will do."""


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


class Discovery:
    """The nodes that this client knows to be there."""

    def __init__(
        self,
        network: Network,
        now_ms: Callable[[], int],
        nursery: trio.Nursery,
        book: Book | None = None,
        accuse: Callable[[Sequence[Signed[Any]]], None] = lambda records: None,
    ) -> None:
        """Without a book, nothing is known from before, and nothing is kept. `accuse` is called with what a node has shown at
        two times if that proves a fault."""
        self._accuse = accuse
        self._book = Book() if book is None else book
        self._epochs = Epochs(self._book)
        self._network = network
        self._now_ms = now_ms
        self._nursery = nursery
        """Questions outlive the call that began them: what they bring is there for the next one."""
        self._limiter = trio.CapacityLimiter(ASKED_AT_ONCE)
        self._asking: dict[bytes, trio.Event] = {}
        self._searches: dict[bytes, _Search] = {}
        self._news = trio.Event()
        self._used_at = -WARM_S
        self.nodes: dict[bytes, Node] = {}

    def known(self, bundle: bytes) -> list[Node]:
        """Nodes whose answer is fresh and whose connection stands: to be used at once."""
        self._used_at = now = trio.current_time()
        connected = self._connected()
        return [n for n in self._serving(bundle) if n.key in connected and now - n.asked_at < FRESH_S]

    async def find(self, bundle: bytes, enough: Enough) -> list[Node]:
        """Nodes that say now that they serve the bundle; returns early, after a little grace, once they are `enough`.

        All that are known are asked, those of earlier times that have not failed since, and those that the DHT names.
        Calls side by side share their questions.
        """
        began = trio.current_time()
        search = self._searches.get(bundle) or self._searches.setdefault(bundle, self._new_search())
        inquiry = search.inquiry
        if not search.runs and began - search.ended_at >= SEARCH_S:
            search.runs = True
            inquiry.begin()
            self._nursery.start_soon(self._search, bundle, search)
        connected = self._connected()
        with inquiry.looking(lambda: enough(self._serving(bundle))):
            known = [Provider(node.key, node.addresses) for node in self._serving(bundle)]
            known += [Provider(met.key, met.addresses) for met in self._book.serving(bundle)[:ASKED_AT_ONCE]]
            for provider in known:
                inquiry.again(provider, at_once=provider.peer in connected)
            while inquiry.busy or search.runs:
                await self._news.wait()
                if enough(self._serving(bundle)):
                    break
        with trio.move_on_after(min(GRACE_S, GRACE_SHARE * (trio.current_time() - began))):
            while inquiry.waits:
                await self._news.wait()
        return self._serving(bundle)

    async def keep_fresh(self) -> None:
        """Runs until cancelled: while there is work, every known node is asked again before its answer has aged."""
        while True:
            await trio.sleep(FRESH_S / 4)
            now = trio.current_time()
            if now - self._used_at <= WARM_S:
                for node in list(self.nodes.values()):
                    if now - node.asked_at > FRESH_S / 2:
                        self._nursery.start_soon(self._ask_well, Provider(node.key, node.addresses))

    async def ask(self, key: bytes, addresses: Sequence[str] = ()) -> Node | None:
        """What the node says of itself now; None, and gone, if it does not answer or its answer does not hold."""
        began, stood = trio.current_time(), key in self._network.peers()
        try:
            with trio.fail_after(ASK_S):
                request = encode_message(ProfileRequest())
                frame = await self._network.request(key, PROFILE_PROTOCOL, request, addresses)
            node = self._node_untrusted(key, tuple(addresses), frame, began, stood)
        except (NetworkError, RemoteProtocolError, trio.TooSlowError):
            self.forget(key)
            self._book.missed(key)
            return None
        self.nodes[key] = node
        return node

    def forget(self, key: bytes) -> None:
        """The node failed, or went away: it is not offered again until it answers."""
        self.nodes.pop(key, None)

    def _serving(self, bundle: bytes) -> list[Node]:
        return [node for node in self.nodes.values() if node.capability.served_bundle(bundle)]

    def _new_search(self) -> _Search:
        random = chance()
        inquiry = Inquiry(self._nursery, self._ask_well, self._seek, self._tell, random, self._connected)
        return _Search(Sampler(random), inquiry)

    async def _search(self, bundle: bytes, search: _Search) -> None:
        """Everybody whom the DHT names waits to be asked, each as soon as it is named."""
        try:
            with trio.move_on_after(FIND_S):
                for _ in range(LOOKUPS_MAX):
                    shard = search.sampler.shard()
                    found = await self._network.find(provider_key(bundle, shard=shard), search.inquiry.add)
                    if search.sampler.saw(shard, {provider.peer for provider in found}, self._now_ms()):
                        break
        except NetworkError:
            pass  # the table has no answer now; whoever is known is asked all the same
        finally:
            search.ended_at = trio.current_time()
            search.runs = False
            self._tell()

    async def _ask_well(self, provider: Provider) -> bool:
        """Whether the node answered: once, however many ask at the same time."""
        if (asked := self._asking.get(provider.peer)) is not None:
            await asked.wait()
            return provider.peer in self.nodes
        asked = self._asking[provider.peer] = trio.Event()
        try:
            async with self._limiter:
                node = await self.ask(provider.peer, provider.addresses)
                if node is None and self._network.drop(provider.peer):
                    node = await self.ask(provider.peer, provider.addresses)
                return node is not None
        finally:
            del self._asking[provider.peer]
            asked.set()
            self._tell()

    async def _seek(self, provider: Provider) -> bool:
        """Whether the node answered at the addresses of its own profile; those that we were given do not lead to it."""
        async with self._limiter:
            found = await published_addresses(self._network, provider.peer, self._now_ms())
            addresses = () if set(found) <= set(provider.addresses) else found  # else they have failed
            return bool(addresses) and await self.ask(provider.peer, addresses) is not None

    def _connected(self) -> set[bytes]:
        return set(self._network.peers())

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _node_untrusted(self, key: bytes, addresses: tuple[str, ...], frame: bytes, began: float, stood: bool) -> Node:
        reply = decode_message_untrusted(frame)
        if not isinstance(reply, ProfileReply):
            raise RemoteProtocolError(Code.BAD_ENCODING, "The node answered something else than its profile.")
        now_ms = self._now_ms()
        capability = verify_untrusted(CapabilityProfile, reply.capability, signer=key)
        connectivity = verify_untrusted(ConnectivityProfile, reply.connectivity, signer=key)
        check_profile(capability, key, now_ms)
        check_profile(connectivity, key, now_ms)
        mandate = self._mandate_untrusted(reply.mandate, capability.record, now_ms)
        worker_key = _worker_key_untrusted(reply.worker_key, key, now_ms)
        where, took_s = connectivity.record.addresses or addresses, trio.current_time() - began
        bundles = [served.bundle for served in capability.record.served]
        profile = Profile(reply.mandate, reply.capability, reply.connectivity)
        self._compare(key, profile, (mandate, capability, connectivity))
        self._book.answered(key, where, bundles, round(took_s * 1_000_000), profile)
        return Node(
            key,
            mandate,
            capability.record,
            connectivity.record,
            worker_key,
            reply.state,
            reply.reasons,
            reply.jobs_running,
            where,
            took_s * 1000,
            trio.current_time(),
            Shown(partial(heard_untrusted, reply.witnesses, key, mandate.record.owner, now_ms)),
            self._own_rtts(key, took_s, stood),
        )

    def _compare(self, key: bytes, profile: Profile, shown: Sequence[Signed[Any]]) -> None:
        """A node that says otherwise now what it may say but once is found out, if we had asked it before."""
        if (before := self._book.profile(key)) is None or before == profile:
            return
        with suppress(RemoteProtocolError):  # a file that somebody has changed proves nothing
            pairs = list(zip(_signed_untrusted(key, before), shown, strict=True))
            for records in (*pairs, (*pairs[0], *pairs[1])):
                if prove(records):
                    self._accuse(records)

    def _own_rtts(self, key: bytes, took_s: float, stood: bool) -> tuple[int, ...]:
        before = known.own_rtts_us if (known := self.nodes.get(key)) else ()
        return (*before, round(took_s * 1_000_000))[-OWN_RTTS:] if stood else before

    def _mandate_untrusted(self, envelope: bytes, profile: CapabilityProfile, now_ms: int) -> Signed[Mandate]:
        """The mandate that the node itself names in its profile, of no epoch that a later one has voided.

        It pins the owner from here on. Which roles it gives is for who asks.
        """
        mandate = verify_any_signer_untrusted(Mandate, envelope)
        if mandate.id != profile.mandate:
            raise RemoteProtocolError(Code.BAD_MANDATE, "The node shows another mandate than its profile names.")
        check_mandate(mandate, profile.node, mandate.record.roles[0], now_ms)
        if issuer := check_issued(mandate, now_ms):
            self._epochs.see(mandate.record.owner, issuer)
        self._epochs.see(profile.node, mandate.record)
        return mandate


def _signed_untrusted(key: bytes, profile: Profile) -> tuple[Signed[Any], Signed[Any], Signed[Any]]:
    return (
        verify_any_signer_untrusted(Mandate, profile.mandate),
        verify_untrusted(CapabilityProfile, profile.capability, signer=key),
        verify_untrusted(ConnectivityProfile, profile.connectivity, signer=key),
    )


@dataclass(slots=True)
class _Search:
    """Of the DHT, for the nodes of one bundle."""

    sampler: Sampler
    """Where to look next."""
    inquiry: Inquiry
    runs: bool = False
    ended_at: float = -SEARCH_S


def busier(node: Node) -> Node:
    """The node as it must be by now that one more job was given to it."""
    return replace(node, jobs_running=node.jobs_running + 1)


def _worker_key_untrusted(envelope: bytes | None, node: bytes, now_ms: int) -> Signed[WorkerKey] | None:
    if envelope is None:
        return None
    worker_key = verify_untrusted(WorkerKey, envelope, signer=node)
    check_current(worker_key.record.not_before_ms, worker_key.record.expires_ms, now_ms, "worker key")
    if worker_key.record.node != node:
        raise RemoteProtocolError(Code.BAD_RECORD, "The worker key is another node's.")
    return worker_key


async def published_addresses(network: Network, node: bytes, now_ms: int) -> tuple[str, ...]:
    """Where the node says that it is, by its own profile in the DHT; nothing if there is none."""
    with trio.move_on_after(ASK_S), suppress(NetworkError, RemoteProtocolError):
        if value := await network.get(profile_key(node)):
            return decode_profiles_untrusted(value, now_ms).connectivity.record.addresses
    return ()

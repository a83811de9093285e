"""Who is there: the DHT's hints, each confirmed by asking the node itself.

Many are named (`search`), a few are asked at once (`inquiry` says which), and those that answer fast are known first. A node
that does not answer is gone from here at once; the DHT may name it for a while. The peer book adds whom this client met before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import trio

from ..node.book import Book
from ..node.machine import chance
from ..node.network.seam import Network, Provider
from ..protocol.envelope import Signed
from ..protocol.errors import NetworkError, RemoteProtocolError
from ..protocol.messages.codec import encode_message
from ..protocol.messages.discovery import ProfileRequest
from ..protocol.streams import PROFILE_PROTOCOL
from .addresses import published_addresses
from .credentials import Credentials, Epochs, contradictions, read_credentials_untrusted
from .inquiry import Inquiry
from .nodes import OWN_RTTS, Node
from .sampling import Sampler
from .search import Search

ASK_S = 2.0
"""For a node's answer about itself: a bad mobile link's connect and round trip."""
GRACE_S = 0.05
GRACE_SHARE = 0.15
"""After the nodes that have answered suffice, this much longer for the others under way, or this share of the time so far if
that is less: choice is worth a little waiting."""
FRESH_S = 20.0
"""How long an answer is used without asking again, while the connection stands."""
WARM_S = 60.0
"""So long after the last work, known nodes are kept fresh, so that a handover finds its next node without a question."""
ASKED_AT_ONCE = 64

Enough = Callable[[Sequence[Node]], bool]
"""Whether the nodes known so far will do."""


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
        self._searches: dict[bytes, Search] = {}
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
        search = self._searches.get(bundle) or self._searches.setdefault(bundle, self._new_search(bundle))
        inquiry = search.inquiry
        search.begin(self._nursery)
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
            credentials = read_credentials_untrusted(key, frame, self._epochs, self._now_ms())
            node = self._met(key, credentials, tuple(addresses), trio.current_time() - began, stood)
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

    def _new_search(self, bundle: bytes) -> Search:
        random = chance()
        inquiry = Inquiry(self._nursery, self._ask_well, self._seek, self._tell, random, self._connected)
        return Search(bundle, self._network, self._now_ms, Sampler(random), inquiry, self._tell)

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

    def _met(
        self, key: bytes, credentials: Credentials, addresses: tuple[str, ...], took_s: float, stood: bool
    ) -> Node:
        where = credentials.connectivity.record.addresses or addresses
        self._compare(key, credentials)
        bundles = [served.bundle for served in credentials.capability.record.served]
        self._book.answered(key, where, bundles, round(took_s * 1_000_000), credentials.profile)
        return Node(
            key,
            credentials.mandate,
            credentials.capability.record,
            credentials.connectivity.record,
            credentials.worker_key,
            credentials.reply.state,
            credentials.reply.reasons,
            credentials.reply.jobs_running,
            where,
            took_s * 1000,
            trio.current_time(),
            credentials.shown,
            self._own_rtts(key, took_s, stood),
        )

    def _compare(self, key: bytes, credentials: Credentials) -> None:
        """A node that says otherwise now what it may say but once is found out, if we had asked it before."""
        if before := self._book.profile(key):
            with suppress(RemoteProtocolError):  # a file that somebody has changed proves nothing
                for records in contradictions(key, before, credentials):
                    self._accuse(records)

    def _own_rtts(self, key: bytes, took_s: float, stood: bool) -> tuple[int, ...]:
        before = known.own_rtts_us if (known := self.nodes.get(key)) else ()
        return (*before, round(took_s * 1_000_000))[-OWN_RTTS:] if stood else before

"""Neighbours on one LAN, by multicast DNS: heard of, dialled, and only then believed to be who they say.

What is announced is one random label, and full multiaddrs of one private network on that network alone: the id of a node
that stays where it is, to those who share its wire. `zeroconf` does the packets, in a thread of its own; it bounds what it
keeps of strangers (10,000 records).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

import ifaddr
import trio
from libp2p.peer.id import ID
from zeroconf import Error, IPVersion, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from ...protocol.errors import NetworkError
from ...protocol.limits import ADDRESSES_MAX
from .boundary import Tasks
from .dialling import Dialler
from .identity import Multiaddr, is_relayed, parse_address

LAN: Final = "lan"
"""Among bootstrap addresses: whoever answers on this machine's own networks."""
SERVICE: Final = "_fallow._udp.local."
NETWORKS: Final = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"))
)
"""RFC 1918, RFC 3927, RFC 4193, RFC 4291: nobody beyond the router has such an address."""
INTERFACES_MAX: Final = 4
"""Networks on which it is announced: a machine with more of them is a router, or runs containers."""
LOOK_S: Final = 30.0
"""How often this machine's own addresses are looked at: a cable may have been put in."""
RESOLVE_MS: Final = 2_000
NAMES_MAX: Final = 64
"""Instances that are looked into, on one network; more are no home's, and no site's that has no other way to be joined."""
GREETED_MAX: Final = 16
"""Neighbours that are dialled because they were heard of: by then the table is joined."""
FIRST_S: Final = 4.0
"""For the first neighbour to answer: multicast DNS waits up to half a second before it speaks, twice."""
CLOSE_S: Final = 3.0
"""For saying goodbye; measured 0.4 s."""
_TEXT_BYTES_MAX: Final = 256

Networks = Sequence[IPv4Network | IPv6Network]


class Neighbours:
    """Who is on this host's own networks."""

    def __init__(self, own: ID, tasks: Tasks, dialler: Dialler, networks: Networks = NETWORKS) -> None:
        self._own = own
        self._tasks = tasks
        self._dialler = dialler
        self._networks = networks
        self._greeted: dict[ID, None] = {}
        self._met: list[ID] = []
        self._news = trio.Event()
        self.join: Callable[[Sequence[ID]], Awaitable[None]] | None = None
        """Makes a neighbour part of the table, once there is one."""

    async def first(self) -> ID | None:
        """The first neighbour that is connected; None if there is none in time."""
        with trio.move_on_after(FIRST_S):
            while not self._met:
                await self._news.wait()
        return self._met[0] if self._met else None

    async def meet(self, listening: Sequence[Multiaddr]) -> None:
        """Neighbours are found and, on the networks that this host listens on, find it; until cancelled."""
        while True:
            ips = _own_ips(self._networks)
            async with trio.open_nursery() as nursery:
                for ip in ips:
                    nursery.start_soon(self._meet_on, ip, announced(listening, ip))
                while _own_ips(self._networks) == ips:  # noqa: ASYNC110 - the system tells nobody
                    await trio.sleep(LOOK_S)
                nursery.cancel_scope.cancel()

    async def _meet_on(self, ip: str, addresses: Sequence[str]) -> None:
        token = trio.lowlevel.current_trio_token()

        def tell(found: list[str]) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._hear, found)

        try:
            version = IPVersion.V6Only if ":" in ip else IPVersion.V4Only
            responder = await trio.to_thread.run_sync(partial(Zeroconf, interfaces=[ip], ip_version=version))
        except OSError:
            return  # no multicast on this interface
        try:
            ServiceBrowser(responder, SERVICE, listener=_Listener(self._networks, tell))
            if addresses:
                with suppress(Error, OSError):  # what cannot be announced is found by others' announcements
                    await trio.to_thread.run_sync(responder.register_service, self._service(ip, addresses))
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
                await trio.to_thread.run_sync(responder.close, abandon_on_cancel=True)

    def _service(self, ip: str, addresses: Sequence[str]) -> ServiceInfo:
        label = secrets.token_hex(16)
        texts = {f"dnsaddr{number or ''}": f"{address}/p2p/{self._own}" for number, address in enumerate(addresses)}
        port = int(addresses[0].rpartition("/")[2])
        return ServiceInfo(
            SERVICE, f"{label}.{SERVICE}", port, properties=texts, server=f"{label}.local.", parsed_addresses=[ip]
        )

    def _hear(self, found: list[str]) -> None:
        """Each that is not known yet is being dialled."""
        by_peer: dict[ID, list[Multiaddr]] = {}
        for address in found:
            peer, where = parse_address(address)
            by_peer.setdefault(peer, []).append(where)
        for peer, addresses in by_peer.items():
            if peer != self._own and peer not in self._greeted and len(self._greeted) < GREETED_MAX:
                self._greeted[peer] = None
                self._tasks.spawn(partial(self._greet, peer, addresses))

    async def _greet(self, peer: ID, addresses: Sequence[Multiaddr]) -> None:
        try:
            await self._dialler.connect(peer, addresses)
        except NetworkError:
            del self._greeted[peer]  # it may be heard of again
            return
        self._met.append(peer)
        self._news.set()
        self._news = trio.Event()
        if self.join is not None:
            with suppress(NetworkError):
                await self.join([peer])


class _Listener(ServiceListener):
    """Called in a thread of zeroconf's."""

    def __init__(self, networks: Networks, tell: Callable[[list[str]], None]) -> None:
        self._networks = networks
        self._tell = tell
        self._names: set[str] = set()

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        if name not in self._names and len(self._names) >= NAMES_MAX:
            return
        self._names.add(name)
        if (found := zc.get_service_info(type_, name, RESOLVE_MS)) is not None:
            self._tell(addresses_untrusted(found.properties, self._networks))

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self._names.discard(name)


def addresses_untrusted(properties: Mapping[bytes, bytes | None], networks: Networks = NETWORKS) -> list[str]:
    """Those of the texts that are full multiaddrs within the networks; at most `ADDRESSES_MAX`."""
    found = []
    for name, value in properties.items():
        if not name.startswith(b"dnsaddr") or value is None or len(value) > _TEXT_BYTES_MAX:
            continue
        text = value.decode(errors="replace")
        with suppress(NetworkError):  # [IGNORE] what is no multiaddr, or not of an Ed25519 key
            parse_address(text)
            if not is_relayed(text) and _is_within(text, networks):
                found.append(text)
    return found[:ADDRESSES_MAX]


def announced(listening: Sequence[Multiaddr], ip: str) -> list[str]:
    """Where others on the network of `ip` can dial a host that listens so: its own address there, and no other."""
    anywhere, here = ("/ip6/::/", f"/ip6/{ip}/") if ":" in ip else ("/ip4/0.0.0.0/", f"/ip4/{ip}/")
    texts = [str(each).replace(anywhere, here) for each in listening]
    return [text for text in dict.fromkeys(texts) if text.startswith(f"{here}tcp/")]


def _is_within(address: str, networks: Networks) -> bool:
    match address.split("/")[1:4]:
        case ["ip4" | "ip6", host, "tcp"]:
            with suppress(ValueError):
                return any(ip_address(host) in network for network in networks)
    return False


def _own_ips(networks: Networks) -> list[str]:
    """This machine's addresses within the networks, those of IPv4 first. No multiaddr says by which interface a link-local one
    of IPv6 is reached, so those are left out."""
    each_ip = [each.ip for adapter in ifaddr.get_adapters() for each in adapter.ips]
    ips = [ip_address(each if isinstance(each, str) else each[0].partition("%")[0]) for each in each_ip]
    within = {ip for ip in ips if any(ip in network for network in networks)}
    found = sorted(
        (ip for ip in within if ip.version == 4 or not ip.is_link_local), key=lambda ip: (ip.version, ip.packed)
    )
    return [str(ip) for ip in found[:INTERFACES_MAX]]

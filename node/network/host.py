"""The libp2p host, with unsafe defaults replaced. Every workaround names the upstream line that calls for it.

Upstream is py-libp2p 0.8.1; paths are relative to its package. `tests/network/test_upstream.py` fails when one of these
is mended there, so that the workaround can go; `spec/upstream` has the fixes as upstream would take them.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, cast

import libp2p.network.connection.swarm_connection as swarm_connection
import trio
from libp2p import new_host
from libp2p.abc import INetConn, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_exchange_key
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID

from ...protocol.errors import Code, NetworkError
from .acquaintances import bound_acquaintances
from .boundary import translated
from .identity import Multiaddr
from .muxed import MuxedStream
from .muxer import Muxer
from .negotiating import say_at_once
from .sockets import use_sockets

NEGOTIATION_S: Final = 10.0
"""Handshake of a connection or a stream. A loaded 2-core machine with ten busy nodes needed 2 s at worst."""

CLOSE_S: Final = 5.0
"""Ceiling of an orderly end; measured 0.2 s."""

_LOGGERS = ("libp2p", "libp2p.network.auto_connector", "multiaddr", "anyio_service", "async_service")
"""The second sets a level of its own when it is imported."""


Announce = Callable[[list[Multiaddr]], list[Multiaddr]]
"""Which addresses others are told, of those that are listened on."""


def make_host(seed: bytes, listen: Sequence[Multiaddr], announce: Announce | None = None) -> BasicHost:
    """A host with the seed's Ed25519 identity, noise and yamux, and nothing else; not yet running.

    What `announce` returns must not be empty: identity/identify/identify.py:92 then tells all addresses after all.
    """
    _quieten()
    pair = create_new_key_pair(seed)
    host = new_host(
        key_pair=pair,
        listen_addrs=listen,
        # libp2p/__init__.py:662 offers plaintext, on which a peer may claim any id: never leave the choice to it.
        sec_opt={NOISE_ID: Noise(pair, noise_privkey=create_exchange_key().private_key)},
        muxer_opt={TProtocol(YAMUX_ID): Muxer},
        # What others see of us is where the household is; it is announced only if the owner says so.
        disable_identify_address_discovery=True,
        connection_config=ConnectionConfig(
            inbound_upgrade_timeout=NEGOTIATION_S,
            outbound_upgrade_timeout=NEGOTIATION_S,
        ),
    )
    assert isinstance(host, BasicHost)
    name = f"/p2p/{host.get_id()}"

    def announced() -> list[Multiaddr]:
        return [Multiaddr(f"{each}{name}") for each in (announce or own_addresses)(host.get_transport_addrs())]

    # host/basic_host.py:540 cuts an address at the first id in it: of a way through a relay, the relay would remain.
    vars(host)["get_addrs"] = announced
    vars(host)["new_stream"] = _watched_until_agreed(host)
    vars(host)["_schedule_identify"] = lambda peer_id, *, reason: None  # not at once, nor always: see `introductions`
    swarm = swarm_of(host)
    swarm.retry_config = RetryConfig(max_retries=0)  # the caller has other addresses, and other peers
    swarm.set_stream_handler(_guard(host))
    bound_acquaintances(swarm)
    use_sockets(swarm.upgrader)
    say_at_once(host, swarm.upgrader)
    return host


def swarm_of(host: BasicHost) -> Swarm:
    """The host's swarm: the methods that the interface does not list are used here and in `dialling` alone."""
    return cast(Swarm, host.get_network())


async def run_host(host: BasicHost, listen: Sequence[Multiaddr], started: trio.Event, stop: trio.Event) -> None:
    """The host listens on every address from `started` until `stop`, and has then let go of every socket.

    It is shielded, for at most `CLOSE_S` after `stop`: cancelled, libp2p leaves its sockets open. Raises `port_busy`.
    """
    for address in listen:
        _check_port(address)
    with trio.CancelScope(shield=True) as life:
        async with host.run(listen_addrs=listen):
            swarm = swarm_of(host)
            # network/auto_connector.py dials every peer it ever heard of, towards 200 connections.
            await swarm.auto_connector.stop()
            lost = [str(address) for address in listen if str(address) not in swarm.listeners]
            if not lost:
                started.set()
                await stop.wait()
            life.deadline = trio.current_time() + CLOSE_S
            await _part(swarm)
            await host.close()  # leaving run() alone leaks the sockets: over 40 cycles 19 -> 139 of them
    if lost:
        raise NetworkError(Code.PORT_BUSY, f"cannot listen on {', '.join(lost)}: the address is not usable here")


async def _part(swarm: Swarm) -> None:
    """Every connection has ended.

    Side by side: network/swarm.py:2306 ends one after another, and swarm_connection.py:218 rests for 0.1 s after each: a
    command with ten of them ended a second late, and a node with fifty did not come to the last within `CLOSE_S`.
    """
    async with trio.open_nursery() as nursery:
        for connection in swarm.get_connections():
            nursery.start_soon(_end, connection)


async def _end(connection: INetConn) -> None:
    with suppress(NetworkError), translated(Code.STREAM_CLOSED, "gone already"):
        await connection.close()


def _watched_until_agreed(host: BasicHost) -> Callable[[ID, Sequence[TProtocol]], Awaitable[INetStream]]:
    """A peer that has fallen silent keeps nobody waiting for a stream: as for those of jobs, two seconds are the end."""
    inner = host.new_stream

    async def new_stream(peer_id: ID, protocol_ids: Sequence[TProtocol]) -> INetStream:
        stream = await inner(peer_id, protocol_ids)
        if isinstance(stream, NetStream) and isinstance(stream.muxed_stream, MuxedStream):
            stream.muxed_stream.watch(False)
        return stream

    return new_stream


def _guard(host: BasicHost) -> StreamHandlerFn:
    """host/basic_host.py:1554 and protocol_muxer/multiselect_communicator.py:58 let what a stream raises (a handler's
    error, a header that is no UTF-8) end the whole host. Here it resets that stream."""
    inner = host._swarm_stream_handler

    async def guarded(stream: INetStream) -> None:
        try:
            with translated(Code.STREAM_CLOSED, "an inbound stream failed"):
                await inner(stream)
        except NetworkError as error:
            logging.getLogger(__name__).debug("%s", error.message)
            await stream.reset()

    return guarded


def own_addresses(listening: list[Multiaddr]) -> list[Multiaddr]:
    """The addresses; for 0.0.0.0 and ::, which libp2p announces as they are, the one that packets leave from."""
    own = []
    for address in map(str, listening):
        if "/ip4/0.0.0.0/" in address:
            address = address.replace("/ip4/0.0.0.0/", f"/ip4/{own_ip()}/")
        elif "/ip6/::/" in address:
            address = address.replace("/ip6/::/", f"/ip6/{own_ip(socket.AF_INET6)}/")
        own.append(Multiaddr(address))
    return own


def own_ip(family: socket.AddressFamily = socket.AF_INET) -> str:
    """The address that packets to the outside leave from."""
    outside, here = ("2001:db8::1", "::1") if family == socket.AF_INET6 else ("192.0.2.1", "127.0.0.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((outside, 9))  # kept for documentation (RFC 3849, RFC 5737); UDP's connect sends nothing
            return str(probe.getsockname()[0])
    except OSError:
        return here  # no route anywhere: only this machine can reach us


def _check_port(address: Multiaddr) -> None:
    """transport/tcp/tcp.py:60 listens with SO_REUSEPORT: a second node on the port would silently take half its
    peers."""
    parts = dict(zip(*[iter(str(address).split("/")[1:])] * 2, strict=False))
    port = int(parts.get("tcp", "0"))
    host = parts.get("ip4") or parts.get("ip6")
    if host is None or "tcp" not in parts:
        raise NetworkError(Code.PORT_BUSY, f"cannot listen on {address}: write /ip4/ADDRESS/tcp/PORT")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            reason = "another program listens there" if error.errno == errno.EADDRINUSE else str(error.strerror)
            raise NetworkError(Code.PORT_BUSY, f"cannot listen on {host} port {port}: {reason}") from error


def _quieten() -> None:
    """libp2p logs every peer that goes away as a warning or an error, and prints it where nobody configured logging."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # swarm_connection.py calls logging.warning() on the root logger, which also installs a handler on it.
    vars(swarm_connection)["logging"] = logging.getLogger("libp2p.network.connection")

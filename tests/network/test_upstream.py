"""Canaries: each holds a fault of py-libp2p that `node/network` works around.

When one fails, upstream has mended it, and the workaround that its docstring names can go.
"""

from __future__ import annotations

import gc
import inspect
import struct
from hashlib import sha256

import pytest
import trio
import trio.testing
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.identity.identify import identify
from libp2p.io.trio import TrioTCPStream
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.network import swarm
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import PeerStoreError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.relay.circuit_v2 import dcutr, protocol
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID
from libp2p.stream_muxer import muxer_multistream
from libp2p.stream_muxer.yamux.yamux import YAMUX_HEADER_FORMAT, Yamux
from multiaddr import Multiaddr

from fallow.node.network.identity import id_of
from fallow.node.network.muxer import Muxer

LOOPBACK = Multiaddr("/ip4/127.0.0.1/tcp/0")


def test_plaintext_is_offered_by_default() -> None:
    """`host.make_host`: sec_opt."""
    host = new_host(key_pair=create_new_key_pair(bytes(32)))
    offered = host.get_network().upgrader.security_multistream.transports
    assert PLAINTEXT_PROTOCOL_ID in offered


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_exception_in_a_handler_ends_the_host() -> None:
    """`host._guard`."""
    with trio.fail_after(20):
        assert await _crash_a_host()
    gc.collect()  # the dying host leaves sockets behind: their warnings belong here and not to the next test


async def _crash_a_host() -> bool:
    server = new_host(key_pair=create_new_key_pair(b"\1" * 32), listen_addrs=[LOOPBACK])
    client = new_host(key_pair=create_new_key_pair(b"\2" * 32))

    async def fail(stream) -> None:
        raise ZeroDivisionError

    server.set_stream_handler(TProtocol("/test/fail"), fail)
    try:
        async with server.run(listen_addrs=[LOOPBACK]), client.run(listen_addrs=[]):
            try:
                await client.connect(PeerInfo(server.get_id(), server.get_addrs()))
                await client.new_stream(server.get_id(), [TProtocol("/test/fail")])
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(5):
                    await client.close()
                    await server.close()
    except BaseExceptionGroup as group:
        return group.subgroup(ZeroDivisionError) is not None
    return False


async def test_a_header_that_is_no_utf8_raises_what_nobody_catches() -> None:
    """`host._guard`."""

    class Bytes:
        def __init__(self, content: bytes) -> None:
            self.content = content

        async def read(self, count: int) -> bytes:
            taken, self.content = self.content[:count], self.content[count:]
            return taken

    with pytest.raises(UnicodeDecodeError):
        await MultiselectCommunicator(Bytes(b"\x03\xff\xfe\n")).read()


async def test_a_socket_is_asked_for_each_length_apart() -> None:
    """`sockets`."""
    ours, theirs = trio.socket.socketpair()
    async with trio.SocketStream(ours) as one, trio.SocketStream(theirs) as other:
        await other.send_all(b"\x01x")
        stream = TrioTCPStream(one)
        assert [await stream.read(1), await one.receive_some()] == [b"\x01", b"x"]


async def test_a_dialler_waits_for_a_greeting_before_it_says_what_it_wants() -> None:
    """`negotiating`."""
    ours, theirs = trio.socket.socketpair()
    async with trio.SocketStream(ours) as one, trio.SocketStream(theirs) as other, trio.open_nursery() as nursery:
        wanted, communicator = [TProtocol("/x")], MultiselectCommunicator(TrioTCPStream(one))
        nursery.start_soon(MultiselectClient().select_one_of, wanted, communicator)
        await trio.testing.wait_all_tasks_blocked()
        assert await other.receive_some() == b"\x13/multistream/1.0.0\n"
        nursery.cancel_scope.cancel()


def test_upstreams_table_takes_the_first_providers_and_ignores_its_prefix() -> None:
    """`index`, `dht` instead of upstream's table."""
    host = new_host(key_pair=create_new_key_pair(bytes(32)))
    table = KadDHT(host, DHTMode.SERVER, protocol_prefix=TProtocol("/elsewhere"))
    assert [name for name in host.get_mux().handlers if "kad" in str(name)] == ["/ipfs/kad/1.0.0"]
    for number in range(30):
        table.provider_store.add_provider(b"x", PeerInfo(id_of(bytes([number]) * 32), [LOOPBACK]))
    assert len(table.provider_store.get_providers(b"x")) == 20
    for number in range(1000):
        table.provider_store.add_provider(b"x%d" % number, PeerInfo(id_of(bytes(32)), [LOOPBACK]))
    assert table.provider_store.size() == 1020


class Wire:
    """A connection that counts what was begun to be written, as noise counts its nonce, and what was written whole."""

    is_initiator = True

    def __init__(self) -> None:
        self.begun = self.whole = 0
        self.began = trio.Event()
        self.go_on = trio.Event()
        self.finished = trio.Event()

    async def write(self, data: bytes) -> None:
        self.begun += 1
        self.began.set()
        await self.go_on.wait()
        self.whole += 1
        self.finished.set()

    async def read(self, count: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(("muxer", "whole"), [(Yamux, 0), (Muxer, 1)])
async def test_cancelling_a_writer_of_plain_yamux_leaves_half_a_frame(muxer, whole) -> None:
    """`writing`, which finishes it."""
    wire = Wire()
    connection = muxer(wire, id_of(create_new_key_pair(bytes(32)).public_key.to_bytes()))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.start)
            async with trio.open_nursery() as openers:

                async def open_and_write() -> None:
                    stream = await connection.open_stream()
                    await stream.write(b"hello")

                openers.start_soon(open_and_write)
                await wire.began.wait()
                openers.cancel_scope.cancel()
            begun = wire.begun
            wire.go_on.set()
            if whole:
                await wire.finished.wait()
            assert (begun, wire.whole >= whole) == (1, True)
            assert whole or not wire.whole
            nursery.cancel_scope.cancel()


async def test_plain_yamux_takes_more_than_its_window() -> None:
    """`muxer`: `yamux.Frames` refuses it."""
    window, sent = 256 * 1024, 1024 * 1024

    class Pours(Wire):
        def __init__(self) -> None:
            super().__init__()
            syn = struct.pack(YAMUX_HEADER_FORMAT, 0, 1, 1, 2, 0)
            self.content = syn + struct.pack(YAMUX_HEADER_FORMAT, 0, 0, 0, 2, sent) + bytes(sent)
            self.go_on.set()
            self.drained = trio.Event()

        async def read(self, count: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            if not self.content:
                self.drained.set()
                await trio.sleep_forever()
            taken, self.content = self.content[:count], self.content[count:] if count else b""
            return taken

    held = []
    for muxer in (Yamux, Muxer):
        wire = Pours()
        connection = muxer(wire, id_of(create_new_key_pair(bytes(32)).public_key.to_bytes()))
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.start)
                if muxer is Yamux:
                    await wire.drained.wait()
                    held.append(sum(map(len, connection.stream_buffers.values())))
                else:
                    await connection.event_closed.wait()
                    held.append(connection.buffered_bytes)
                nursery.cancel_scope.cancel()
    assert held[0] > window > held[1]


def test_the_class_given_as_muxer_is_ignored() -> None:
    """`muxer`: the patch of muxer_multistream."""
    source = inspect.getsource(muxer_multistream.MuxerMultistream.new_conn)
    assert "Yamux(" in source
    assert vars(muxer_multistream)["Yamux"] is Muxer


def test_a_connection_always_costs_the_happy_eyeballs_delay() -> None:
    """`dialling`: dial_addr instead of connect."""
    source = inspect.getsource(swarm.Swarm.dial_peer)
    assert "_HAPPY_EYEBALLS_DELAY" in source
    assert swarm._HAPPY_EYEBALLS_DELAY == 0.25


async def test_a_swarm_ends_one_connection_after_another(nursery: trio.Nursery) -> None:
    """`host._part`."""

    class Stays:
        begun = 0

        async def close(self) -> None:
            Stays.begun += 1
            await trio.sleep_forever()

    closing = new_host(key_pair=create_new_key_pair(bytes(32))).get_network()
    vars(closing)["connections"] = {id_of(bytes(32)): [Stays(), Stays()]}
    nursery.start_soon(closing.close)
    await trio.testing.wait_all_tasks_blocked()
    assert Stays.begun == 1
    nursery.cancel_scope.cancel()


def test_the_ways_through_relays_are_cut_off_the_own_addresses() -> None:
    """`host.make_host`: get_addrs."""
    relay = new_host(key_pair=create_new_key_pair(b"\1" * 32)).get_id()
    way = Multiaddr(f"/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit")
    host = new_host(key_pair=create_new_key_pair(bytes(32)), addrs_factory=lambda listening: [way])
    assert [str(address) for address in host.get_addrs()] == [f"/ip4/192.0.2.1/tcp/1/p2p/{host.get_id()}"]


def test_who_announces_no_address_is_told_to_listen_everywhere() -> None:
    """`ways.Told`, which announces one that leads nowhere."""
    host = new_host(key_pair=create_new_key_pair(bytes(32)), addrs_factory=lambda listening: [])
    own = Multiaddr("/ip4/192.0.2.1/tcp/1")
    vars(host)["get_transport_addrs"] = lambda: [own]
    assert host.get_addrs() == []
    assert [Multiaddr(raw) for raw in identify._mk_identify_protobuf(host, None).listen_addrs] == [own]


def test_upstreams_relay_keeps_circuits_by_peer_and_reserves_for_anybody() -> None:
    """`relaying` instead of it."""
    carry = inspect.getsource(protocol.CircuitV2Protocol._relay_data)
    assert "del self._active_relays[peer_id]" in carry
    reserve = inspect.getsource(protocol.CircuitV2Protocol._handle_reserve)
    assert "peer_id = ID(msg.peer.id)" in reserve


def test_upstream_punches_with_everybody() -> None:
    """`punching` instead of it."""
    assert "self.initiate_hole_punch(peer_id)" in inspect.getsource(dcutr.DCUtRProtocol._auto_drive_loop)


def test_an_inbound_connection_keeps_its_slot_when_it_has_ended() -> None:
    """`door` instead of upstream's way in."""
    source = inspect.getsource(swarm.Swarm._do_handle_inbound_connection)
    assert source.index("upgrade_inbound_raw_conn") < source.rindex("await self.manager.wait_finished()")


def test_a_host_that_met_a_thousand_peers_forgets_its_own_key() -> None:
    """`acquaintances.bound_acquaintances`."""
    host = new_host(key_pair=create_new_key_pair(bytes(32)))
    for number in range(1001):
        host.get_peerstore().add_addrs(id_of(sha256(b"%d" % number).digest()), [], 3600)
    with pytest.raises(PeerStoreError):
        host.get_private_key()


def test_a_connector_that_never_ran_remembers_everybody_who_left() -> None:
    """`acquaintances.bound_acquaintances`."""
    connector = new_host(key_pair=create_new_key_pair(bytes(32))).get_network().auto_connector
    for number in range(2000):
        connector.record_disconnect(id_of(sha256(b"%d" % number).digest()))
    assert len(connector._recent_disconnects) == 2000

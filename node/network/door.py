"""Who is let in: bounds on what arrives, and bans.

py-libp2p 0.8.1 counts every inbound connection as standing until the host ends (network/swarm.py:2055 waits for that, not
for the connection's end): after 250 of them a node takes no more. Those that never say who they are take the same slots.

Here a connection first waits, for the price of a socket, until it has sent its first line, as every libp2p does unasked.
Then a few at a time shake hands. Where there is no room, the one that has been at it longest makes place, if an honest one
would have been done by then. Whoever has proven a key is held to the bounds of peers and addresses, and to the bans.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.host.basic_host import BasicHost
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.transport.exceptions import MuxerUpgradeFailure

from ...protocol.errors import Code, NetworkError
from .boundary import Tasks, translated
from .host import swarm_of
from .identity import Multiaddr
from .limits import CONNECTIONS_PEER_MAX, Limits
from .memory import Memory
from .muxer import Muxer
from .sockets import Socket
from .standing import Fault, Standings

GREETING: Final = b"\x13/multistream/1.0.0\n"
"""What every dialler sends first, without waiting."""

GREETING_S: Final = 5.0
"""For these twenty bytes: a round trip on a bad mobile link takes one."""

HANDSHAKE_S: Final = 8.0
"""For the whole handshake; a 2-core machine with ten busy nodes needed 2 s at worst."""

PATIENCE_S: Final = 2.0
"""A handshake under way for so long makes place for one that waits."""

_GONE: Final = (IncompleteReadError, ConnectionClosedError, RawConnError, OSError)
"""What a dialler that changed its mind leaves behind: no fault of it."""


@dataclass(eq=False)
class _Arrival:
    address: str
    since: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    evicted: bool = False

    def evict(self) -> None:
        self.evicted = True
        self.scope.cancel()


class Door:
    """The way into one host. Made before the host listens."""

    def __init__(self, host: BasicHost, limits: Limits, tasks: Tasks) -> None:
        self._swarm = swarm_of(host)
        self._limits = limits
        self._tasks = tasks
        self.memory = Memory(limits.unread_bytes_max, trio.current_time)
        self.spared: Callable[[], Collection[ID]] = frozenset
        """Peers whose connections make no place for others."""
        self.peers = Standings()
        self.addresses = Standings()
        self.arriving: list[_Arrival] = []
        """Oldest first."""
        self._shaking: list[_Arrival] = []
        self._left = trio.Event()
        vars(self._swarm)["_handle_inbound_connection"] = self._admit
        self._upgrade = self._swarm.upgrader.upgrade_connection
        vars(self._swarm.upgrader)["upgrade_connection"] = self._identified

    def blame(self, peer: ID, address: str, fault: Fault) -> None:
        """The fault counts against the peer; if that is what it is banned for, its connections end, and the ban counts
        against its address, since keys are free."""
        if self.peers.blame(str(peer), fault, trio.current_time()):
            if address:
                self.addresses.blame(address, Fault.BAD_FRAME, trio.current_time())
            for connection in list(self._swarm.get_connections(peer)):
                self._tasks.spawn(connection.close)

    def banned_s(self, address: str) -> float:
        """For how much longer nobody is let in from the address; 0 while a peer in good standing is connected from there:
        thousands may share an address, and one of them does not speak for the others."""
        now = trio.current_time()
        banned_s = self.addresses.banned_s(address, now)
        if banned_s and any(self.peers.points(str(peer), now) < 1 for peer, _ in self._standing(address)):
            return 0.0
        return banned_s

    async def _admit(self, stream: ReadWriteCloser, listener: Multiaddr) -> None:
        """The connection was refused, or has ended."""
        address = _address(stream)
        if self.banned_s(address):
            return await stream.close()
        self._make_room(self.arriving, self._limits.arriving_max, 0.0)
        arrival = _Arrival(address, trio.current_time())
        muxed: IMuxedConn | None = None
        with _listed(self.arriving, arrival), arrival.scope:
            muxed = await self._prove(stream, listener, arrival)
        if muxed is None:
            with trio.move_on_after(1), suppress(NetworkError), translated(Code.STREAM_CLOSED, "gone already"):
                await stream.close()
        else:
            assert isinstance(muxed, Muxer)
            await muxed.event_closed.wait()

    async def _prove(self, stream: ReadWriteCloser, listener: Multiaddr, arrival: _Arrival) -> IMuxedConn | None:
        """The connection, once the peer has proven its key and may come in."""
        fault: Fault | None = None
        assert isinstance(stream, TrioTCPStream), "nothing but TCP is listened on"
        socket = Socket(stream)
        try:
            with trio.fail_after(GREETING_S):
                greeting = await _greeting(socket)
            if greeting != GREETING:
                fault = Fault.GARBAGE if greeting and not GREETING.startswith(greeting) else None
                return None
            await self._wait_for_turn(arrival)
            with _listed(self._shaking, arrival), trio.fail_after(HANDSHAKE_S):
                socket.unread(greeting)
                raw = RawConnection(socket, False)
                return await self._swarm.upgrade_inbound_raw_conn(raw, listener)
        except trio.TooSlowError:
            fault = Fault.SILENT_HANDSHAKE
        except Exception as error:  # noqa: BLE001 - a task boundary: libp2p raises what it likes here
            fault = Fault.GARBAGE if _is_garbage(error) else None
        finally:
            self._left.set()
            if fault is not None:
                self.addresses.blame(arrival.address, fault, trio.current_time())
        return None

    async def _wait_for_turn(self, arrival: _Arrival) -> None:
        limits = self._limits
        while True:
            same = [each for each in self._shaking if each.address == arrival.address]
            if len(same) < limits.handshakes_address_max and len(self._shaking) < limits.handshakes_max:
                return
            here = same if len(same) >= limits.handshakes_address_max else self._shaking
            self._make_room(here, len(here), PATIENCE_S)
            self._left = trio.Event()
            with trio.move_on_after(PATIENCE_S / 4):
                await self._left.wait()

    def _make_room(self, arrivals: list[_Arrival], most: int, patience_s: float) -> None:
        """If there is no room, the oldest of the address that takes most of it is on its way out."""
        staying = [each for each in arrivals if not each.evicted]
        if len(staying) < most or (len(staying) < len(arrivals) and patience_s):
            return
        [(crowd, _)] = Counter(each.address for each in staying).most_common(1)
        oldest = next(each for each in staying if each.address == crowd)
        if trio.current_time() - oldest.since >= patience_s:
            oldest.evict()

    async def _identified(self, conn: ISecureConn, peer: ID) -> IMuxedConn:
        """The connection, shared by streams, with a peer that has proven its key. Raises `MuxerUpgradeFailure`."""
        where = conn.get_remote_address()
        address = where[0] if where else ""
        if why := self._refusal(peer, address, inbound=not conn.is_initiator):
            raise MuxerUpgradeFailure(why) from _Refused(why)
        muxed = await self._upgrade(conn, peer)
        assert isinstance(muxed, Muxer)
        muxed.blame = partial(self.blame, peer, address)
        muxed.memory = self.memory
        return muxed

    def _refusal(self, peer: ID, address: str, *, inbound: bool) -> str:
        """Why the peer may not come in; empty if it may."""
        if banned_s := self.peers.banned_s(str(peer), trio.current_time()):
            return f"{peer} broke the rules and is banned here for {banned_s:.0f} s more"
        if len(self._swarm.get_connections(peer)) >= CONNECTIONS_PEER_MAX:
            return f"{CONNECTIONS_PEER_MAX} connections to {peer} stand already"
        standing = self._standing()
        theirs = [muxed for _, muxed in standing if not muxed.is_initiator]
        if len(standing) >= self._limits.connections_max or (inbound and len(theirs) >= self._limits.inbound_max):
            spared = self.spared()
            among = theirs if inbound else [muxed for _, muxed in standing]
            idle = [muxed for muxed in among if not muxed.streams.busy and muxed.peer_id not in spared]
            if not idle:
                return f"{len(standing)} connections stand already, and none of them is idle"
            self._tasks.spawn(min(idle, key=lambda muxed: muxed.streams.used_at).close)
        if inbound and len(self._standing(address)) >= self._limits.address_max:
            return f"{self._limits.address_max} connections from {address} stand already"
        return ""

    def _standing(self, address: str = "") -> list[tuple[ID, Muxer]]:
        """The connections that stand; those that came from the address, if one is given."""
        found = []
        for connection in self._swarm.get_connections():
            muxed = getattr(connection, "muxed_conn", None)
            if isinstance(muxed, Muxer) and not muxed.is_closed:
                where = muxed.get_remote_address() if address else None
                if not address or (where is not None and where[0] == address and not muxed.is_initiator):
                    found.append((muxed.peer_id, muxed))
        return found


class _Refused(ConnectionError):
    """Our own no: no fault of the peer's."""


@contextmanager
def _listed(arrivals: list[_Arrival], arrival: _Arrival) -> Iterator[None]:
    arrivals.append(arrival)
    try:
        yield
    finally:
        arrivals.remove(arrival)


async def _greeting(stream: ReadWriteCloser) -> bytes:
    """The first line, or as much of it as came before something else, or the end, did."""
    greeting = b""
    while len(greeting) < len(GREETING) and GREETING.startswith(greeting):
        more = await stream.read(len(GREETING) - len(greeting))
        if not more:
            break
        greeting += more
    return greeting


def _is_garbage(error: BaseException | None) -> bool:
    """Whether it tells of bytes that are no handshake, rather than of a peer that went, or of our own no."""
    while error is not None:
        if isinstance(error, _GONE):
            return False
        error = error.__cause__ or error.__context__
    return True


def _address(stream: ReadWriteCloser) -> str:
    where = stream.get_remote_address()
    return where[0] if where else ""

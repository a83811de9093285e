"""Whether others can dial this host, and from where they see it come: libp2p's AutoNAT (version 1), and identify.

Upstream's service believes nobody before four servers agree (host/autonat/autonat.py:46), and asks only those that it
happens to be connected with. Here the peers that a node joins by are asked once, and one that got through is proof.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.host.autonat.autonat import AUTONAT_PROTOCOL_ID
from libp2p.host.autonat.pb.autonat_pb2 import Message
from libp2p.host.basic_host import BasicHost
from libp2p.identity.identify.identify import ID as IDENTIFY_ID
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.peer.id import ID
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited

from ...protocol.errors import Code, NetworkError
from ...protocol.limits import ADDRESSES_MAX
from .boundary import Tasks, translated
from .circuit import hear_untrusted, tell
from .dialling import Dialler
from .host import swarm_of
from .identity import Multiaddr, MultiaddrError, is_relayed

ASKED_MAX: Final = 3
"""Peers asked: one of them may be behind the same router, another may be busy."""
DIAL_S: Final = 2.0
"""For the dial back; through a router that drops it, it takes all of that."""
ANSWER_S: Final = 4.0
SERVED_MAX: Final = 4
"""Dials back at once, each of an asker of its own; more are refused, and the askers ask others."""
IDENTITY_BYTES_MAX: Final = 64 * 1024


class Dialback:
    """Dials those back who ask for it: at the address that they come from and at none else."""

    def __init__(self, host: BasicHost) -> None:
        self._host = host
        self._serving: set[ID] = set()
        host.set_stream_handler(AUTONAT_PROTOCOL_ID, self._serve)

    async def _serve(self, stream: INetStream) -> None:
        peer = stream.muxed_conn.peer_id
        with trio.fail_after(ANSWER_S):
            question = await hear_untrusted(stream, Message)
            status = Message.E_DIAL_REFUSED
            remote = stream.get_remote_address()
            if remote is not None and peer not in self._serving and len(self._serving) < SERVED_MAX:
                self._serving.add(peer)
                try:
                    reached = await self._dial(peer, _at(remote[0], question.dial.peer.addrs))
                finally:
                    self._serving.discard(peer)
                status = Message.OK if reached else Message.E_DIAL_ERROR
            answer = Message(type=Message.DIAL_RESPONSE, dialResponse=Message.DialResponse(status=status))
            await tell(stream, answer)
        await stream.close()

    async def _dial(self, peer: ID, addresses: Sequence[Multiaddr]) -> bool:
        """Whether the peer itself answers at one of them; that connection is closed again."""
        for address in addresses:
            limit = trio.move_on_after(DIAL_S / len(addresses))
            with suppress(NetworkError), limit, translated(Code.PEER_UNREACHABLE, str(address)):
                connection = await swarm_of(self._host).dial_addr(address, peer)
                await connection.close()
                return True
        return False


async def can_be_dialled(
    tasks: Tasks, dialler: Dialler, peers: Sequence[ID], own: ID, addresses: Collection[Multiaddr]
) -> bool | None:
    """Whether a peer got through to a port among the addresses; None if none could say."""
    info = Message.PeerInfo(id=own.to_bytes(), addrs=[each.to_bytes() for each in addresses])
    question = Message(type=Message.DIAL, dial=Message.Dial(peer=info))
    answers: list[bool] = []

    async def ask(peer: ID) -> None:
        stream = await dialler.open(peer, AUTONAT_PROTOCOL_ID)
        try:
            with translated(Code.STREAM_CLOSED, "the peer did not answer"):
                await tell(stream, question)
                status = (await hear_untrusted(stream, Message)).dialResponse.status
        finally:
            tasks.spawn(stream.reset)
        if status in (Message.OK, Message.E_DIAL_ERROR):
            answers.append(status == Message.OK)
            if status == Message.OK:
                nursery.cancel_scope.cancel()

    async def ask_one(peer: ID) -> None:
        with suppress(NetworkError):  # it offers no such service, or has left
            await ask(peer)

    with trio.move_on_after(ANSWER_S):
        async with trio.open_nursery() as nursery:
            for peer in peers[:ASKED_MAX]:
                nursery.start_soon(ask_one, peer)
    return any(answers) if answers else None


async def seen_ip(tasks: Tasks, dialler: Dialler, peer: ID) -> str:
    """The IP address that this host comes from, as a peer says that is connected directly. Raises as `Dialler.open`."""
    stream = await dialler.open(peer, IDENTIFY_ID)
    try:
        with translated(Code.STREAM_CLOSED, "the peer did not say who it is"):
            told = parse_identify_response(
                encode_varint_prefixed(await read_varint_prefixed_bytes_limited(stream, IDENTITY_BYTES_MAX))
            )
            return str(Multiaddr(told.observed_addr)).split("/")[2]
    finally:
        tasks.spawn(stream.reset)


def port_of(address: Multiaddr) -> int:
    """The TCP port; 0 if it has none, or if it is a relay's."""
    parts = str(address).split("/")
    return int(parts[4]) if len(parts) > 4 and parts[3] == "tcp" and not is_relayed(address) else 0


def at(ip: str, port: int) -> Multiaddr:
    """The port at the IP address."""
    return Multiaddr(f"/ip{6 if ':' in ip else 4}/{ip}/tcp/{port}")


def _at(ip: str, addresses: Sequence[bytes]) -> list[Multiaddr]:
    """The ports of the addresses, at that IP address: nobody is dialled because another one says so."""
    ports: dict[int, None] = {}
    for raw in list(addresses)[:ADDRESSES_MAX]:
        try:
            ports[port_of(Multiaddr(raw))] = None
        except (ValueError, MultiaddrError):
            continue  # [IGNORE] an address of a kind that we do not know
    return [at(ip, port) for port in ports if port][:2]

"""The mesh as a stranger meets it: somebody with a fresh key, who knows nothing of a node but its name."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from ..node.network.reach import AUTO, Reach
from ..node.network.seam import Network
from ..node.network.table_rules import profile_rules
from ..protocol.envelope import verify_untrusted
from ..protocol.errors import Code, NetworkError, RemoteProtocolError
from ..protocol.identity import peer_id
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.messages.discovery import ProfileReply, ProfileRequest
from ..protocol.names import profile_key
from ..protocol.profiles import CapabilityProfile
from ..protocol.published import Profiles, decode_profiles_untrusted
from ..protocol.streams import PROFILE_PROTOCOL

FIND_S = 5.0
"""For the DHT's answer, dead index nodes included."""
ASK_S = 4.0
"""For a node's answer about itself, each of its addresses tried."""
CLOCKS_MAX = 8
"""Peers whose time is taken: more would not bring it nearer."""
ANYWHERE = "/ip4/0.0.0.0/tcp/0"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a stranger found."""

    peers: int
    """That it was connected with in the end."""
    others: bool
    """Whether somebody else than the node itself was there to join by."""
    let_in: bool | None
    """Whether peers got through to a port of this machine that was opened for them; None if none was asked."""
    found: Profiles | None
    """What the DHT has of the node."""
    way: str
    """How the node was reached at the addresses found: `direct` or `relayed`; empty if it was not."""
    why: str
    """What kept the stranger from reaching it."""
    ages_ms: tuple[int, ...]
    """Of what other peers signed last: our clock, less theirs when they signed."""


async def look(
    node: bytes | None, bootstrap: Sequence[str], known: Sequence[str], now_ms: Callable[[], int], *, listen: bool
) -> Seen:
    """What a stranger finds of the node, or of the mesh alone, by way of others if there are any.

    With `listen`, peers are asked to dial this machine. Raises `NetworkError(bootstrap_unreachable)`.
    """
    given, before = _without(node, bootstrap), _without(node, known)
    others = bool(given or before)
    try:
        return await _look(node, given, before, now_ms, listen=listen, others=others)
    except NetworkError as error:
        if error.code is not Code.BOOTSTRAP_UNREACHABLE or (given, before) == ([*bootstrap], [*known]):
            raise
    return await _look(node, bootstrap, known, now_ms, listen=listen, others=False)


async def _look(
    node: bytes | None, bootstrap: Sequence[str], known: Sequence[str], now_ms: Callable[[], int], *, listen: bool,
    others: bool,
) -> Seen:  # fmt: skip
    from ..node.network.mesh import open_network

    if not bootstrap and not known:
        raise NetworkError(Code.BOOTSTRAP_UNREACHABLE, "No address to join by is known.")
    where, rules = [ANYWHERE] if listen else [], profile_rules(now_ms)
    reach = Reach(AUTO) if listen else Reach()
    async with open_network(
        secrets.token_bytes(32), where, bootstrap, rules, mode="client", reach=reach, known=known
    ) as network:
        found, way, why = await _find(network, node, now_ms) if node else (None, "", "")
        ages = await _ages(network, [peer for peer in network.peers() if peer != node], now_ms)
        return Seen(len(network.peers()), others, network.reachability().dialled, found, way, why, tuple(ages))


async def _find(network: Network, node: bytes, now_ms: Callable[[], int]) -> tuple[Profiles | None, str, str]:
    """What the DHT has of the node, how it was reached there, and why not."""
    value = None
    with suppress(NetworkError), trio.move_on_after(FIND_S):
        value = await network.get(profile_key(node))
    if value is None:
        return None, "", "The DHT has no profile of it."
    try:
        found = decode_profiles_untrusted(value, now_ms())
    except RemoteProtocolError as error:
        return None, "", error.message
    addresses = found.connectivity.record.addresses
    try:
        with trio.fail_after(ASK_S):
            await _ask(network, node, addresses)
    except (NetworkError, RemoteProtocolError) as error:
        return found, "", error.message
    except trio.TooSlowError:
        return found, "", f"It did not answer within {ASK_S:g} s at {', '.join(addresses) or 'no address'}."
    return found, "relayed" if network.relayed(node) else "direct", ""


async def _ask(network: Network, peer: bytes, addresses: Sequence[str] = ()) -> CapabilityProfile:
    """What the peer says of itself, whatever its clock says. Raises `NetworkError`, `RemoteProtocolError`."""
    frame = await network.request(peer, PROFILE_PROTOCOL, encode_message(ProfileRequest()), addresses)
    reply = decode_message_untrusted(frame)
    if not isinstance(reply, ProfileReply):
        raise RemoteProtocolError(Code.BAD_ENCODING, "The node answered something else than its profile.")
    return verify_untrusted(CapabilityProfile, reply.capability, signer=peer).record


async def _ages(network: Network, peers: Sequence[bytes], now_ms: Callable[[], int]) -> list[int]:
    ages: list[int] = []

    async def take(peer: bytes) -> None:
        with suppress(NetworkError, RemoteProtocolError), trio.move_on_after(ASK_S):
            issued_ms = (await _ask(network, peer)).issued_ms
            ages.append(now_ms() - issued_ms)

    async with trio.open_nursery() as nursery:
        for peer in peers[:CLOCKS_MAX]:
            nursery.start_soon(take, peer)
    return ages


def _without(node: bytes | None, addresses: Sequence[str]) -> list[str]:
    """The addresses that are not the node's own."""
    return [each for each in addresses if node is None or not each.endswith(f"/p2p/{peer_id(node)}")]

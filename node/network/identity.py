"""Keys, libp2p ids and multiaddrs: three names of one thing, and the ways between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.peer.id import ID
from multiaddr import Multiaddr as Multiaddr
from multiaddr.exceptions import Error as _Error

from ...protocol.errors import Code, NetworkError
from ...protocol.limits import ADDRESSES_MAX
from .seam import CIRCUIT as CIRCUIT

MultiaddrError = _Error
_ED25519_ID_PREFIX = bytes.fromhex("002408011220")
"""Identity multihash of libp2p's protobuf for an Ed25519 key; the key itself follows."""
_ID_BYTES = len(_ED25519_ID_PREFIX) + 32


def id_of(key: bytes) -> ID:
    """The libp2p id of an Ed25519 key."""
    return ID.from_pubkey(Ed25519PublicKey.from_bytes(key))


def key_of(peer: ID) -> bytes:
    """The Ed25519 key inside a libp2p id. Raises `peer_unreachable` for an id of any other kind."""
    raw = peer.to_bytes()
    if len(raw) != _ID_BYTES or not raw.startswith(_ED25519_ID_PREFIX):
        raise NetworkError(Code.PEER_UNREACHABLE, f"{peer} is not the id of an Ed25519 key")
    return raw[len(_ED25519_ID_PREFIX) :]


def split_address(address: str) -> tuple[str, str]:
    """Where to dial, and the peer who is there (empty if it names nobody). A relay on the way belongs to where."""
    relay, circuit, rest = address.partition(CIRCUIT)
    if circuit:
        return relay + circuit, rest.removeprefix("/p2p/")
    bare, _, name = address.partition("/p2p/")
    return bare, name


def is_relayed(address: str | Multiaddr) -> bool:
    """Whether the way leads through a relay."""
    return CIRCUIT in str(address)


def parse_address(address: str) -> tuple[ID, Multiaddr]:
    """The peer and the bare transport address in a full multiaddr. Raises `peer_unreachable` saying what is wrong."""
    bare, name = split_address(address)
    if not bare or not name:
        raise NetworkError(Code.PEER_UNREACHABLE, f"{address!r} lacks the peer's id: /ip4/.../tcp/.../p2p/12D3Koo...")
    try:
        peer, where = ID.from_string(name), Multiaddr(bare)
    except (ValueError, MultiaddrError) as error:
        raise NetworkError(Code.PEER_UNREACHABLE, f"{address!r} is not a multiaddr: {error}") from error
    key_of(peer)
    return peer, where


def bare_addresses(peer: ID, addresses: Sequence[str]) -> list[Multiaddr]:
    """Those of the addresses that name this peer or nobody, without the name; at most `ADDRESSES_MAX`, each once."""
    bare: dict[str, Multiaddr] = {}
    for address in addresses[:ADDRESSES_MAX]:
        text, name = split_address(address)
        if name not in ("", str(peer)):
            continue
        try:
            bare.setdefault(text, Multiaddr(text))
        except (ValueError, MultiaddrError):
            continue  # [IGNORE] an address of a kind that we do not know: another one may work
    return list(bare.values())


def full_addresses(peer: ID, addresses: Iterable[Multiaddr]) -> tuple[str, ...]:
    """The addresses as others write them, each with the peer's id, once; at most `ADDRESSES_MAX`."""
    texts = (split_address(str(address))[0] for address in addresses)
    return tuple(dict.fromkeys(f"{text}/p2p/{peer}" for text in texts if text))[:ADDRESSES_MAX]

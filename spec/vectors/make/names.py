"""Kinds `identity`, `names` and `published`: text forms of keys and hashes, and what stands in the DHT under them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from blake3 import blake3

from . import world
from .cbor import encode
from .notation import Case, refused
from .world import HASH, NODE, NOW_MS, OTHER, SKEW_MS

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PEER_ID = bytes.fromhex("002408011220")
_CID = bytes.fromhex("01551e20")


def base58(encoded: bytes) -> str:
    """Bitcoin's base58: each leading zero byte is a 1."""
    number, digits = int.from_bytes(encoded, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(encoded) - len(encoded.lstrip(b"\0"))) + digits


def base32(encoded: bytes) -> str:
    """RFC 4648, lower case, without padding."""
    return base64.b32encode(encoded).decode().lower().rstrip("=")


def cid(content_hash: bytes) -> str:
    return "b" + base32(_CID + content_hash)


def profile_key(node: bytes) -> str:
    return "/fallow/" + base64.urlsafe_b64encode(node).decode().rstrip("=")


def identity() -> Iterator[Case]:
    for words, key in (("node", NODE.key), ("zeros", bytes(32)), ("ones", b"\xff" * 32)):
        text = base58(_PEER_ID + key)
        forms = {"peer_id": text, "did_key": "did:key:z" + base58(b"\xed\x01" + key)}
        yield Case(f"key-{words}", "The text forms of a key.", {"key": key}, forms)
        yield Case(f"peer-id-{words}", "The key in a peer id.", {"peer_id": text}, {"key": key})
    for words, content in (("something", HASH), ("zeros", bytes(32)), ("ones", b"\xff" * 32)):
        yield Case(f"hash-{words}", "The text form of a content hash.", {"hash": content}, {"cid": cid(content)})
        yield Case(f"cid-{words}", "The hash in a CID.", {"cid": cid(content)}, {"hash": content})
    for words, about, text in _no_peer_ids():
        yield refused(f"peer-id-{words}", about, {"peer_id": text}, "bad_encoding")
    for words, about, text in _no_cids():
        yield refused(f"cid-{words}", about, {"cid": text}, "bad_encoding")


def _no_peer_ids() -> Iterator[tuple[str, str, str]]:
    good = base58(_PEER_ID + NODE.key)
    yield "empty", "No text.", ""
    yield "letter-outside", "0 is no digit of base58.", good[:-1] + "0"
    yield "space", "A space after it.", good + " "
    yield "beyond-ascii", "A letter outside of ASCII.", good[:-1] + "\u00fc"
    yield "leading-one", "A leading zero byte too many.", "1" + good
    yield "cut-short", "Its last digit is missing.", good[:-1]
    yield "too-long", "A digit too many.", good + "1"
    yield "very-long", "A thousand digits.", "z" * 1000
    yield "of-31-bytes", "A key of 31 bytes.", base58(_PEER_ID + NODE.key[:31])
    yield "of-secp256k1", "A key of another type.", base58(bytes.fromhex("002408021220") + NODE.key)
    yield "of-rsa", "A SHA-256 multihash, as RSA keys have.", base58(bytes.fromhex("1220") + HASH)
    yield "as-did-key", "Another text form of the key.", "did:key:z" + base58(b"\xed\x01" + NODE.key)


def _no_cids() -> Iterator[tuple[str, str, str]]:
    good = cid(HASH)
    other_end = good[:-1] + _BASE32[_BASE32.index(good[-1]) ^ 1]
    yield "empty", "No text.", ""
    yield "upper-case", "Base32 in upper case is another multibase.", good.upper()
    yield "padded", "With padding.", good + "======"
    yield "cut-short", "Its last letter is missing.", good[:-1]
    yield "bits-left-over", "A bit is set that belongs to no byte.", other_end
    yield "base58", "Another multibase.", "z" + base58(_CID + HASH)
    yield "of-sha256", "Another hash function.", "b" + base32(bytes.fromhex("01551220") + HASH)
    yield "of-dag-cbor", "Another codec.", "b" + base32(bytes.fromhex("01711e20") + HASH)
    yield "version-2", "Another version.", "b" + base32(bytes.fromhex("02551e20") + HASH)
    yield "of-31-bytes", "A hash of 31 bytes.", "b" + base32(bytes.fromhex("01551e1f") + HASH[:31])
    yield "of-33-bytes", "A hash of 33 bytes.", "b" + base32(_CID + HASH + b"\0")
    yield "version-0", "A CIDv0.", base58(bytes.fromhex("1220") + HASH)


def names() -> Iterator[Case]:
    about = "Where a node's profiles stand."
    yield Case("profile-key", about, {"node": NODE.key}, {"profile_key": profile_key(NODE.key)})
    padless = bytes([251, 239, 190]) * 10 + b"\xff\xff"
    yield Case("profile-key-url-letters", about, {"node": padless}, {"profile_key": "/fallow/" + "----" * 10 + "__8"})
    for region, shard in (("-", 0), ("u4p", 0), ("u", 7)):
        given = {"bundle": HASH, "region": region, "shard": shard}
        key = f"serve/{cid(HASH)}/{region}/{shard}"
        words = f"provider-key-{'world' if region == '-' else region}-{shard}"
        yield Case(words, "Where the nodes that serve a bundle are found.", given, {"provider_key": key})
    yield from _shards()
    yield from _versions()


def _shard_of(node: bytes, depth: int) -> int:
    bits = "".join(f"{byte:08b}" for byte in node)[:depth]
    return 2**depth - 1 + (int(bits, 2) if bits else 0)


def _lot(node: bytes) -> int:
    hour = NOW_MS // 3_600_000
    return int.from_bytes(blake3(b"fallow/1/shard" + hour.to_bytes(8, "big") + node).digest()[:4], "big")


def _population(shard: int, found: list[bytes]) -> int:
    depth = len(f"{shard + 1:b}") - 1
    lots = sorted(_lot(node) for node in set(found) if _shard_of(node, depth) == shard)
    return len(lots) if len(lots) <= 16 else max(len(lots), 15 * 2**32 // lots[15])


def _safe_depth(shard: int, found: list[bytes]) -> int:
    crowd = _population(shard, found) * 2 ** (len(f"{shard + 1:b}") - 1)
    return next(depth for depth in range(25) if crowd <= 128 * 2**depth or depth == 24)


def _shards() -> Iterator[Case]:
    for words, node, depth in (
        ("root", NODE.key, 0),
        ("low-bits", bytes(32), 5),
        ("high-bits", b"\xff" * 32, 3),
        ("seven-bits", NODE.key, 7),
        ("deepest", OTHER.key, 24),
        *((f"lot-{number}", bytes([number]) * 32, 9) for number in range(12)),
    ):
        above = [level for level in range(depth) if _lot(node) < 2 ** (32 - depth + level)]
        found = [_shard_of(node, depth), *(_shard_of(node, level) for level in reversed(above))]
        given = {"node": node, "depth": depth, "now_ms": NOW_MS}
        yield Case(f"shards-{words}", "Where a node stands, its own shard first.", given, {"shards": found})
    crowd = [blake3(bytes([number % 256, number // 256])).digest() for number in range(300)]
    for words, shard, found in (
        ("of-nobody", 0, []),
        ("of-sixteen", 0, crowd[:16]),
        ("of-seventeen", 0, crowd[:17]),
        ("of-many", 0, crowd),
        ("twice-and-of-elsewhere", 1, [*crowd[:40], *crowd[:20]]),
        ("by-its-lots", 0, [node for node in crowd if _lot(node) < 2**29]),
        ("by-its-lots-below", 2, [node for node in crowd if _lot(node) < 2**30]),
    ):
        told = {"population": _population(shard, found), "safe_depth": _safe_depth(shard, found)}
        given = {"shard": shard, "found": found, "now_ms": NOW_MS}
        yield Case(f"crowd-{words}", "How many nodes are in a shard and below it.", given, told)


def _versions() -> Iterator[Case]:
    def offer(service: str, *versions: object) -> list[str]:
        return [f"/fallow/{service}/{version}" for version in versions]

    def both(ours: list[str], theirs: list[str], service: str = "job") -> dict[str, Any]:
        return {"ours": ours, "theirs": theirs, "service": service}

    for words, about, ours, theirs, version in (
        ("same", "Both speak one version.", offer("job", 1), offer("job", 1), 1),
        ("newest-common", "The newest that both speak.", offer("job", 3, 2, 1), offer("job", 1, 2), 2),
        ("by-number", "Versions are numbers: 10 is newer than 9.", offer("job", 9, 10), offer("job", 10, 9), 10),
        (
            "others-beside",
            "Other services and other people's protocols are passed over.",
            offer("blob", 5) + offer("job", 1),
            ["/ipfs/id/1.0.0", *offer("blob", 5), *offer("job", 1)],
            1,
        ),
        ("largest", "Versions have up to four digits.", offer("job", 9999, 1), offer("job", 1, 9999), 9999),
    ):
        yield Case(f"version-{words}", about, both(ours, theirs), {"protocol": f"/fallow/job/{version}"})
    for words, about, ours, theirs in (
        ("none", "Nothing is offered.", offer("job", 1), []),
        ("no-common", "No version in common.", offer("job", 2), offer("job", 1, 3)),
        ("other-service", "Only another service.", offer("job", 1), offer("blob", 1)),
        ("leading-zero", "01 is no version.", offer("job", 1, "01"), offer("job", "01")),
        ("version-zero", "0 is no version.", offer("job", 0), offer("job", 0)),
        ("five-digits", "10000 is no version.", offer("job", 10000), offer("job", 10000)),
        ("other-digits", "A digit outside of ASCII is none.", offer("job", "\u0661"), offer("job", "\u0661")),
        ("line-end", "A line end after it.", offer("job", "1\n"), offer("job", "1\n")),
        ("prefix", "Something before it.", ["x/fallow/job/1"], ["x/fallow/job/1"]),
    ):
        yield refused(f"version-{words}", about, both(ours, theirs), "protocol_unsupported")


def published() -> Iterator[Case]:
    capability, connectivity = _profiles()
    value, key = encode([capability, connectivity]), profile_key(NODE.key)

    def stands(words: str, about: str, value: bytes, now_ms: int = NOW_MS) -> Case:
        return Case(words, about, {"key": key, "value": value, "now_ms": now_ms}, {})

    def falls(words: str, about: str, code: str, value: bytes, now_ms: int = NOW_MS, key: str = key) -> Case:
        return refused(words, about, {"key": key, "value": value, "now_ms": now_ms}, code)

    yield stands("both-profiles", "Both profiles of the node that the key names.", value)
    yield stands("just-expired", "Clocks may differ.", value, NOW_MS + 600_000 + SKEW_MS)
    yield falls("expired", "Both profiles are over.", "expired", value, NOW_MS + 600_001 + SKEW_MS)
    yield falls("not-yet", "Both profiles are of the future.", "expired", value, NOW_MS - 1 - SKEW_MS)
    yield falls("another-key", "Under another node's key.", "bad_signature", value, key=profile_key(OTHER.key))
    yield falls("padded-key", "Under a key with padding.", "bad_signature", value, key=key + "=")
    yield falls("exchanged", "The two in the other order.", "bad_signature", encode([connectivity, capability]))
    yield falls("twice", "The same profile twice.", "bad_signature", encode([capability, capability]))
    strange = OTHER.sign("connectivity-profile", world.connectivity(node=OTHER.key)).whole
    yield falls("of-two-nodes", "Profiles of two nodes.", "bad_signature", encode([capability, strange]))
    about = "Profiles that the node has signed about another one."
    borrowed, _ = _profiles(node=OTHER.key)
    yield falls("about-another", about, "bad_signature", encode([borrowed, connectivity]))
    lasting, _ = _profiles(expires_ms=NOW_MS + 1_800_001)
    yield falls("for-too-long", "Valid for more than half an hour.", "bad_record", encode([lasting, connectivity]))
    longest, _ = _profiles(expires_ms=NOW_MS + 1_800_000)
    yield stands("for-half-an-hour", "Valid for just half an hour.", encode([longest, connectivity]))
    yield falls("one-profile", "One profile alone.", "bad_record", encode([capability]))
    yield falls("three-profiles", "A profile too many.", "bad_record", encode([capability, connectivity, connectivity]))
    yield falls("map", "A map is no list.", "bad_record", encode({"capability": capability}))
    yield falls("text", "Profiles as text.", "bad_record", encode(["a", "b"]))
    yield falls("no-envelopes", "Bytes that are no envelopes.", "bad_encoding", encode([b"a", b"b"]))
    yield falls("trailing", "A byte after it.", "bad_encoding", value + b"\x00")
    yield falls("nothing", "No bytes.", "bad_encoding", b"")
    yield falls("too-large", "More than 16 KiB, whatever they say.", "too_large", bytes(16 * 1024 + 1))


def _profiles(**changes: Any) -> tuple[bytes, bytes]:
    capability = NODE.sign("capability-profile", world.capability(**changes))
    return capability.whole, NODE.sign("connectivity-profile", world.connectivity(**changes)).whole

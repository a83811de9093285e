"""Kind `envelope`: every record as it arrives, and every way in which an envelope is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cbor import BYTES, encode, head, raw_map
from .cose import Envelope, Signer, sign1
from .notation import Case, refused
from .world import CLIENT, EXAMPLES, HASH, NODE, OTHER, Fields


def envelope() -> Iterator[Case]:
    for name, (signer, fields) in EXAMPLES.items():
        yield _verified(f"{name}-verified", f"The example of a {name}.", name, fields, signer.sign(name, fields))
        another = "receipt" if name != "receipt" else "accept"
        wrong = signer.sign_payload(another, encode(fields))
        yield _refused(f"{name}-signed-as-{another}", "Signed under another record's name.", wrong.whole, name=name)
        strange = (OTHER if signer is not OTHER else CLIENT).sign(name, fields)
        about = "Signed by another key than the one asked for."
        yield _refused(f"{name}-by-another", about, strange.whole, name=name, signer=signer)
    yield from _extended()
    yield from _damaged()
    yield from _not_records()


def _verified(words: str, about: str, name: str, fields: Fields, sealed: Envelope) -> Case:
    given = {"record": name, "signer": sealed.signer, "envelope": sealed.whole}
    parts = {"payload": sealed.payload, "sig_structure": sealed.sig_structure, "signature": sealed.signature}
    return Case(words, about, given, {**parts, "id": sealed.id, "fields": fields})


def _refused(
    words: str, about: str, whole: bytes, code: str = "bad_signature", name: str = "accept", signer: Signer = NODE
) -> Case:
    signer = EXAMPLES[name][0] if signer is NODE else signer
    return refused(words, about, {"record": name, "signer": signer.key, "envelope": whole}, code)


def _extended() -> Iterator[Case]:
    fields = world.accept()
    sealed = NODE.sign_payload("accept", encode({**fields, "opt_later": "x", "opt_": None}))
    yield _verified("extended", "What is signed may have fields that a reader ignores.", "accept", fields, sealed)


def _damaged() -> Iterator[Case]:
    """One good envelope, damaged in all places."""
    good = NODE.sign("accept", world.accept())
    parts: tuple[Any, ...] = good.protected, {}, good.payload, good.signature
    protected, _, payload, signature = parts
    for words, about, at in (
        ("bit-of-signature", "One bit of the signature is changed.", -1),
        ("bit-of-payload", "One bit of the payload is changed.", good.whole.index(payload) + len(payload) - 1),
        ("bit-of-key-id", "One bit of the key id is changed.", good.whole.index(NODE.key)),
    ):
        changed = bytearray(good.whole)
        changed[at] ^= 1
        yield _refused(words, about, bytes(changed))
    for words, about, whole in (
        ("empty", "No bytes.", b""),
        ("untagged", "Without the tag.", good.whole[1:]),
        ("tag-of-two-bytes", "The tag in a longer form.", b"\xd8\x12" + good.whole[1:]),
        ("other-tag", "Tag 17: a COSE_Mac0.", b"\xd1" + good.whole[1:]),
        ("trailing", "A byte after it.", good.whole + b"\x00"),
        ("cut-short", "Its last byte is missing.", good.whole[:-1]),
        ("indefinite", "The four parts in a list without length.", b"\xd2\x9f" + good.whole[2:] + b"\xff"),
        ("three-parts", "Three parts.", sign1(protected, {}, payload)),
        ("five-parts", "Five parts.", sign1(*parts, b"")),
        ("unprotected", "Something in the unprotected header.", sign1(protected, {"x": 1}, payload, signature)),
        ("unprotected-integer-key", "Something in the unprotected header.", _unprotected(good)),
        ("detached", "The payload is null.", sign1(protected, {}, None, signature)),
        ("payload-not-bytes", "The payload is a map.", sign1(protected, {}, world.accept(), signature)),
        ("length-too-wide", "The signature's length in two bytes.", _wide(good)),
    ):
        yield _refused(words, about, whole, "bad_encoding")
    yield _refused("signature-too-short", "63 bytes of signature.", sign1(protected, {}, payload, signature[:63]))
    yield _refused("signature-too-long", "65 bytes of signature.", sign1(protected, {}, payload, signature + b"\0"))


def _unprotected(good: Envelope) -> bytes:
    header = raw_map((encode(4), encode(good.signer)))
    return b"\xd2\x84" + encode(good.protected) + header + encode(good.payload) + encode(good.signature)


def _wide(good: Envelope) -> bytes:
    return good.whole[: -64 - 2] + head(BYTES, 64, 2) + good.signature


def _not_records() -> Iterator[Case]:
    """Whatever they hold, it was signed by the right key."""
    payload = encode(world.accept())
    headers = (
        ("deprecated-algorithm", "Algorithm -8 (EdDSA).", encode({1: -8, 4: NODE.key})),
        ("no-key-id", "A protected header without key id.", encode({1: -19})),
        ("short-key-id", "A key id of 31 bytes.", encode({1: -19, 4: NODE.key[:31]})),
        ("header-unsorted", "The protected header with its keys exchanged.", _header_unsorted()),
        ("header-more", "A protected header with a content type.", encode({1: -19, 3: 0, 4: NODE.key})),
        ("header-empty", "An empty protected header.", b""),
    )
    for words, about, header in headers:
        yield _refused(words, about, NODE.sign_payload("accept", payload, header).whole)
    undecodable = (
        ("payload-empty", "A payload without bytes.", b""),
        ("payload-trailing", "A byte after the payload's map.", payload + b"\x00"),
        ("payload-unsorted", "The payload's keys in reverse.", _reversed(world.accept())),
        ("payload-tagged", "A payload in a tag.", b"\xc1" + payload),
    )
    for words, about, bad in undecodable:
        yield _refused(words, about, NODE.sign_payload("accept", bad).whole, "bad_encoding")
    strange = (
        ("payload-list", "The payload is a list.", encode([1])),
        ("payload-of-another", "The payload is that of another record.", encode(world.receipt())),
        ("payload-missing-field", "A field is missing.", encode({"order": HASH})),
        ("payload-unknown-field", "A field is unknown.", encode({**world.accept(), "option": 1})),
        ("payload-null", "The payload is null.", encode(None)),
    )
    for words, about, bad in strange:
        yield _refused(words, about, NODE.sign_payload("accept", bad).whole, "bad_record")


def _header_unsorted() -> bytes:
    return raw_map((encode(4), encode(NODE.key)), (encode(1), encode(-19)))


def _reversed(fields: Fields) -> bytes:
    pairs = sorted(((encode(key), encode(value)) for key, value in fields.items()), reverse=True)
    return raw_map(*pairs)

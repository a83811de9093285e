"""Page 01: text forms, envelopes part by part, and who may sign for whom."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from blake3 import blake3
from nacl.signing import SigningKey

from fallow.protocol.codec import encode
from fallow.protocol.envelope import Signed, sign, verify_untrusted
from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from fallow.protocol.evidence import Evidence
from fallow.protocol.grid import FeederLease
from fallow.protocol.identity import (
    EXECUTOR,
    Issuer,
    Mandate,
    WorkerKey,
    check_epoch,
    check_mandate,
    cid,
    cid_hash_untrusted,
    peer_id,
    peer_key_untrusted,
)
from fallow.protocol.limits import (
    ISSUER_MS_MAX,
    MANDATE_MS_MAX,
    RECORD_BYTES_MAX,
    SKEW_MS,
    WORKER_KEY_MS_MAX,
)
from fallow.protocol.orders import Accept
from fallow.protocol.payment import LEDGER, Channel
from fallow.protocol.prices import Price
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile, ServedBundle
from fallow.protocol.records import identify_untrusted
from fallow.protocol.schema import to_map

OWNER, NODE, AGENT, STRANGER = (SigningKey(bytes([number] * 32)) for number in range(1, 5))
OWNER_KEY, NODE_KEY, AGENT_KEY, STRANGER_KEY = (bytes(key.verify_key) for key in (OWNER, NODE, AGENT, STRANGER))
NOW_MS = 1_790_000_000_000
H = b"\x07" * 32
ACCEPT = Accept(H, H, NOW_MS, "class")


def refused(code: Code, check: Any, *arguments: Any, **named: Any) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check(*arguments, **named)
    assert caught.value.code is code, caught.value


@pytest.mark.spec("I-1")
def test_a_peer_id_has_one_text() -> None:
    text = peer_id(NODE_KEY)
    assert text.startswith("12D3Koo") and peer_key_untrusted(text) == NODE_KEY
    other = ("", text[1:], "1" + text, text + "1", text[:-1] + "0", text.lower(), cid(NODE_KEY), " " + text, "1" * 100)
    for wrong in (*other, "Qm" + text[2:]):
        refused(Code.BAD_ENCODING, peer_key_untrusted, wrong)


@pytest.mark.spec("I-2")
def test_a_cid_has_one_text() -> None:
    text = cid(H)
    assert cid_hash_untrusted(text) == H

    def of(prefix: str, body: bytes = H) -> str:
        return "b" + base64.b32encode(bytes.fromhex(prefix) + body).decode().rstrip("=").lower()

    assert of("01551e20") == text
    for wrong in ("", "b", text.upper(), "z" + text[1:], text + "a", text + "=", text[:-1], of("01701e20"), of("01551220"),
                  of("00551e20"), of("01551e20", H[1:]), of("01551e20", H + H)):  # fmt: skip
        refused(Code.BAD_ENCODING, cid_hash_untrusted, wrong)


def envelope(
    record: Any = ACCEPT, key: SigningKey = NODE, *, header: bytes | None = None, unprotected: Any = None, domain: str = "",
    payload: bytes | None = None, signature: bytes | None = None, tag: bytes = b"\xd2", more: tuple[Any, ...] = (),
) -> bytes:  # fmt: skip
    """An envelope made by the page's words, each part of which may be another."""
    header = bytes.fromhex("a20132045820") + bytes(key.verify_key) if header is None else header
    payload = encode(to_map(record)) if payload is None else payload
    domain = domain or f"fallow/1/{record.RECORD}"
    signed = encode(["Signature1", header, domain.encode(), payload])
    signature = key.sign(signed).signature if signature is None else signature
    return tag + encode([header, unprotected or {}, payload, signature, *more])


@pytest.mark.spec("I-3", "I-9")
def test_an_envelope_is_made_as_the_page_says() -> None:
    signed = sign(ACCEPT, NODE)
    assert signed.envelope == envelope()
    assert signed.id == blake3(signed.envelope).digest()


@pytest.mark.spec("I-9")
def test_fields_of_later_versions_stay_in_the_bytes_and_count_for_the_id() -> None:
    later = envelope(payload=encode({**to_map(ACCEPT), "opt_later": 1}))
    signed = verify_untrusted(Accept, later, signer=NODE_KEY)
    assert (signed.record, signed.envelope, signed.id) == (ACCEPT, later, blake3(later).digest())


PADDING = bytes.fromhex("a20132045820")


@pytest.mark.spec("I-4", "I-5", "I-6", "I-7", "I-8", "L-1")
@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        (Code.BAD_ENCODING, envelope(tag=b"")),
        (Code.BAD_ENCODING, envelope(tag=b"\xd8\x12")),
        (Code.BAD_ENCODING, envelope(tag=b"\xd1")),
        (Code.BAD_ENCODING, envelope(more=(b"",))),
        (Code.BAD_ENCODING, envelope(unprotected={"a": 1})),
        (Code.BAD_ENCODING, envelope() + b"\0"),
        (Code.BAD_ENCODING, envelope()[:-1]),
        (Code.BAD_ENCODING, b"\xd2\xa0"),
        (Code.BAD_ENCODING, b""),
        (Code.TOO_LARGE, b"\xd2" + bytes(RECORD_BYTES_MAX + 1)),
        (Code.BAD_SIGNATURE, envelope(header=bytes.fromhex("a20127045820") + NODE_KEY)),
        (Code.BAD_SIGNATURE, envelope(header=bytes.fromhex("a10132"))),
        (Code.BAD_SIGNATURE, envelope(header=PADDING + NODE_KEY + b"\0")),
        (Code.BAD_SIGNATURE, envelope(header=b"")),
        (Code.BAD_SIGNATURE, envelope(signature=bytes(63))),
        (Code.BAD_SIGNATURE, envelope(signature=bytes(64))),
        (Code.BAD_SIGNATURE, envelope(key=STRANGER)),
        (Code.BAD_SIGNATURE, envelope(key=STRANGER, header=PADDING + NODE_KEY)),
        (Code.BAD_SIGNATURE, envelope(domain="fallow/1/receipt")),
        (Code.BAD_SIGNATURE, envelope(domain="fallow/2/accept")),
        (Code.BAD_ENCODING, envelope(payload=encode(to_map(ACCEPT)) + b"\0")),
        (Code.BAD_ENCODING, envelope(payload=b"")),
        (Code.BAD_RECORD, envelope(payload=encode([]))),
        (Code.BAD_RECORD, envelope(payload=encode({**to_map(ACCEPT), "more": 1}))),
    ],
)
def test_what_is_wrong_with_an_envelope_has_its_code(code: Code, wrong: bytes) -> None:
    refused(code, verify_untrusted, Accept, wrong, signer=NODE_KEY)


@pytest.mark.spec("L-1")
def test_the_largest_record_is_taken() -> None:
    note = Evidence("equivocation", H, (b"x",) * 2, "")
    room = RECORD_BYTES_MAX - len(envelope(note, payload=encode({**to_map(note), "opt_more": b""}))) - 8
    whole = envelope(note, payload=encode({**to_map(note), "opt_more": bytes(room)}))
    assert RECORD_BYTES_MAX - 8 < len(whole) <= RECORD_BYTES_MAX
    assert verify_untrusted(Evidence, whole, signer=NODE_KEY).record == note


def mandate(key: SigningKey = OWNER, **changes: Any) -> Signed[Mandate]:
    record = Mandate(NODE_KEY, OWNER_KEY, (EXECUTOR,), 3, NOW_MS, NOW_MS + 1000, None)
    return sign(replace(record, **changes), key)


def issuer(key: SigningKey = OWNER, **changes: Any) -> bytes:
    return sign(replace(Issuer(OWNER_KEY, AGENT_KEY, 1, NOW_MS, NOW_MS + 5000), **changes), key).envelope


@pytest.mark.spec("I-11")
@pytest.mark.parametrize(
    "record",
    [
        Issuer(OWNER_KEY, AGENT_KEY, 1, NOW_MS, NOW_MS + 1),
        mandate().record,
        CapabilityProfile(
            OWNER_KEY, H, 1, NOW_MS, NOW_MS + 1, None, "", (EXECUTOR,), (),
            (ServedBundle(H, ("call",), "class", 0, 0, 0),), (Price(H, "call", 1, 1, 1, 0),), 4, 0, 0, (),
        ),
        ConnectivityProfile(OWNER_KEY, 1, NOW_MS, NOW_MS + 1, (), (), None, 0, None, None, None, None, None, None),
        WorkerKey(OWNER_KEY, H, NOW_MS, NOW_MS + 1),
        Channel(OWNER_KEY, NODE_KEY, STRANGER_KEY, LEDGER, 1, b"n" * 16, NOW_MS, NOW_MS + 1, 0),
        FeederLease(H, OWNER_KEY, NODE_KEY, 1, NOW_MS, NOW_MS + 1, b"n" * 16),
    ],
    ids=lambda record: str(record.RECORD),
)  # fmt: skip
def test_a_record_that_names_its_author_is_nobody_elses(record: Any) -> None:
    assert identify_untrusted(sign(record, OWNER).envelope).record == record
    for other in (NODE, AGENT, STRANGER):  # also of those whom it names beside
        refused(Code.BAD_SIGNATURE, identify_untrusted, sign(record, other).envelope)


@pytest.mark.spec("I-15", "I-16", "N-10")
@pytest.mark.parametrize(
    ("code", "given", "now_ms"),
    [
        (Code.BAD_MANDATE, mandate(node=STRANGER_KEY), NOW_MS),
        (Code.BAD_MANDATE, mandate(roles=("checker",)), NOW_MS),
        (Code.BAD_MANDATE, mandate(STRANGER), NOW_MS),
        (Code.BAD_MANDATE, mandate(NODE), NOW_MS),
        (Code.EXPIRED, mandate(), NOW_MS - SKEW_MS - 1),
        (Code.EXPIRED, mandate(), NOW_MS + 1000 + SKEW_MS + 1),
    ],
)
def test_a_mandate_lets_one_node_act_in_its_roles_for_a_time(code: Code, given: Signed[Mandate], now_ms: int) -> None:
    check_mandate(mandate(), NODE_KEY, EXECUTOR, now_ms=NOW_MS)
    refused(code, check_mandate, given, NODE_KEY, EXECUTOR, now_ms)


@pytest.mark.spec("I-17")
@pytest.mark.parametrize(
    ("code", "given"),
    [
        (Code.BAD_SIGNATURE, mandate(AGENT, issuer=issuer(AGENT))),
        (Code.BAD_SIGNATURE, mandate(AGENT, issuer=issuer(STRANGER, owner=STRANGER_KEY))),
        (Code.BAD_MANDATE, mandate(AGENT, issuer=issuer(owner=STRANGER_KEY))),
        (Code.BAD_MANDATE, mandate(STRANGER, issuer=issuer())),
        (Code.BAD_MANDATE, mandate(OWNER, issuer=issuer())),
        (Code.EXPIRED, mandate(AGENT, issuer=issuer(not_before_ms=1000, expires_ms=2000))),
    ],
    ids=["signed by itself", "signed by a stranger", "of another owner", "for another key", "owner by issuer", "over"],
)
def test_an_issuer_signs_for_the_owner_who_named_it(code: Code, given: Signed[Mandate]) -> None:
    check_mandate(mandate(AGENT, issuer=issuer()), NODE_KEY, EXECUTOR, NOW_MS)
    refused(code, check_mandate, given, NODE_KEY, EXECUTOR, NOW_MS)


@pytest.mark.spec("I-18")
@pytest.mark.parametrize("record", [mandate().record, Issuer(OWNER_KEY, AGENT_KEY, 3, NOW_MS, NOW_MS + 1)])
def test_a_higher_epoch_voids_lower_ones(record: Mandate | Issuer) -> None:
    for seen in (0, 3):
        check_epoch(record, seen)
    refused(Code.BAD_MANDATE, check_epoch, record, 4)


@pytest.mark.spec("I-14", "I-19", "N-6", "N-7", "L-2", "L-3")
@pytest.mark.parametrize(
    ("longest_ms", "make"),
    [
        (MANDATE_MS_MAX, lambda end: Mandate(NODE_KEY, OWNER_KEY, ("x",), 1, 1000, end, None)),
        (ISSUER_MS_MAX, lambda end: Issuer(OWNER_KEY, AGENT_KEY, 1, 1000, end)),
        (WORKER_KEY_MS_MAX, lambda end: WorkerKey(NODE_KEY, H, 1000, end)),
    ],
    ids=["mandate", "issuer", "worker key"],
)
def test_what_is_signed_for_a_time_ends_in_time(longest_ms: int, make: Any) -> None:
    good = make(1000 + longest_ms)
    assert verify_untrusted(type(good), sign(good, OWNER).envelope, signer=OWNER_KEY).record == good
    for end in (1000 + longest_ms + 1, 1000, 999):
        with pytest.raises((ValueError, LocalProtocolError)):
            sign(make(end), OWNER)
        wrong = encode({**to_map(good), "expires_ms": end})
        refused(Code.BAD_RECORD, verify_untrusted, type(good), envelope(good, OWNER, payload=wrong), signer=OWNER_KEY)

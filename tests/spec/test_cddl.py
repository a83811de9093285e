"""`spec/fallow.cddl` accepts and refuses what the code does, in the eyes of two readers of CDDL that know nothing of it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cbor2
import nacl.bindings
import pycddl
import pytest
from cddl_verifier import Validator

from fallow.protocol.codec import Value, encode
from fallow.protocol.envelope import sign
from fallow.protocol.errors import RemoteProtocolError
from fallow.protocol.messages.assurance import (
    DecidedReply,
    DecidedRequest,
    DecisionReply,
    DisputeRequest,
    DisputesReply,
    DisputesRequest,
    EvidenceMessage,
    NotedMessage,
    PleaReply,
    VerdictReply,
    VerdictRequest,
)
from fallow.protocol.messages.discovery import (
    BlobReply,
    BlobRequest,
    Probe,
    ProbeReply,
    ProfileReply,
    ProfileRequest,
    RateReply,
    RateRequest,
)
from fallow.protocol.messages.grid import FeederReply, FeederRequest, ShedExchange
from fallow.protocol.messages.jobs import (
    AcceptMessage,
    AttestationMessage,
    CancelMessage,
    ChunkMessage,
    DeclineMessage,
    FailedMessage,
    HeartbeatMessage,
    OrderMessage,
    ReceiptMessage,
    VoucherMessage,
    YieldMessage,
)
from fallow.protocol.messages.payment import (
    GroundReply,
    GroundRequest,
    MeansReply,
    MeansRequest,
    RailsReply,
    RailsRequest,
    VoucherReply,
    VoucherRequest,
)
from fallow.protocol.messages.refusals import RefuseMessage
from fallow.protocol.records import RECORDS
from fallow.protocol.schema import from_map_untrusted, to_map
from fallow.protocol.work import Input, Piece, Work
from spec.generate.cddl import kebab, message_kinds, message_rule

ROOT = Path(__file__).parent.parent.parent
CDDL = (ROOT / "spec/fallow.cddl").read_text("utf-8")

_spec = importlib.util.spec_from_file_location("fallow_test_records", ROOT / "tests/protocol/records.py")
assert _spec and _spec.loader
examples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(examples)

E = b"\xd2\x84"
MESSAGES = (
    OrderMessage(E, E, E, b"sealed"), AcceptMessage(E), RefuseMessage("busy", "later", 500), ChunkMessage(1, b"sealed"),
    ReceiptMessage(E), AttestationMessage(E), VoucherMessage(E), HeartbeatMessage(), CancelMessage("enough"),
    DeclineMessage("false"), YieldMessage("home"), FailedMessage("worker_died", "gone"), ProfileRequest(),
    ProfileReply(E, E, E, E, "ready", ("warm",), 1), VoucherRequest(E, E), VoucherReply(bytes(32)), BlobRequest(bytes(32)),
    BlobReply(b"content", (bytes(32),)), Probe(bytes(16), E), ProbeReply(bytes(16)), RateRequest(bytes(16), b"up", 2),
    RateReply(bytes(32), b"down"), VerdictRequest(bytes(32), b"proof"), VerdictReply(E, E),
    GroundRequest(E, E, E, 7, (E,), (E,)), GroundReply(bytes(32), 7),
    ShedExchange(bytes(32), (bytes(32),), (E,)),
    FeederRequest((bytes(32),), bytes(32), 7), FeederReply((E,), (E,)),
    DisputeRequest(E, E, b"proof", ("/ip4/192.0.2.1/tcp/4001",), E), PleaReply(E), DecisionReply(E, E, E),
    DisputesRequest(bytes(32)), DisputesReply((E,)), DecidedRequest(E, E, E, E, 7, (E,), (E,)), DecidedReply(bytes(32), 7),
    EvidenceMessage(E), NotedMessage(bytes(32)), RailsRequest(),
    RailsReply(("ledger",), ("where",)), MeansRequest(b"means"), MeansReply(bytes(32), 7),
)  # fmt: skip
PLAINTEXTS = (
    Work(((1, 2, 3), (4,)), 1),
    Input(bytes(32), bytes(32), b"work"),
    Piece((1,), (-5,), (6,), (7,), b"\x00\x00\x80\x3f", (1, 1)),
)


def cases() -> Iterator[Any]:
    """Every record, message and plaintext: its rule, its class and its map."""
    for record in examples.RECORDS:
        yield pytest.param(record.RECORD, type(record), to_map(record), id=record.RECORD)
    for message in MESSAGES:
        rule = message_rule(type(message))
        yield pytest.param(rule, type(message), {"t": message.KIND, **to_map(message)}, id=rule)
    for plaintext in PLAINTEXTS:
        rule = kebab(type(plaintext).__name__)
        yield pytest.param(rule, type(plaintext), to_map(plaintext), id=rule)


EACH = pytest.mark.parametrize(("rule", "kind", "fields"), tuple(cases()))


def by_cddl_verifier(rule: str, value: object) -> bool:
    return _verifier().validate(cbor2.dumps(value, canonical=True), rule, require_deterministic=True).valid


def by_pycddl(rule: str, value: object) -> bool:
    try:
        _pycddl(rule).validate_cbor(cbor2.dumps(value, canonical=True))
    except pycddl.ValidationError:
        return False
    return True


@cache
def _verifier() -> Validator:
    return Validator(CDDL)


@cache
def _pycddl(rule: str) -> pycddl.Schema:
    """The file in words that pycddl takes: without patterns for keys and ranges that begin below zero, and with quotes
    around keys, which it confuses with rules of the same name."""
    text = CDDL.replace("  * opt => value,\n", "")
    text = re.sub(r"^  (\? )?(\w+): ", r'  \1"\2": ', text, flags=re.MULTILINE)
    text = re.sub(r"-(\d+)\.\.(\d+)", r"(int .ge -\1) .and (int .le \2)", text)
    return pycddl.Schema(f"start = {rule}\n{text}")


READERS = pytest.mark.parametrize("accepts", [by_cddl_verifier, by_pycddl])
Accepts = Callable[[str, object], bool]


def read(kind: type, fields: dict[str, Value]) -> bool:
    """Whether our own reader takes the map."""
    try:
        from_map_untrusted(kind, {name: value for name, value in fields.items() if name != "t"})
    except RemoteProtocolError:
        return False
    return True


def test_there_is_an_example_of_everything() -> None:
    assert {record.RECORD for record in examples.RECORDS} == set(RECORDS)
    assert {type(message) for message in MESSAGES} == set(message_kinds())


@READERS
@EACH
def test_the_cddl_accepts_what_we_encode(accepts: Accepts, rule: str, kind: type, fields: dict[str, Value]) -> None:
    assert read(kind, fields)
    assert accepts(rule, fields)


@READERS
@EACH
def test_the_cddl_refuses_fields_missing_unknown_or_null(
    accepts: Accepts, rule: str, kind: type, fields: dict[str, Value]
) -> None:
    assert not accepts(rule, {**fields, "unheard_of": 1})
    for name in fields:
        without = {key: value for key, value in fields.items() if key != name}
        assert accepts(rule, without) == (name != "t" and read(kind, without))
        assert not accepts(rule, {**fields, name: None})


@EACH
def test_the_cddl_passes_over_fields_of_later_versions(rule: str, kind: type, fields: dict[str, Value]) -> None:
    for later in (1, "text", b"bytes", [None, {"deep": [True, -(2**63)]}]):
        assert by_cddl_verifier(rule, {**fields, "opt_later": later}) and read(kind, {**fields, "opt_later": later})
    assert not by_cddl_verifier(rule, {**fields, "not_opt_later": 1})
    assert not by_cddl_verifier(rule, {**fields, "opt_later": 2**63})


PROBES: tuple[Value, ...] = (
    -(2**40) - 1, -(2**40), -1, 0, 1, 99, 1_000_001, 2**53, 2**53 + 1, 2**63 - 1, 2**63, True, b"", bytes(16), bytes(31),
    bytes(32), bytes(33), bytes(64), bytes(513), "", "x" * 64, "x" * 65, "é" * 32, "é" * 33, "x" * 1025, [], ["x"], [0],
    [-(2**40) - 1], [2**31], [bytes(32)], [bytes(31)], [0] * 9, ["x"] * 9, [[1]], [[-1]], {}, {"a": 1},
)  # fmt: skip
"""Values of every type at the bounds that fields have."""


@EACH
def test_the_cddl_draws_the_same_bounds_as_the_code(rule: str, kind: type, fields: dict[str, Value]) -> None:
    """The code may refuse more, for a rule that joins several fields; never less."""
    for name in fields.keys() - {"t"}:
        for probe in PROBES:
            said, ours = by_cddl_verifier(rule, {**fields, name: probe}), read(kind, {**fields, name: probe})
            assert said >= ours, (name, probe)
            assert said == ours or hasattr(kind, "__post_init__"), (name, probe)


@EACH
def test_the_cddl_is_as_strict_within_structures(rule: str, kind: type, fields: dict[str, Value]) -> None:
    for name, value in fields.items():
        inner = value[0] if isinstance(value, list) and value else value
        if not isinstance(inner, dict):
            continue
        first = next(iter(inner))
        for changed in ({**inner, "unheard_of": 1}, {**inner, first: None}, {**inner, first: [{}]}):
            whole: dict[str, Value] = {**fields, name: [changed] if isinstance(value, list) else changed}
            assert not by_cddl_verifier(rule, whole) and not read(kind, whole)


@pytest.mark.parametrize("record", examples.RECORDS, ids=lambda record: record.RECORD)
def test_the_cddl_describes_the_envelope_and_what_is_signed(record: Any) -> None:
    envelope = sign(record, examples.KEY).envelope
    tag = cbor2.loads(envelope)
    protected, _, payload, signature = tag.value
    signed: list[Value] = ["Signature1", protected, f"fallow/1/{record.RECORD}".encode(), payload]
    assert nacl.bindings.crypto_sign_open(signature + encode(signed), examples.A)
    assert by_cddl_verifier("signed-record", tag) and by_cddl_verifier("fallow", tag)
    assert by_cddl_verifier("sig-structure", signed)


@pytest.mark.parametrize(
    ("place", "part"),
    [
        pytest.param(0, cbor2.dumps({1: -8, 4: examples.A}), id="another algorithm"),
        pytest.param(0, cbor2.dumps({1: -19}), id="no key"),
        pytest.param(0, cbor2.dumps({1: -19, 4: examples.A, 5: 1}), id="another header"),
        pytest.param(1, {4: examples.A}, id="an unprotected header"),
        pytest.param(2, cbor2.dumps({"node": examples.A}), id="no record"),
        pytest.param(3, bytes(63), id="a short signature"),
    ],
)
def test_the_cddl_refuses_other_envelopes(place: int, part: Any) -> None:
    tag = cbor2.loads(sign(examples.RECORDS[0], examples.KEY).envelope)
    parts = [*tag.value]
    parts[place] = part
    assert not by_cddl_verifier("signed-record", cbor2.CBORTag(18, parts))
    assert not by_cddl_verifier("signed-record", cbor2.CBORTag(17, tag.value))
    assert not by_cddl_verifier("signed-record", tag.value)


def test_the_cddl_describes_what_is_published() -> None:
    assert by_cddl_verifier("published", [E, E])
    assert not by_cddl_verifier("published", [E])


def test_every_line_of_the_cddl_is_in_the_subset_that_its_head_states() -> None:
    kind = (
        r"(bool|bstr|[a-z][a-z0-9-]*|[bt]str \.size (\d+|\(\d+\.\.\d+\))|bstr \.cbor [a-z-]+|-?\d+\.\.\d+|\"[\w-]+\"|-19|\{\}"
        r"|\[\d+\*\d+ [^\[\]]+\])"
    )
    line = re.compile(
        rf"(;.*|[a-z][a-z0-9-]* = ({kind}( / {kind})*|\{{|\[|#6\.18\(\[)|  (\? )?[a-z0-9_-]+: {kind},|  \* opt => value,|"
        r"\}|\]|\]\)|)"
    )
    rest = [each for each in CDDL.splitlines() if not line.fullmatch(each)]
    assert [each.split(" = ")[0] for each in rest] == ["opt", "value"]

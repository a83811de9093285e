"""`fallow verify`: offline, it says what a record is and who signed it, or why it is not valid."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.protocol.checks import Attestation, Finding, Verdict
from fallow.protocol.codec import encode
from fallow.protocol.disputes import Decision, Dispute, Hearing, Plea
from fallow.protocol.envelope import Record, Signed, sign
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.evidence import Evidence
from fallow.protocol.grid import FeederLease, FeederMember, FeederRoster, ShedOrder
from fallow.protocol.identity import Issuer, Mandate, WorkerKey, peer_id
from fallow.protocol.limits import MANIFEST_BYTES_MAX
from fallow.protocol.orders import Accept, JobOrder
from fallow.protocol.payment import Channel, Voucher
from fallow.protocol.prices import Price
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile
from fallow.protocol.receipts import Receipt
from fallow.protocol.records import RECORDS, contradiction, identify_untrusted
from fallow.protocol.witness import Witness
from fallow.protocol.work import Parameters

NODE, OWNER, CLIENT = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
HASH = bytes(range(32))


def key(signing: SigningKey) -> bytes:
    return bytes(signing.verify_key)


ORDER = sign(
    JobOrder(
        bundle=HASH, entry="generate", parameters=Parameters(max_tokens=48), calls=1, input_tokens=12,
        planned_tokens=48, input_digest=HASH, executor=key(NODE), worker_key=HASH,
        price=Price(HASH, "generate", 0, 1, 4, 0), channel=HASH,
        amount_ucr_max=1000, created_ms=1_800_000_000_000, nonce=bytes(16), first_chunk_ms_max=2000, gap_ms_max=2000,
        check_commitment=HASH, held_ppm=0, hold_ms=0, candidates=(), continues=None, checks=None,
    ),
    CLIENT,
)  # fmt: skip
CHANNEL = sign(Channel(key(CLIENT), key(NODE), key(OWNER), "ledger", 10**6, bytes(16), 1, 2, 3), CLIENT)


def receipt(signer: SigningKey = NODE) -> Signed[Receipt]:
    return sign(Receipt(ORDER.id, 0, None, 0, 3, HASH, (-5, -6, -7), "cpu", 24, "final"), signer)


OTHER_RECEIPT = sign(replace(receipt().record, amount_ucr=25), NODE)

SAMPLES: tuple[tuple[Record, SigningKey], ...] = (
    (Mandate(key(NODE), key(OWNER), ("executor",), 1, 0, 1000, None), OWNER),
    (WorkerKey(key(NODE), HASH, 0, 1000), NODE),
    (CapabilityProfile(key(NODE), HASH, 1, 0, 9, "vehicle", "u0", ("executor",), ("cpu",), (), (), 4, 0, 0, ()), NODE),
    (ConnectivityProfile(key(NODE), 1, 0, 9, (), (), None, 0, None, None, None, None, None, None), NODE),
    (CHANNEL.record, CLIENT),
    (ORDER.record, CLIENT),
    (Accept(ORDER.id, HASH, 7, "cpu"), NODE),
    (receipt().record, NODE),
    (Voucher(CHANNEL.id, HASH, 24, (), 0), CLIENT),
    (Attestation(HASH, HASH, "teacher-forced", (-5,), (0,), (0,), "cpu"), NODE),
    (
        Verdict(
            HASH,
            HASH,
            "quorum:2/3",
            HASH,
            (),
            "accepted",
            (Finding(HASH, HASH, "executor", "upheld", "", (), (), 5, 0),),
        ),
        CLIENT,
    ),
    (Issuer(key(OWNER), HASH, 1, 0, 1000), OWNER),
    (ShedOrder("yard", "heat", 1, False, 0, 500, 10, 20, 5, "hot"), OWNER),
    (FeederRoster("t-17", 1, 9, (FeederMember(HASH, 4),), 0, 10), OWNER),
    (FeederLease(HASH, key(NODE), HASH, 1, 0, 10, bytes(16)), NODE),
    (Evidence("equivocation", key(NODE), (receipt().envelope, OTHER_RECEIPT.envelope), ""), CLIENT),
    (Dispute("wrong", key(NODE), HASH, HASH, 90, 60_000, 1_800_000_000_000, HASH), CLIENT),
    (Plea(HASH, "owns", HASH, HASH, "none"), NODE),
    (Hearing(HASH, ()), CLIENT),
    (Decision(HASH, "upheld", key(NODE), 0, 77, 90, "its figures differ"), OWNER),
    (Witness(key(NODE), key(OWNER), b"mandate", 0, 1000, 24, 20_000, 90_000, 5_000, 0), NODE),
)


def verify(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fallow.cli", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_every_record_of_the_protocol_is_known() -> None:
    assert set(RECORDS) == {record.RECORD for record, _ in SAMPLES} | {"manifest"}


@pytest.mark.spec("I-12")
@pytest.mark.parametrize(("record", "signer"), SAMPLES, ids=lambda value: getattr(value, "RECORD", ""))
def test_each_record_is_identified_with_its_signer(record: Record, signer: SigningKey) -> None:
    found = identify_untrusted(sign(record, signer).envelope)
    assert (found.record, found.signer) == (record, key(signer))


@pytest.mark.spec("I-11")
@pytest.mark.parametrize("record", [record for record, _ in SAMPLES[:5]], ids=lambda record: str(record.RECORD))
def test_a_record_that_says_whose_it_is_must_be_theirs(record: Record) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        identify_untrusted(sign(record, SigningKey(bytes([9]) * 32)).envelope)
    assert raised.value.code is Code.BAD_SIGNATURE


@given(st.integers(0, len(receipt().envelope) * 8 - 1))
def test_no_flipped_bit_goes_unnoticed(bit: int) -> None:
    envelope = bytearray(receipt().envelope)
    envelope[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError):
        identify_untrusted(bytes(envelope))


@pytest.mark.spec("I-12")
@given(st.binary(max_size=200))
def test_anything_else_is_no_record(envelope: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        identify_untrusted(envelope)


@pytest.mark.spec("I-12")
def test_a_signature_of_another_protocol_is_no_record() -> None:
    class Foreign(Receipt):
        RECORD = "some-other-protocol's-receipt"

    record = receipt().record
    envelope = sign(Foreign(*(getattr(record, field.name) for field in fields(record))), NODE).envelope
    with pytest.raises(RemoteProtocolError, match="does not hold for any record"):
        identify_untrusted(envelope)


def test_a_receipt_for_another_nodes_order_is_contradicted_by_the_order() -> None:
    known = {ORDER.id: identify_untrusted(ORDER.envelope)}
    assert contradiction(identify_untrusted(receipt().envelope), known) is None
    assert contradiction(identify_untrusted(receipt(OWNER).envelope), known) is not None
    assert contradiction(identify_untrusted(receipt(OWNER).envelope), {}) is None


def test_a_folder_of_records_is_explained(tmp_path: Path) -> None:
    for number, (record, signer) in enumerate(SAMPLES):
        (tmp_path / f"{number:02d}-{record.RECORD}.cose").write_bytes(sign(record, signer).envelope)
    ran = verify(tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    for record, signer in SAMPLES:
        assert f"{record.RECORD}.cose: {record.RECORD}" in ran.stdout
        assert peer_id(key(signer)) in ran.stdout


def test_the_json_says_it_all(tmp_path: Path) -> None:
    (tmp_path / "receipt.cose").write_bytes(receipt().envelope)
    ran = verify("--json", tmp_path)
    (one,) = json.loads(ran.stdout)["files"]
    assert (ran.returncode, one["valid"], one["record"]) == (0, True, "receipt")
    assert one["signer"] == {"peer_id": peer_id(key(NODE)), "key": key(NODE).hex()}
    assert (one["id"], one["fields"]["order"]) == (receipt().id.hex(), ORDER.id.hex())
    assert one["fields"]["values_micro"] == [-5, -6, -7]


BROKEN = {
    "flipped": (bytes([*receipt().envelope[:-1], receipt().envelope[-1] ^ 1]), Code.BAD_SIGNATURE),
    "truncated": (receipt().envelope[:-10], Code.BAD_ENCODING),
    "lengthened": (receipt().envelope + b"\0", Code.BAD_ENCODING),
    "empty": (b"", Code.BAD_ENCODING),
    "text": (b"hello", Code.BAD_ENCODING),
    "cbor": (encode({"a": 1}), Code.BAD_ENCODING),
    "huge": (b"\xd2" + bytes(MANIFEST_BYTES_MAX + 1), Code.TOO_LARGE),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_valid_record_fails_with_its_reason(name: str, tmp_path: Path) -> None:
    content, code = BROKEN[name]
    (tmp_path / "good.cose").write_bytes(receipt().envelope)
    (tmp_path / "bad.cose").write_bytes(content)
    ran = verify("--json", tmp_path)
    bad, good = json.loads(ran.stdout)["files"]
    assert ran.returncode == 1
    assert (good["valid"], bad["valid"], bad["error"]["code"]) == (True, False, code)
    assert ran.stderr == ""


def test_evidence_that_proves_nothing_is_not_valid(tmp_path: Path) -> None:
    nothing = Evidence("equivocation", key(NODE), (receipt().envelope, receipt().envelope), "")
    (tmp_path / "evidence.cose").write_bytes(sign(nothing, CLIENT).envelope)
    ran = verify(tmp_path)
    assert ran.returncode == 1
    assert "do not prove the fault" in ran.stdout


def test_a_record_of_a_far_away_time_is_explained(tmp_path: Path) -> None:
    far = sign(replace(CHANNEL.record, expires_ms=2**63 - 1), CLIENT)
    (tmp_path / "far.cose").write_bytes(far.envelope)
    for option in ((), ("--json",)):
        ran = verify(*option, tmp_path)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert str(2**63 - 1) in ran.stdout


def test_a_file_s_name_need_not_be_text(tmp_path: Path) -> None:
    path = tmp_path / "\udcff.cose"
    path.write_bytes(receipt().envelope)
    assert json.loads(verify("--json", tmp_path).stdout)["files"][0]["file"] == str(path)
    assert "valid" in verify(tmp_path).stdout


def test_a_name_that_no_file_can_have_is_said() -> None:
    ran = verify("long" * 100)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: FILE cannot be used: ")


def test_a_missing_file_and_an_empty_folder_are_said(tmp_path: Path) -> None:
    missing = verify(tmp_path / "gone.cose")
    assert missing.returncode == 1
    assert "No such file" in missing.stdout
    empty = verify(tmp_path)
    assert empty.returncode == 1
    assert empty.stderr.startswith("error: ")

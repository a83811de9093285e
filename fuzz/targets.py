"""Everything that takes a stranger's bytes, as functions of one input: what goes in, and what must hold of what comes out.

An input of several arguments is one CBOR list. Nothing but `RemoteProtocolError` may come out; `tests/protocol/test_corpus.py`
compares this registry with the tree and feeds it the corpus.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any, cast

import msgpack
from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from nacl.signing import SigningKey

from fallow.node.engine.messages import FrameBuffer
from fallow.node.engine.messages import encode as encode_engine_message
from fallow.node.network import control, lan, punching, yamux
from fallow.node.network.entries import Sender
from fallow.node.network.identity import id_of
from fallow.node.network.index import Index
from fallow.node.network.kad import peer_untrusted
from fallow.node.network.standing import Fault
from fallow.node.network.table_rules import profile_rules
from fallow.node.rules.readings import Board
from fallow.node.rules.signals import KINDS
from fallow.node.sensors import host, ocpp, rosbridge, scripted, site, viss, vss, websocket
from fallow.node.sensors.config import Rosbridge, Site, Viss
from fallow.node.sensors.feed import Feed, SensorError
from fallow.node.settings import SettingError
from fallow.protocol import disputes, grounds, means, opening, proofs, published, work
from fallow.protocol.codec import decode_untrusted, encode
from fallow.protocol.ed25519 import check_signature_untrusted
from fallow.protocol.envelope import (
    Signed,
    claimed_signer_untrusted,
    sign,
    verify_any_signer_untrusted,
    verify_untrusted,
)
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.evidence import Evidence
from fallow.protocol.framing import Frames, frame
from fallow.protocol.identity import cid, cid_hash_untrusted, peer_id, peer_key_untrusted, salted_digest
from fallow.protocol.messages.assurance import DecidedRequest
from fallow.protocol.messages.codec import MESSAGES, decode_message_untrusted, encode_message
from fallow.protocol.messages.payment import GroundRequest
from fallow.protocol.orders import JobOrder
from fallow.protocol.reading import read_untrusted
from fallow.protocol.receipts import Receipt
from fallow.protocol.records import RECORDS, check_evidence_untrusted, identify_untrusted
from fallow.protocol.schema import from_map_untrusted, to_map
from fallow.protocol.versions import negotiate_untrusted
from fallow.protocol.witness import Witness, check_witness_untrusted, heard_untrusted

KEYS = {bytes(key.verify_key): key for key in (SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32))}
"""Whose signatures the harness can make: those of the examples in tests/protocol/records.py."""

NOW_MS = 1_790_000_000_000
BYTES_MAX = 1 << 20
STRUCTS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *RECORDS.values(),
        *MESSAGES.values(),
        work.Work,
        work.Input,
        work.Piece,
        opening.Opening,
        proofs.ProofFile,
        means.Means,
    )
}
"""Everything that is read by its schema."""


@dataclass(frozen=True, slots=True)
class Target:
    """`run` takes any bytes; it raises `RemoteProtocolError`, or nothing, or a fault was found."""

    covers: tuple[str, ...]
    """The functions that it feeds, as `<module>.<name>`."""
    run: Callable[[bytes], object]


def feed(target: Target, given: bytes) -> None:
    """Returns if the target did with the input what it may."""
    with suppress(RemoteProtocolError):
        target.run(given)


def _arguments(given: bytes, *kinds: type) -> list[Any]:
    """The input as a list of values of these types. Raises `RemoteProtocolError` for an input that is none."""
    value = decode_untrusted(given, bytes_max=BYTES_MAX)
    if not isinstance(value, list) or [type(item) for item in value] != list(kinds):
        raise RemoteProtocolError(Code.BAD_ENCODING, "Not an input.")
    return value


def _codec(given: bytes) -> None:
    assert encode(decode_untrusted(given, bytes_max=BYTES_MAX)) == given


def _reading(given: bytes) -> None:
    """The shortcut and the long way say the same."""
    name, encoded = _arguments(given, str, bytes)
    if (kind := STRUCTS.get(name)) is None:
        return
    outcomes = []
    for read in (_by_shortcut, _by_map):
        try:
            outcomes.append(read(kind, encoded))
        except RemoteProtocolError as error:
            outcomes.append((error.code, error.message))
    assert outcomes[0] == outcomes[1]


def _by_shortcut(kind: type[Any], encoded: bytes) -> object:
    return read_untrusted(kind, encoded, bytes_max=BYTES_MAX)


def _by_map(kind: type[Any], encoded: bytes) -> object:
    return from_map_untrusted(kind, decode_untrusted(encoded, bytes_max=BYTES_MAX))


def _schema(given: bytes) -> None:
    """What is read can be written, and is read again as the same."""
    name, encoded = _arguments(given, str, bytes)
    if kind := STRUCTS.get(name):
        instance = _by_map(kind, encoded)
        assert _by_map(kind, encode(to_map(instance))) == instance


def _envelope(given: bytes) -> None:
    name, envelope, signer = _arguments(given, str, bytes, bytes)
    if kind := RECORDS.get(name):
        signed = verify_any_signer_untrusted(kind, envelope)
        _is_its_own(signed)
        assert verify_untrusted(kind, envelope, signer=signer) == signed


def _identify(given: bytes) -> None:
    _is_its_own(identify_untrusted(given))


def _is_its_own(signed: Signed[Any]) -> None:
    """Signing is deterministic and records have one encoding: unless something was ignored, it is the same envelope."""
    assert claimed_signer_untrusted(signed.envelope) == signed.signer
    if b"opt_" not in signed.envelope and signed.signer in KEYS:
        assert sign(signed.record, KEYS[signed.signer]) == signed


def _message(given: bytes) -> None:
    message = decode_message_untrusted(given)
    again = encode_message(message)
    assert again == given or b"opt_" in given
    assert decode_message_untrusted(again) == message
    if isinstance(message, DecidedRequest):
        with suppress(RemoteProtocolError):  # a message is one, whatever its envelopes are
            disputes.read_decided_untrusted(message)
    if isinstance(message, GroundRequest):
        with suppress(RemoteProtocolError):
            grounds.read_judged_untrusted(message)


def _hearing(given: bytes) -> None:
    """A claimant's own, with a stranger's bytes for the accused's plea: what is read of it is the accused's."""
    accused = next(iter(KEYS))
    dispute = Signed(_bare(disputes.Dispute, accused=accused), b"", DISPUTE)
    hearing = disputes.Hearing(dispute.id, (given,))
    for plea in disputes.pleas_untrusted(Signed(hearing, b"", b"a hearing"), dispute):
        to_map(hearing)  # whatever is taken fits into a hearing
        assert (plea.signer, plea.record.dispute) == (accused, dispute.id)


def _plaintext(decode: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    def run(given: bytes) -> None:
        read = decode(given)
        assert decode(read.encode()) == read

    return run


def _open(given: bytes) -> None:
    """An opening whose digests fit, as its author can always make them: what else is in it is a stranger's."""
    opened = opening.decode_opening_untrusted(given)
    order = Signed(_bare(JobOrder, input_digest=salted_digest(opened.salt, opened.work)), b"", b"an order")
    transcript = work.transcript_start(opened.salt, order.id)
    receipts = []
    for piece in opened.pieces[:-1]:
        transcript = work.transcript_next(transcript, piece)
        receipts.append(Signed(_bare(Receipt, transcript=transcript), b"", b"a receipt"))
    opening.open_untrusted(replace(opened, order=order.id), order, receipts)


DISPUTE = b"a dispute"
"""The envelope of the one that hearings are of."""


def _bare(kind: type[Any], **values: Any) -> Any:
    """A record of which only these fields are ever looked at."""
    instance = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(instance, name, value)
    return instance


def _evidence(given: bytes) -> None:
    check_evidence_untrusted(read_untrusted(Evidence, given, bytes_max=BYTES_MAX))


def _published(given: bytes) -> None:
    key, value, now_ms = _arguments(given, str, bytes, int)
    published.check_published_untrusted(key, value, now_ms)


def _witness(given: bytes) -> None:
    """A statement, alone and among others, about the node that it is about."""
    signed = verify_any_signer_untrusted(Witness, given)
    heard = heard_untrusted([given, b"", given], signed.record.subject, bytes(32), NOW_MS)
    assert heard == (check_witness_untrusted(given, signed.record.subject, NOW_MS).statement,)


def _profiles(given: bytes) -> None:
    assert published.decode_profiles_untrusted(given, NOW_MS).encode() == given


def _peer_id(given: bytes) -> None:
    text = given.decode(errors="replace")
    assert peer_id(peer_key_untrusted(text)) == text


def _cid(given: bytes) -> None:
    text = given.decode(errors="replace")
    assert cid(cid_hash_untrusted(text)) == text


def _signature(given: bytes) -> None:
    signature, message, key = _arguments(given, bytes, bytes, bytes)
    check_signature_untrusted(signature, message, key, "input")


def _versions(given: bytes) -> None:
    service, ours, theirs = _arguments(given, str, list, list)
    names = [name for name in theirs if isinstance(name, str)]
    agreed = negotiate_untrusted(service, [name for name in ours if isinstance(name, str)], names)
    assert agreed in names and agreed in ours


def _in_reads(given: bytes) -> list[bytes]:
    """The input cut in pieces as its first byte says."""
    size = given[0] + 1 if given else 1
    return [given[start : start + size] for start in range(1, len(given), size)]


def _framing(given: bytes) -> None:
    frames = Frames()
    bodies: list[bytes] = []
    with suppress(RemoteProtocolError):
        for read in _in_reads(given):
            bodies += frames.feed_untrusted(read)
    assert given[1:].startswith(b"".join(map(frame, bodies)))


def _yamux(given: bytes) -> None:
    frames: list[yamux.Frame] = []
    reader = yamux.Frames(lambda stream: yamux.WINDOW_BYTES)
    with suppress(RemoteProtocolError):
        for read in _in_reads(given):
            frames += reader.feed_untrusted(read)
    assert given[1:].startswith(b"".join(yamux.encode(yamux.Kind(each.kind), *each[1:]) for each in frames))


def _control(given: bytes) -> None:
    assert control.encode(control.decode_untrusted(given)) == given


def _punching(given: bytes) -> None:
    """What two peers behind routers tell each other of their addresses."""
    with suppress(DecodeError):
        punching._addresses_untrusted(HolePunch.FromString(given))


def _lan(given: bytes) -> None:
    """The texts of a neighbour's announcement."""
    texts = _arguments(given, bytes, bytes)
    for address in lan.addresses_untrusted({b"dnsaddr%d" % number: text for number, text in enumerate(texts)}):
        assert address.encode() in texts


def _table(given: bytes) -> None:
    """What an index node is asked and told: nothing that breaks a rule changes what it holds."""
    own, other = (id_of(key).to_bytes() for key in KEYS)
    index, sender = Index(own, profile_rules(lambda: NOW_MS), Random(0)), Sender(other, "192.0.2.0/24")
    peer_untrusted(given)
    assert peer_untrusted(other) is not None
    try:
        question = Message.FromString(given)
    except DecodeError:
        return
    answer = index.answer_untrusted(question, sender, 0.0)
    if isinstance(answer, Fault):
        assert not len(index.values) and not index.providers.named(question.key, 0.0)
    else:
        assert (answer.type, answer.key) == (question.type, question.key if question.type != Message.PING else b"")


def _engine(given: bytes) -> None:
    buffer = FrameBuffer()
    for read in _in_reads(given):
        _all_again(buffer, read)


def _engine_fields(given: bytes) -> None:
    """The same, of inputs that are CBOR, so that what changes them knows their structure."""
    body = msgpack.packb(decode_untrusted(given, bytes_max=BYTES_MAX))
    _all_again(FrameBuffer(), len(body).to_bytes(4, "big") + body)


def _all_again(buffer: FrameBuffer, read: bytes) -> None:
    for message in buffer.feed_untrusted(read):
        assert list(FrameBuffer().feed_untrusted(encode_engine_message(message))) == [message]


def _read_by(read: Callable[[Feed], object]) -> None:
    """Whatever a sensor sends, what then counts can be true, and its faults are in words."""
    board = Board()
    board.expect("sensor", ())
    with suppress(SensorError):
        read(Feed("sensor", board, lambda: None, 5_000, lambda: NOW_MS))
    for (_, signal), reading in board.readings.items():
        assert (("sensor", signal) in board.faults) or not KINDS[signal].refuse(reading.value)
    for signal in KINDS:
        known = board.known(signal, NOW_MS)
        assert known.why or known.values


def _viss(given: bytes) -> None:
    """What a vehicle answers, or tells by itself."""

    def read(feed: Feed) -> None:
        vehicle = viss._Vehicle(cast(Any, None), Viss("sensor", "", signal_age_s=0), feed)
        vehicle.aliases = {alias.path: (signal, alias) for signal, alias in vss.table(6, {}).items()}
        vehicle._take_untrusted(websocket.parsed_untrusted(given))

    _read_by(read)


def _rosbridge(given: bytes) -> None:
    config = Rosbridge("sensor", "", dock_topic="/dock")
    for each in (config, replace(config, dock_topic="")):
        _read_by(lambda feed, each=each: rosbridge._take_untrusted(websocket.parsed_untrusted(given), each, feed))  # type: ignore[misc]


def _ocpp(given: bytes) -> None:
    """What a station and its management system say to each other: every call has its answer, and what counts is in watts."""
    station = ocpp.Station()
    with suppress(SensorError):
        for message in given.split(b"\n"):
            station.answer_untrusted(message, NOW_MS / 1000)
    assert len(station.limits) <= ocpp.PROFILES_MAX and len(station.outlets) <= ocpp.OUTLETS_MAX
    _read_by(lambda feed: feed.take(station.signals(NOW_MS / 1000 + 60).items()))


def _site(given: bytes) -> None:
    """A page by HTTP, and a file."""
    config = Site("sensor", "")

    def page(feed: Feed) -> None:
        answer = site._Answer()
        answer.asked("site", "/", "")
        for read in _in_reads(given):
            if (found := answer.feed_untrusted(read)) is not None:
                return site._take_untrusted(websocket.parsed_untrusted(found), config, feed)

    _read_by(page)
    _read_by(lambda feed: site._take_untrusted(site._table_untrusted(given), config, feed))


def _upower(given: bytes) -> None:
    """The properties that have changed; JSON has lists where the bus has structures."""
    _read_by(lambda feed: host._take_untrusted(websocket.parsed_untrusted(given), feed))


def _day(given: bytes) -> None:
    """A day from a file: what is taken for one has a value for each of its signals at any time, and one that can be."""
    with suppress(SettingError, UnicodeDecodeError):
        day = scripted.day_untrusted(given.decode())
        for hour in range(25):
            found = day.at(hour * 3_600_000 % 86_400_000)
            assert found.keys() == day.signals and not any(
                KINDS[signal].refuse(value) for signal, value in found.items()
            )


TARGETS: dict[str, Target] = {
    "codec": Target(("protocol.codec.decode_untrusted",), _codec),
    "reading": Target(("protocol.reading.read_untrusted",), _reading),
    "schema": Target(("protocol.schema.from_map_untrusted",), _schema),
    "envelope": Target(
        (
            "protocol.envelope.verify_untrusted",
            "protocol.envelope.verify_any_signer_untrusted",
            "protocol.envelope._payload_untrusted",
        ),
        _envelope,
    ),
    "signer": Target(("protocol.envelope.claimed_signer_untrusted",), claimed_signer_untrusted),
    "identify": Target(("protocol.records.identify_untrusted",), _identify),
    "hearing": Target(("protocol.disputes.pleas_untrusted", "protocol.disputes.plea_untrusted"), _hearing),
    "message": Target(
        (
            "protocol.messages.codec.decode_message_untrusted",
            "protocol.reading.read_tagged_untrusted",
            "protocol.disputes.read_decided_untrusted",
            "protocol.grounds.read_judged_untrusted",
        ),
        _message,
    ),
    "work": Target(("protocol.work.decode_work_untrusted",), _plaintext(work.decode_work_untrusted)),
    "input": Target(("protocol.work.decode_input_untrusted",), _plaintext(work.decode_input_untrusted)),
    "piece": Target(("protocol.work.decode_piece_untrusted",), _plaintext(work.decode_piece_untrusted)),
    "opening": Target(("protocol.opening.decode_opening_untrusted",), _plaintext(opening.decode_opening_untrusted)),
    "proof": Target(("protocol.proofs.decode_proof_untrusted",), _plaintext(proofs.decode_proof_untrusted)),
    "means": Target(("protocol.means.decode_means_untrusted",), _plaintext(means.decode_means_untrusted)),
    "open": Target(("protocol.opening.asked_untrusted", "protocol.opening.open_untrusted"), _open),
    "evidence": Target(("protocol.records.check_evidence_untrusted",), _evidence),
    "witness": Target(("protocol.witness.check_witness_untrusted", "protocol.witness.heard_untrusted"), _witness),
    "profiles": Target(("protocol.published.decode_profiles_untrusted",), _profiles),
    "published": Target(("protocol.published.check_published_untrusted",), _published),
    "peer-id": Target(("protocol.identity.peer_key_untrusted",), _peer_id),
    "cid": Target(("protocol.identity.cid_hash_untrusted",), _cid),
    "signature": Target(("protocol.ed25519.check_signature_untrusted",), _signature),
    "versions": Target(("protocol.versions.negotiate_untrusted",), _versions),
    "framing": Target(("protocol.framing.Frames.feed_untrusted",), _framing),
    "yamux": Target(("node.network.yamux.Frames.feed_untrusted",), _yamux),
    "control": Target(
        (
            "node.network.control.decode_untrusted",
            "node.network.control._ask_untrusted",
            "node.network.control._part_untrusted",
        ),
        _control,
    ),
    "table": Target(
        (
            "node.network.index.Index.answer_untrusted",
            "node.network.index.Index._put_untrusted",
            "node.network.index.Index._provide_untrusted",
            "node.network.kad.peer_untrusted",
        ),
        _table,
    ),
    "punching": Target(("node.network.punching._addresses_untrusted",), _punching),
    "lan": Target(("node.network.lan.addresses_untrusted",), _lan),
    "viss": Target(("node.sensors.viss._Vehicle._take_untrusted", "node.sensors.websocket.parsed_untrusted"), _viss),
    "rosbridge": Target(("node.sensors.rosbridge._take_untrusted",), _rosbridge),
    "ocpp": Target(("node.sensors.ocpp.Station.answer_untrusted",), _ocpp),
    "site": Target(
        (
            "node.sensors.site._take_untrusted",
            "node.sensors.site._table_untrusted",
            "node.sensors.site._Answer.feed_untrusted",
        ),
        _site,
    ),
    "upower": Target(("node.sensors.host._take_untrusted",), _upower),
    "day": Target(("node.sensors.scripted.day_untrusted",), _day),
    "engine": Target(
        ("node.engine.messages.FrameBuffer.feed_untrusted", "node.engine.messages._decode_untrusted"), _engine
    ),
    "engine-fields": Target(("node.engine.messages._decode_untrusted",), _engine_fields),
}

"""Where fuzzing starts: a valid input of every target, for every record, message and plaintext."""

from __future__ import annotations

import importlib.util
import json
import types
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgpack
from libp2p.kad_dht.pb.kademlia_pb2 import Message, Record
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from multiaddr import Multiaddr
from targets import DISPUTE, KEYS, NOW_MS, STRUCTS

from fallow.node.engine import messages as engine
from fallow.node.network import control, yamux
from fallow.node.network.identity import id_of
from fallow.protocol.codec import Value, encode
from fallow.protocol.disputes import Plea
from fallow.protocol.envelope import sign
from fallow.protocol.evidence import Evidence, Fault
from fallow.protocol.framing import frame
from fallow.protocol.identity import Issuer, Mandate, cid, content_hash, peer_id
from fallow.protocol.means import Means
from fallow.protocol.messages.codec import MESSAGES, encode_message
from fallow.protocol.names import profile_key
from fallow.protocol.opening import Opening
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile
from fallow.protocol.proofs import ProofFile
from fallow.protocol.published import Profiles
from fallow.protocol.receipts import Receipt
from fallow.protocol.schema import to_map
from fallow.protocol.witness import Witness
from fallow.protocol.work import Input, Piece, Work

FIRST, SECOND = KEYS


def seeds() -> dict[str, list[bytes]]:
    """Inputs by target."""
    records = _examples()
    envelopes = {record.RECORD: sign(record, KEYS[FIRST]).envelope for record in records}
    structs: dict[str, Value] = {type(record).__name__: to_map(record) for record in records}
    structs |= {kind.__name__: to_map(_sample(kind)) for kind in MESSAGES.values()}
    work, piece = Work(((1, 70_000, 3),), 1), Piece((1, 2), (-5, -70_000), (0, 1), (2, 3), b"float32s", (1, 2))
    opening = Opening(FIRST, SECOND, work.encode(), (piece.encode(), Piece((3,), (-1,)).encode()))
    proof = ProofFile((envelopes["receipt"],), (opening.encode(),))
    means = Means("ledger", FIRST, "November", 70_000, encode([FIRST, SECOND, b"s" * 64]))
    structs |= {type(each).__name__: to_map(each) for each in (work, piece, opening, proof, means)}
    given: Value = to_map(Input(FIRST, SECOND, work.encode()))
    structs["Input"] = given
    assert structs.keys() == STRUCTS.keys()
    profiles = _profiles(records)
    engine_messages = [_sample(kind) for kind in engine._KINDS.values()]
    return {
        "codec": [encode([*structs.values(), None, True, -1, 2**63 - 1]), *(each[1:] for each in envelopes.values())],
        "reading": [encode([name, encode(content)]) for name, content in structs.items()],
        "schema": [encode([name, encode(content)]) for name, content in structs.items()],
        "envelope": [encode([name, envelope, FIRST]) for name, envelope in envelopes.items()],
        "signer": list(envelopes.values())[:2],
        "identify": list(envelopes.values()),
        "hearing": [sign(Plea(content_hash(DISPUTE), "owns", FIRST, FIRST, "none"), KEYS[FIRST]).envelope],
        "message": [encode_message(_sample(kind)) for kind in MESSAGES.values()],
        "work": [work.encode()],
        "input": [encode(given)],
        "piece": [piece.encode()],
        "opening": [opening.encode()],
        "proof": [proof.encode()],
        "means": [means.encode()],
        "open": [opening.encode()],
        "evidence": [encode(to_map(evidence)) for evidence in _evidence(records)],
        "witness": [_witness(records)],
        "profiles": [profiles],
        "published": [encode([profile_key(FIRST), profiles, NOW_MS])],
        "peer-id": [peer_id(FIRST).encode()],
        "cid": [cid(FIRST).encode()],
        "signature": [encode([KEYS[FIRST].sign(b"message").signature, b"message", FIRST])],
        "versions": [encode(["job", ["/fallow/job/1", "/fallow/job/2"], ["/fallow/job/2", "/fallow/job/1"]])],
        "framing": [b"\x02" + frame(b"one") + frame(b"") + frame(b"three") + b"\xff" * 4],
        "yamux": [b"\x10" + b"".join(_frames())],
        "control": [control.encode(word) for word in _words()],
        "punching": [_addresses()],
        "table": _questions(profiles),
        "lan": [encode([f"/ip4/192.168.1.7/tcp/4001/p2p/{peer_id(FIRST)}".encode(), b"/ip4/192.0.2.1/tcp/1"])],
        "viss": _vehicle(),
        "rosbridge": _robot(),
        "ocpp": _station(),
        "site": _site(),
        "upower": [b'{"OnBattery": ["b", true], "LidIsClosed": ["b", false], "DaemonVersion": ["s", "1.90"]}'],
        "day": [path.read_bytes() for path in (Path(__file__).parents[1] / "node/sensors/days").glob("*.toml")],
        "engine": [b"\xff" + engine.encode(message) for message in engine_messages],
        "engine-fields": [encode(msgpack.unpackb(engine.encode(message)[4:])) for message in engine_messages],
    }


def _words() -> list[control.Word]:
    answer = [control.Part(3, bytes(control.PART_BYTES), last=False), control.Part(3, b"the end", last=True)]
    return [
        control.Ask(1, "/fallow/profile/1", b"?"),
        control.Cancel(2),
        *answer,
        control.Refused(4, control.Reason.BUSY),
    ]


def _vehicle() -> list[bytes]:
    """Answers, a change, and a refusal."""
    at = "2026-09-21T13:33:20.004Z"
    values = {"Speed": "0.0", "IsMoving": "false", "LowVoltageSystemState": "OFF", "PowerOptimizeLevel": "3"}
    points = [{"path": f"Vehicle.{name}", "dp": {"value": value, "ts": at}} for name, value in values.items()]
    refused = {
        "action": "get",
        "requestId": "1",
        "error": {"number": 404, "reason": "invalid_path", "message": "..."},
        "ts": at,
    }
    change = {"action": "subscription", "subscriptionId": "s1", "data": points[0], "ts": at}
    messages = [{"action": "get", "requestId": "1", "data": point} for point in (*points, points)]
    return [json.dumps(message).encode() for message in (*messages, change, refused)]


def _robot() -> list[bytes]:
    battery = {"percentage": 0.81, "temperature": 31.5, "voltage": 48.0, "current": -2.0, "power_supply_status": 1}
    told = [("/battery_state", battery), ("/dock", {"data": True})]
    messages = [{"op": "publish", "topic": topic, "msg": message} for topic, message in told]
    return [
        json.dumps(each).encode() for each in (*messages, {"op": "status", "level": "error", "msg": "no such topic"})
    ]


def _station() -> list[bytes]:
    period = {"startPeriod": 0, "limit": 11_000.0}
    schedule = {"id": 1, "chargingRateUnit": "W", "duration": 3600, "startSchedule": "2026-09-21T13:33:20Z"}
    profile = {
        "id": 1, "stackLevel": 0, "chargingProfilePurpose": "ChargingStationExternalConstraints",
        "chargingSchedule": [{**schedule, "chargingSchedulePeriod": [period]}],
    }  # fmt: skip
    sample = {"value": 7.4, "measurand": "Power.Active.Import", "unitOfMeasure": {"unit": "kW", "multiplier": 0}}
    values = [{"timestamp": "2026-09-21T13:33:20Z", "sampledValue": [sample]}]
    calls: list[tuple[str, object]] = [
        ("SetChargingProfile", {"evseId": 0, "chargingProfile": profile}), ("ClearChargingProfile", {"chargingProfileId": 1}),
        ("MeterValues", {"evseId": 1, "meterValue": values}), ("BootNotification", {}), ("Heartbeat", {}),
        ("TransactionEvent", {"eventType": "Updated", "evse": {"id": 2}, "meterValue": values}), ("Reset", {}),
        ("TransactionEvent", {"eventType": "Ended", "evse": {"id": 2}}), ("StatusNotification", {}),
    ]  # fmt: skip
    each = [json.dumps([2, "7", *call]).encode() for call in calls]
    return [*each, b"\n".join(each), b'[3, "7", {}]']


def _site() -> list[bytes]:
    found = {"grid_limit_w": 100_000, "chargers_w": 42_000.5, "soc_pct": 55, "time_ms": 1_790_000_000_000}
    body = json.dumps(found).encode()
    table = "\n".join(f"{name} = {value}" for name, value in found.items()).encode()
    return [
        b"\x07HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body),
        table,
        b"\xffHTTP/1.1 503 Busy\r\n\r\n",
    ]


def _examples() -> tuple[Any, ...]:
    """One of every record: those that the tests use."""
    path = Path(__file__).parent.parent / "tests/protocol/records.py"
    spec = importlib.util.spec_from_file_location("fallow_example_records", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    records: tuple[Any, ...] = module.RECORDS
    return records


def _frames() -> list[bytes]:
    """A stream begun, used and ended, and whether the other side is there."""
    data, window = yamux.Kind.DATA, yamux.Kind.WINDOW
    return [
        yamux.encode(window, yamux.Flag.SYN, 1, 0),
        yamux.encode(data, 0, 1, 5, b"hello"),
        yamux.encode(yamux.Kind.PING, yamux.Flag.SYN, 0, 7),
        yamux.encode(window, 0, 1, 4096),
        yamux.encode(data, yamux.Flag.FIN, 1, 0),
        yamux.encode(yamux.Kind.GO_AWAY, 0, 0, 0),
    ]


def _addresses() -> bytes:
    texts = (
        "/ip4/192.0.2.1/tcp/4001",
        "/ip6/2001:db8::1/tcp/4001",
        f"/ip4/192.0.2.2/tcp/1/p2p/{peer_id(FIRST)}/p2p-circuit",
    )
    kind = HolePunch.Type.CONNECT
    return bytes(HolePunch(type=kind, ObsAddrs=[Multiaddr(text).to_bytes() for text in texts]).SerializeToString())


def _one(records: tuple[Any, ...], kind: type[Any]) -> Any:
    return next(record for record in records if type(record) is kind)


def _questions(profiles: bytes) -> list[bytes]:
    """Each kind that the table knows, the values and the provider as an honest node says them."""
    key = profile_key(FIRST).encode()
    told = Message(type=Message.PUT_VALUE, key=key, record=Record(key=key, value=profiles))
    provided = Message(type=Message.ADD_PROVIDER, key=b"serve/bundle/-/0")
    address = Multiaddr("/ip4/192.0.2.1/tcp/4001").to_bytes()
    provided.providerPeers.add(id=id_of(SECOND).to_bytes(), addrs=[address])
    asked = [Message(type=kind, key=key) for kind in (Message.GET_VALUE, Message.GET_PROVIDERS, Message.FIND_NODE)]
    return [bytes(each.SerializeToString()) for each in (told, provided, *asked, Message(type=Message.PING))]


def _profiles(records: tuple[Any, ...]) -> bytes:
    capability, connectivity = _one(records, CapabilityProfile), _one(records, ConnectivityProfile)
    return Profiles(sign(capability, KEYS[FIRST]), sign(connectivity, KEYS[FIRST])).encode()


def _witness(records: tuple[Any, ...]) -> bytes:
    """The example, with the mandate that its witness acts under."""
    example, mandate = _one(records, Witness), _one(records, Mandate)
    acting = sign(replace(mandate, node=FIRST, owner=SECOND), KEYS[SECOND]).envelope
    return sign(replace(example, mandate=acting), KEYS[FIRST]).envelope


def _evidence(records: tuple[Any, ...]) -> list[Evidence]:
    """What proves a fault: two receipts for one window, two mandates, two issuers of one epoch."""
    found = []
    for kind, field in ((Receipt, "numerics_class"), (Mandate, "roles"), (Issuer, "expires_ms")):
        record = _one(records, kind)
        given = {each.name: getattr(record, each.name) for each in fields(record)}
        value = given[field]
        other = value + 1 if isinstance(value, int) else value[:1] if isinstance(value, tuple) else value + "x"
        pair = tuple(sign(each, KEYS[FIRST]).envelope for each in (record, type(record)(**{**given, field: other})))
        found.append(Evidence(Fault.EQUIVOCATION.value, FIRST, pair, "two of one"))
    return found


def _sample(kind: type[Any]) -> Any:
    """An instance with every field at its least, optional ones present."""
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{field.name: _least(hints[field.name]) for field in fields(kind)})


def _least(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = get_args(hint)[0]
    bound: Any = None
    if get_origin(hint) is Annotated:
        hint, bound = get_args(hint)
    if get_origin(hint) is tuple:
        return tuple(_least(get_args(hint)[0]) for _ in range(max(bound.least, 1)))
    if hint is int:
        return bound.least
    if hint is bool:
        return False
    if hint in (bytes, str):
        return (b"x" if hint is bytes else "x") * bound.least
    return _sample(hint)

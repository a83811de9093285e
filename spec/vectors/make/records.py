"""Kind `record`: every record signed, and all that is not one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cbor import encode
from .cose import Envelope, Signer
from .forbidden import forbidden
from .notation import Case, refused
from .world import DAY_MS, EXAMPLES, HASH, HOUR_MS, NOW_MS, Fields

OPTIONAL = {
    "mandate": "issuer",
    "capability-profile": "kind",
    "connectivity-profile": "rtt_p95_us",
    "manifest": "chat_template",
    "job-order": "checks",
    "receipt": "previous",
}
"""A field that may be absent, of every record that has one."""


def record() -> Iterator[Case]:
    for name, (signer, fields) in EXAMPLES.items():
        yield _signed(f"{name}-signed", f"The example of a {name}.", name, signer, fields)
        yield from _alike(name, fields)
    served = {**world.capability()["served"][0], "opt_mood": None}
    payload = encode(world.capability(served=[served]))
    about = "An extension inside of a structure is ignored, too."
    yield Case("capability-profile-extended-inside", about, {"record": "capability-profile", "payload": payload}, {
        "fields": world.capability()
    })  # fmt: skip
    for words, about, name, fields in _allowed():
        yield _signed(f"{name}-{words}", about, name, EXAMPLES[name][0], fields)
    for words, about, name, fields in forbidden():
        yield _unsigned(f"{name}-{words}", about, name, fields)


def _signed(words: str, about: str, name: str, signer: Signer, fields: Fields) -> Case:
    sealed = signer.sign(name, fields)
    given = {"seed": signer.seed, "record": name, "fields": fields}
    parts = {"protected": sealed.protected, "payload": sealed.payload, "sig_structure": sealed.sig_structure}
    return Case(words, about, given, {**parts, **_outside(sealed)})


def _outside(sealed: Envelope) -> Fields:
    return {"signature": sealed.signature, "envelope": sealed.whole, "id": sealed.id}


def _unsigned(words: str, about: str, name: str, fields: Fields) -> Case:
    given = {"seed": EXAMPLES[name][0].seed, "record": name, "fields": fields}
    return refused(words, about, given, "bad_record")


def _alike(name: str, fields: Fields) -> Iterator[Case]:
    """What no record may be, and what every record may."""
    first = next(iter(fields))
    without = {key: value for key, value in fields.items() if key != first}

    def read(words: str, about: str, payload: Any) -> Case:
        return refused(f"{name}-{words}", about, {"record": name, "payload": encode(payload)}, "bad_record")

    yield read("missing", f"{first} is missing.", without)
    yield read("unknown", "A field that the record does not have.", {**fields, "colour": 1})
    yield read("wrong-type", f"{first} is a boolean.", {**fields, first: True})
    if name in OPTIONAL:
        absent = OPTIONAL[name]
        yield read("null", f"{absent} is null, which no field ever is: it would be absent.", {**fields, absent: None})
        present = {key: value for key, value in fields.items() if key != absent}
        about = f"{absent} may be absent."
        yield Case(f"{name}-absent", about, {"record": name, "payload": encode(present)}, {"fields": present})
    given = {"record": name, "payload": encode({**fields, "opt_colour": {"of": [1]}})}
    yield Case(f"{name}-extended", "An unknown field that begins with opt_ is ignored.", given, {"fields": fields})


def _allowed() -> Iterator[tuple[str, str, str, Fields]]:
    """Records at the edges of their bounds."""
    yield "longest", "An issuer lasts at most 400 days.", "issuer", world.issuer(expires_ms=NOW_MS + 400 * DAY_MS)
    issued = world.OWNER.sign("issuer", world.issuer()).whole
    yield "by-issuer", "A mandate with the issuer inside of it.", "mandate", world.mandate(issuer=issued)
    yield "longest", "A mandate lasts at most seven days.", "mandate", world.mandate(expires_ms=NOW_MS + 7 * DAY_MS)
    yield "shortest", "A window of one millisecond.", "mandate", world.mandate(expires_ms=NOW_MS + 1)
    yield "longest", "A worker key lasts at most an hour.", "worker-key", world.worker_key(expires_ms=NOW_MS + HOUR_MS)
    for record, make in (("capability-profile", world.capability), ("connectivity-profile", world.connectivity)):
        yield "longest", "A profile lasts at most half an hour.", record, make(expires_ms=NOW_MS + 1_800_000)
    bare: Fields = {"kind": None, "region": "", "accelerators": [], "served": [], "prices": [], "arbiters": []}
    yield "bare", "A node that offers nothing yet.", "capability-profile", _present(world.capability(**bare))
    unmeasured = dict.fromkeys(
        ("metered", "rtt_p50_us", "rtt_p95_us", "jitter_us", "loss_ppm", "up_kbit_per_s", "down_kbit_per_s")
    )
    yield (
        "unmeasured",
        "What was not measured is absent.",
        "connectivity-profile",
        _present(world.connectivity(**unmeasured, addresses=[])),
    )
    two = world.file_of(HASH, HASH, length_bytes=2**20 + 1)
    yield "two-chunks", "A file of 1 MiB and a byte has two chunks.", "manifest", world.manifest(weights=two)
    empty = world.file_of(HASH, length_bytes=0)
    yield "empty-file", "An empty file has one chunk.", "manifest", world.manifest(weights=empty)
    arrays = world.manifest(
        entries=["call"], state=[], inputs=[{"name": "image", "dtype": "uint8", "shape": [8, 8, 3]}],
        outputs=[{"name": "scores", "dtype": "float32", "shape": [2]}], tokenizer=None, chat_template=None,
    )  # fmt: skip
    yield "of-arrays", "A function of arrays needs no tokenizer.", "manifest", _present(arrays)
    yield "eight-devices", "Programs that lie over eight devices.", "manifest", world.manifest(devices=8)
    most = {"credit_limit_ucr": 2**53 - 1, "expires_ms": 2**63 - 1}
    yield "largest", "Credits go up to 2^53 - 1, times to 2^63 - 1.", "channel", world.channel(**most)
    resumed = {"continues": {"receipt": HASH, "position": 60}, "checks": HASH}
    yield "resumed", "An order that resumes another, with all fields.", "job-order", world.order(**resumed)
    yield "next", "A receipt that names the one before it.", "receipt", world.receipt(previous=HASH, sequence=1)
    for end in ("open", "final", "yielded", "cancelled"):
        yield f"that-is-{end}", "One of four ways in which a window ends.", "receipt", world.receipt(end=end)
    yield "of-a-call", "A call has no tokens and no values.", "receipt", world.receipt(tokens=0, values_micro=[])
    yield (
        "nothing-held",
        "Nothing is held.",
        "voucher",
        world.voucher(held=[]),
    )
    week = [(5, NOW_MS + day * DAY_MS) for day in range(8)]
    yield "held-in-parts", "Eight parts, each with its release.", "voucher", world.voucher(held=world.held(*week))
    nothing: Fields = {"values_micro": [], "gaps_micro": [], "masses_ppm": []}
    yield "of-nothing", "A finding about no tokens.", "attestation", world.attestation(**nothing)
    edges = {"values_micro": [-(2**40), 2**40, 0]}
    yield "values-at-the-edges", "Micro-nats from -2^40 to 2^40.", "attestation", world.attestation(**edges)
    yield (
        "farthest",
        "It starts seven days after it is issued and lasts a day.",
        "shed-order",
        world.shed_order(issued_ms=NOW_MS - 7 * DAY_MS, end_ms=NOW_MS + DAY_MS),
    )
    yield "full", "Shares that use up the cap.", "feeder-roster", world.roster(cap_w=9_000)
    yield "longest", "A statement lasts half an hour.", "witness", world.witness(expires_ms=NOW_MS + 1_800_000)
    yield "longest", "A lease lasts at most an hour.", "feeder-lease", world.lease(expires_ms=NOW_MS + HOUR_MS)


def _present(fields: Fields) -> Fields:
    return {key: value for key, value in fields.items() if value is not None}

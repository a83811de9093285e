"""Kind `record`: every record signed, and all that is not one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cbor import encode
from .cose import Envelope, Signer
from .notation import Case, refused
from .world import DAY_MS, EXAMPLES, HASH, HOUR_MS, NODE, NOW_MS, Fields

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
    for words, about, name, fields in _forbidden():
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
        "Nothing is held, so there is no release.",
        "voucher",
        world.voucher(held_ucr=0, release_at_ms=0),
    )
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


def _forbidden() -> Iterator[tuple[str, str, str, Fields]]:
    """Fields out of their bounds, and rules that join several of them."""
    yield "too-long", "More than 400 days.", "issuer", world.issuer(expires_ms=NOW_MS + 400 * DAY_MS + 1)
    yield "backward", "It ends as it begins.", "issuer", world.issuer(expires_ms=NOW_MS)
    yield "short-key", "A key of 31 bytes.", "issuer", world.issuer(issuer=HASH[:31])
    yield "long-key", "A key of 33 bytes.", "mandate", world.mandate(node=HASH + b"\0")
    yield "too-long", "More than seven days.", "mandate", world.mandate(expires_ms=NOW_MS + 7 * DAY_MS + 1)
    yield "backward", "It ends before it begins.", "mandate", world.mandate(expires_ms=NOW_MS - 1)
    yield "of-no-time", "It ends as it begins.", "mandate", world.mandate(expires_ms=NOW_MS)
    yield "no-roles", "A mandate without a role.", "mandate", world.mandate(roles=[])
    yield "nine-roles", "More than eight roles.", "mandate", world.mandate(roles=["executor"] * 9)
    yield "empty-role", "A role without a name.", "mandate", world.mandate(roles=[""])
    yield "issuer-too-large", "An issuer of more than 512 bytes.", "mandate", world.mandate(issuer=bytes(513))
    yield "negative-epoch", "Epochs are not negative.", "mandate", world.mandate(epoch=-1)
    yield "too-long", "More than an hour.", "worker-key", world.worker_key(expires_ms=NOW_MS + HOUR_MS + 1)
    for record, make in (("capability-profile", world.capability), ("connectivity-profile", world.connectivity)):
        yield "too-long", "More than half an hour.", record, make(expires_ms=NOW_MS + 1_800_001)
        yield "of-no-time", "It ends as it begins.", record, make(expires_ms=NOW_MS)
    yield "region-too-exact", "A region of four characters.", "capability-profile", world.capability(region="u4pr")
    ppm = {"held_ppm_max": 1_000_001}
    yield "more-than-all", "More than a million millionths.", "capability-profile", world.capability(**ppm)
    served = {**world.capability()["served"][0], "colour": 1}
    yield (
        "unknown-inside",
        "An unknown field in a bundle on offer.",
        "capability-profile",
        world.capability(served=[served]),
    )
    yield (
        "price-missing",
        "A price without its entry.",
        "capability-profile",
        world.capability(prices=[{key: value for key, value in world.price().items() if key != "entry"}]),
    )
    dear = [world.price(call_ucr=2**53)]
    yield "price-too-large", "Credits go up to 2^53 - 1.", "capability-profile", world.capability(prices=dear)
    addresses = ["/ip4/192.0.2.1/tcp/1"] * 17
    yield "addresses", "More than 16 addresses.", "connectivity-profile", world.connectivity(addresses=addresses)
    yield "loss", "More than everything is lost.", "connectivity-profile", world.connectivity(loss_ppm=1_000_001)
    yield (
        "chunk-missing",
        "Two chunks are needed for this length.",
        "manifest",
        world.manifest(weights=world.file_of(HASH, length_bytes=2**20 + 1)),
    )
    program = world.manifest()["programs"][0]
    yield "programs-alike", "Two programs share a name.", "manifest", world.manifest(programs=[program, program])
    one, image = {"name": "y", "dtype": "float32", "shape": [2]}, {"name": "x", "dtype": "uint8", "shape": [8, 8]}
    function = {"entries": ["call"], "state": [], "inputs": [image], "outputs": [one]}
    for words, about, changes in (
        ("inputs-alike", "Two inputs share a name.", {"inputs": [image, {**image, "shape": [2]}]}),
        ("outputs-alike", "Two outputs share a name.", {"outputs": [one, one]}),
        ("entry-twice", "One entry twice.", {"entries": ["call", "call"]}),
        ("parameter-twice", "One tensor twice.", {"parameters": ["a", "b", "a"]}),
        ("call-without-outputs", "A call that gives nothing.", {"outputs": []}),
        ("output-of-integers", "Outputs are float32.", {"outputs": [{**one, "dtype": "int32"}]}),
        ("input-of-nothing", "An input with a dimension of length 0.", {"inputs": [{**image, "shape": [8, 0]}]}),
        ("input-of-objects", "An element type that there is not.", {"inputs": [{**image, "dtype": "object"}]}),
        ("state-of-text", "The same in a state.", {"state": [{"dtype": "U8", "shape": [2]}]}),
        ("state-of-nothing", "A state without elements.", {"state": [{"dtype": "float32", "shape": [0]}]}),
    ):
        yield words, about, "manifest", world.manifest(**{**function, **changes})
    yield "unknown-entry", "An entry that there is not.", "manifest", world.manifest(entries=["train"])
    lost = [{"dtype": "float32", "shape": [2, 3], "positions_axis": 2}]
    yield "no-such-axis", "Positions along a dimension that is not there.", "manifest", world.manifest(state=lost)
    wide = [{**program, "slots": 65}]
    yield "too-many-slots", "More than 64 sequences side by side.", "manifest", world.manifest(programs=wide)
    for devices, about in ((1, "One device is said by saying nothing."), (65, "More devices than 64.")):
        yield f"{devices}-devices", about, "manifest", world.manifest(devices=devices)
    yield "no-programs", "A bundle without programs.", "manifest", world.manifest(programs=[])
    yield "too-much-credit", "Credits go up to 2^53 - 1.", "channel", world.channel(credit_limit_ucr=2**53)
    yield "short-nonce", "A nonce of 15 bytes.", "channel", world.channel(nonce=world.NONCE[:15])
    yield (
        "parameter-missing",
        "Parameters without a seed.",
        "job-order",
        world.order(parameters={key: value for key, value in world.PARAMETERS.items() if key != "seed"}),
    )
    for words, about, change in (
        ("no-calls", "An order for nothing.", {"calls": 0}),
        ("no-input", "An order without input.", {"input_tokens": 0}),
        ("input-too-long", "More than 32768 tokens of input.", {"input_tokens": 32_769}),
        ("output-too-long", "More than 4096 tokens of output.", {"planned_tokens": 4_097}),
        ("hasty", "The first chunk within 99 ms.", {"first_chunk_ms_max": 99}),
        ("held-too-long", "Pay held for more than seven days.", {"hold_ms": 7 * DAY_MS + 1}),
        ("candidates", "More than 32 candidates.", {"candidates": [HASH] * 33}),
        ("position-missing", "It resumes no position.", {"continues": {"receipt": HASH}}),
        ("hot", "A temperature above 10.", {"parameters": {**world.PARAMETERS, "temperature_milli": 10_001}}),
    ):
        yield words, about, "job-order", world.order(**change)
    yield "class-too-long", "Text of 1025 bytes.", "accept", world.accept(numerics_class="x" * 1025)
    yield (
        "class-too-long-in-utf8",
        "513 letters of two bytes each: size is in bytes.",
        "accept",
        world.accept(numerics_class="\u00fc" * 513),
    )
    yield "negative-amount", "Nobody owes less than nothing.", "receipt", world.receipt(amount_ucr=-1)
    yield (
        "value-too-low",
        "A value below -2^40 micro-nats.",
        "receipt",
        world.receipt(tokens=1, values_micro=[-(2**40) - 1]),
    )
    yield "a-value-missing", "Not one value for each token.", "receipt", world.receipt(tokens=4)
    yield "a-value-too-many", "A call has no tokens, and no values.", "receipt", world.receipt(tokens=0)
    yield "unknown-end", "A window ends in none but four ways.", "receipt", world.receipt(end="closed")
    yield "held-for-ever", "Something is held and has no release.", "voucher", world.voucher(release_at_ms=0)
    yield "release-of-nothing", "A release of nothing.", "voucher", world.voucher(held_ucr=0)
    yield "a-gap-missing", "Not one gap for each value.", "attestation", world.attestation(gaps_micro=[0, 0])
    yield "a-mass-too-many", "Not one mass for each value.", "attestation", world.attestation(masses_ppm=[0] * 4)
    yield "no-findings", "A verdict about nobody.", "verdict", world.verdict(findings=[])
    yield (
        "finding-wrong",
        "A finding without a standing.",
        "verdict",
        world.verdict(findings=[{key: value for key, value in world.finding().items() if key != "standing"}]),
    )
    yield "unknown-outcome", "An outcome that there is not.", "verdict", world.verdict(outcome="maybe")
    yield (
        "unknown-standing",
        "A standing that there is not.",
        "verdict",
        world.verdict(findings=[world.finding(standing="guilty")]),
    )
    yield "one-record", "A contradiction takes two.", "evidence", world.evidence(records=[b"alone"])
    yield "records", "More than 20 records.", "evidence", world.evidence(records=[b"record"] * 21)
    yield "too-long", "More than a day.", "shed-order", world.shed_order(end_ms=NOW_MS + DAY_MS + 1)
    yield "backward", "It ends before it begins.", "shed-order", world.shed_order(end_ms=NOW_MS - 1)
    yield "of-no-time", "It ends as it begins.", "shed-order", world.shed_order(end_ms=NOW_MS)
    yield (
        "too-far-ahead",
        "It starts more than seven days after it is issued.",
        "shed-order",
        world.shed_order(issued_ms=NOW_MS - 7 * DAY_MS - 1),
    )
    yield "too-many-watts", "More than a gigawatt.", "shed-order", world.shed_order(cap_w=10**9 + 1)
    yield "cancelled-by-number", "A number is no boolean.", "shed-order", world.shed_order(cancelled=0)
    yield "shares-exceed-cap", "The guaranteed shares exceed the cap.", "feeder-roster", world.roster(cap_w=8_999)
    shares = world.roster()["members"]
    yield "unsorted", "Members out of order.", "feeder-roster", world.roster(members=shares[::-1])
    yield (
        "named-twice",
        "A member named twice.",
        "feeder-roster",
        world.roster(members=[{**shares[0], "guaranteed_w": 1}] * 2),
    )
    yield "too-long", "More than seven days.", "feeder-roster", world.roster(expires_ms=NOW_MS + 7 * DAY_MS + 1)
    yield "of-itself", "Nobody is a witness of itself.", "witness", world.witness(subject=NODE.key)
    yield "too-long", "More than half an hour.", "witness", world.witness(expires_ms=NOW_MS + 1_800_001)
    yield "of-no-time", "It ends as it begins.", "witness", world.witness(expires_ms=NOW_MS)
    yield "about-nothing-known", "A kind that there is not.", "dispute", world.dispute(kind="theft")
    yield "no-time-to-answer", "Less than a second.", "dispute", world.dispute(answer_ms=999)
    yield "not-in-three", "A fee that three judges cannot share.", "dispute", world.dispute(fee_ucr=91)
    yield "another-word", "A word that nobody pleads.", "plea", world.plea(says="perhaps")
    yield "another-outcome", "An outcome that there is not.", "decision", world.decision(outcome="accepted")
    yield "both", "The same receipts are due and withheld.", "decision", world.decision(due_ucr=1)
    yield "to-itself", "Nobody borrows from itself.", "feeder-lease", world.lease(borrower=NODE.key)
    yield "too-long", "More than an hour.", "feeder-lease", world.lease(expires_ms=NOW_MS + HOUR_MS + 1)
    yield "of-nothing", "A lease of no watts.", "feeder-lease", world.lease(lent_w=0)

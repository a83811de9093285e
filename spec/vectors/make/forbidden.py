"""What no record may hold: fields out of their bounds, and rules that join several of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from . import world
from .world import DAY_MS, HASH, HOUR_MS, NODE, NOW_MS, Fields

Forbidden: TypeAlias = Iterator[tuple[str, str, str, Fields]]
"""In one word, what about it, the record's name, and its fields."""


def forbidden() -> Forbidden:
    """All of them, by what they are about."""
    for about in (
        _of_trust,
        _of_profiles,
        _of_manifests,
        _of_jobs,
        _of_pay_and_findings,
        _of_the_grid,
        _of_others_word,
    ):
        yield from about()


def _of_trust() -> Forbidden:
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


def _of_profiles() -> Forbidden:
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


def _of_manifests() -> Forbidden:
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


def _of_jobs() -> Forbidden:
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


def _of_pay_and_findings() -> Forbidden:
    for words, about, parts in (
        ("held-for-ever", "Something is held and has no release.", [(5, 0)]),
        ("release-of-nothing", "A release of nothing.", [(0, NOW_MS)]),
        ("released-together", "Two parts with one release.", [(5, NOW_MS), (5, NOW_MS)]),
        ("released-backwards", "The later part stands first.", [(5, NOW_MS + 1), (5, NOW_MS)]),
        ("held-in-nine-parts", "A part too many.", [(5, NOW_MS + day * DAY_MS) for day in range(9)]),
    ):
        yield words, about, "voucher", world.voucher(held=world.held(*parts))
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


def _of_the_grid() -> Forbidden:
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


def _of_others_word() -> Forbidden:
    yield "of-itself", "Nobody is a witness of itself.", "witness", world.witness(subject=NODE.key)
    yield "too-long", "More than half an hour.", "witness", world.witness(expires_ms=NOW_MS + 1_800_001)
    yield "of-no-time", "It ends as it begins.", "witness", world.witness(expires_ms=NOW_MS)
    yield "about-nothing-known", "A kind that there is not.", "dispute", world.dispute(kind="theft")
    yield "no-time-to-answer", "Less than a second.", "dispute", world.dispute(answer_ms=999)
    yield "not-in-three", "A fee that three judges cannot share.", "dispute", world.dispute(fee_ucr=91)
    yield "another-word", "A word that nobody pleads.", "plea", world.plea(says="perhaps")
    yield "plea-too-long", "A plea of 513 bytes.", "hearing", world.hearing(pleas=[bytes(513)])
    yield "four-pleas", "More than there are judges.", "hearing", world.hearing(pleas=[b"a plea"] * 4)
    yield "another-outcome", "An outcome that there is not.", "decision", world.decision(outcome="accepted")
    yield "both", "The same receipts are due and withheld.", "decision", world.decision(due_ucr=1)
    yield "to-itself", "Nobody borrows from itself.", "feeder-lease", world.lease(borrower=NODE.key)
    yield "too-long", "More than an hour.", "feeder-lease", world.lease(expires_ms=NOW_MS + HOUR_MS + 1)
    yield "of-nothing", "A lease of no watts.", "feeder-lease", world.lease(lent_w=0)

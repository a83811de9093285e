"""Kinds `message` and `plaintext`: what travels on streams, and what is sealed inside of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cbor import encode
from .notation import Case, refused
from .world import CLIENT, HASH, NODE, Fields

_ENVELOPE = NODE.sign("accept", world.accept()).whole
_SHORT = CLIENT.sign("voucher", world.voucher()).whole

MESSAGES: dict[str, Fields] = {
    "order": {"order": _SHORT, "channel": _SHORT, "voucher": _SHORT, "sealed_input": b"sealed"},
    "accept": {"accept": _ENVELOPE},
    "refuse": {"code": "busy", "detail": "two jobs are running", "retry_after_ms": 1_500},
    "chunk": {"index": 3, "sealed": b"a piece"},
    "receipt": {"receipt": _ENVELOPE},
    "attestation": {"attestation": _ENVELOPE},
    "voucher": {"voucher": _SHORT},
    "heartbeat": {},
    "cancel": {"reason": "enough"},
    "decline": {"reason": "the window was false"},
    "yield": {"reason": "the owner wants to drive"},
    "failed": {"code": "worker_died", "detail": ""},
    "profile-request": {},
    "profile": {
        "mandate": _ENVELOPE, "capability": _ENVELOPE, "connectivity": _ENVELOPE, "worker_key": _ENVELOPE,
        "state": "ready", "reasons": ["plugged in", "parked"], "jobs_running": 1, "witnesses": [_ENVELOPE],
    },
    "voucher-request": {"channel": _SHORT, "voucher": _SHORT},
    "voucher-reply": {"voucher": HASH},
    "blob-request": {"hash": HASH},
    "blob": {"content": b"a chunk"},
    "probe": {"nonce": world.NONCE, "witness": _ENVELOPE},
    "probed": {"nonce": world.NONCE},
    "rate-request": {"nonce": world.NONCE, "content": b"up", "wanted_bytes": 2**20},
    "rate": {"received": HASH, "content": b"down"},
    "verdict-request": {"verdict": HASH, "proof": b"a proof"},
    "verdict": {"verdict": _ENVELOPE, "mandate": _ENVELOPE},
    "ground-request": {
        "channel": _SHORT, "order": _SHORT, "receipt": _SHORT, "ucr": 7, "verdicts": [_SHORT, _SHORT],
        "mandates": [_SHORT, _SHORT],
    },
    "ground": {"ground": HASH, "ucr": 7},
    "shed-exchange": {"grid": NODE.key, "known": [HASH, NODE.key], "orders": [_SHORT]},
    "feeder-request": {"known": [HASH], "roster": HASH, "wanted_w": 1_500},
    "feeder": {"rosters": [_SHORT], "leases": [_SHORT, _SHORT]},
    "dispute-request": {
        "dispute": _SHORT, "plea": _SHORT, "proof": b"a proof", "addresses": ["/ip4/192.0.2.1/tcp/4001"],
        "hearing": _SHORT,
    },
    "plea": {"plea": _SHORT},
    "decision": {"decision": _SHORT, "mandate": _SHORT, "plea": _SHORT},
    "disputes-request": {"accused": NODE.key},
    "disputes": {"disputes": [_SHORT, _SHORT]},
    "decided-request": {
        "channel": _SHORT, "order": _SHORT, "receipt": _SHORT, "dispute": _SHORT, "ucr": 7, "decisions": [_SHORT],
        "mandates": [_SHORT],
    },
    "decided": {"decision": HASH, "ucr": 7},
    "evidence": {"evidence": _SHORT},
    "noted": {"evidence": HASH},
    "rails-request": {},
    "rails": {"rails": ["ledger", "cashu"], "addresses": ["at one", "at the other"]},
    "means-request": {"means": b"means"},
    "means": {"payment": HASH, "ucr": 7},
}  # fmt: skip
"""Every message by its kind, with all its fields."""

OPTIONAL = {
    "dispute-request": "plea", "order": "voucher", "profile": "worker_key", "blob": "content", "probe": "witness",
    "rate": "content", "plea": "plea", "decision": "plea",
}  # fmt: skip


def message() -> Iterator[Case]:
    for kind, fields in MESSAGES.items():
        yield _read(kind, "The example with all its fields.", kind, fields)
        if kind in OPTIONAL:
            absent = OPTIONAL[kind]
            present = {key: value for key, value in fields.items() if key != absent}
            yield _read(f"{kind}-absent", f"{absent} may be absent.", kind, present)
            yield _wrong(f"{kind}-null", f"{absent} is null, which no field ever is.", kind, {**fields, absent: None})
        if kind == "plea":
            yield _read("plea-longest", "A plea of 512 bytes.", kind, {"plea": bytes(512)})
        for first in list(fields)[:1]:
            without = {key: value for key, value in fields.items() if key != first}
            if first != OPTIONAL.get(kind):
                yield _wrong(f"{kind}-missing", f"{first} is missing.", kind, without)
                odd, what = (7, "a number") if isinstance(fields[first], list) else ([], "a list")
                yield _wrong(f"{kind}-wrong-type", f"{first} is {what}.", kind, {**fields, first: odd})
        yield _wrong(f"{kind}-unknown", "A field that the message does not have.", kind, {**fields, "colour": 1})
    extended = encode({"t": "cancel", "reason": "enough", "opt_mood": [1]})
    about = "An unknown field that begins with opt_ is ignored."
    yield Case("cancel-extended", about, {"frame": extended}, {"kind": "cancel", "fields": {"reason": "enough"}})
    yield _read(
        "blob-names", "Not what was asked for, but what else of the bundle is there.", "blob", {"opt_has": [HASH]}
    )
    about = "4096 entries of maps and lists in all."
    fullest = encode({"t": "cancel", "reason": "enough", "opt_list": [0] * 4_093})
    yield Case("cancel-fullest", about, {"frame": fullest}, {"kind": "cancel", "fields": {"reason": "enough"}})
    fuller = encode({"t": "cancel", "reason": "enough", "opt_list": [0] * 4_094})
    yield refused("cancel-too-full", "One entry more.", {"frame": fuller}, "too_large")
    for words, about, kind, fields in (
        ("chunk-negative", "An index below 0.", "chunk", {"index": -1, "sealed": b""}),
        ("accept-empty", "An envelope without bytes.", "accept", {"accept": b""}),
        ("plea-too-long", "A plea of 513 bytes.", "plea", {"plea": bytes(513)}),
        ("decision-plea-too-long", "The same.", "decision", {**MESSAGES["decision"], "plea": bytes(513)}),
        ("dispute-plea-too-long", "The same.", "dispute-request", {**MESSAGES["dispute-request"], "plea": bytes(513)}),
        ("refuse-without-word", "A code without letters.", "refuse", {**MESSAGES["refuse"], "code": ""}),
        ("cancel-wordy", "A reason of 1025 bytes.", "cancel", {"reason": "x" * 1025}),
        ("profile-reasons", "More than 16 reasons.", "profile", {**MESSAGES["profile"], "reasons": [""] * 17}),
        ("profile-witnesses", "More than 4.", "profile", {**MESSAGES["profile"], "witnesses": [_ENVELOPE] * 5}),
        ("shed-many", "More than 32 orders.", "shed-exchange", {**MESSAGES["shed-exchange"], "orders": [b"x"] * 33}),
        ("rate-too-much", "More than 1 MiB.", "rate-request", {**MESSAGES["rate-request"], "wanted_bytes": 2**20 + 1}),
        ("blob-request-short", "A hash of 31 bytes.", "blob-request", {"hash": HASH[:31]}),
        ("blob-names-short", "A hash of 31 bytes.", "blob", {"opt_has": [HASH[:31]]}),
        ("blob-names-many", "More than 32 hashes.", "blob", {"opt_has": [HASH] * 33}),
    ):
        yield _wrong(words, about, kind, fields)
    for words, about, frame in (
        ("empty", "An empty frame is no message.", b""),
        ("list", "A list is no message.", encode(["heartbeat"])),
        ("untold", "A map without its kind.", encode({"reason": "enough"})),
        ("unknown-kind", "A kind that there is not.", encode({"t": "greeting"})),
        ("kind-not-text", "A kind that is not text.", encode({"t": b"heartbeat"})),
        ("trailing", "A byte after the message.", encode({"t": "heartbeat"}) + b"\x00"),
        ("indefinite", "A map without length.", b"\xbf\x61t" + encode("heartbeat") + b"\xff"),
    ):
        yield refused(words, about, {"frame": frame}, "bad_encoding")


def _read(words: str, about: str, kind: str, fields: Fields) -> Case:
    return Case(words, about, {"frame": encode({"t": kind, **fields})}, {"kind": kind, "fields": fields})


def _wrong(words: str, about: str, kind: str, fields: Fields) -> Case:
    return refused(words, about, {"frame": encode({"t": kind, **fields})}, "bad_record")


WORK: Fields = {"sequences": [[1, 15, 7]], "claimed": 1, "arrays": []}
INPUT: Fields = {"salt": HASH, "reply_secret": world.name("a reply secret"), "work": encode(WORK)}
TOKENS: Fields = {
    "tokens": [5, 9], "values_micro": [-120, -7_000], "gaps_micro": [], "masses_ppm": [], "tensor": b"", "shape": [],
}  # fmt: skip


def plaintext() -> Iterator[Case]:
    scored = {**TOKENS, "tokens": [], "gaps_micro": [0, 40], "masses_ppm": [0, 1_000_000]}
    tensor = {**{key: [] for key in TOKENS}, "tensor": bytes.fromhex("0000803f000000c0"), "shape": [1, 2]}
    for words, about, struct, fields in (
        ("work", "A sequence whose last token is claimed.", "Work", WORK),
        ("work-of-two", "Two inputs of a call.", "Work", {"sequences": [[1], [2, 3]], "claimed": 0, "arrays": []}),
        ("input", "The input that an order's digest is of.", "Input", INPUT),
        ("piece-of-text", "Two tokens and their values.", "Piece", TOKENS),
        ("piece-of-scores", "What a checker answers.", "Piece", scored),
        ("piece-of-a-tensor", "One row: 1.0 and -2.0.", "Piece", tensor),
        (
            "work-of-arrays",
            "The inputs of two calls of a function of arrays.",
            "Work",
            {"sequences": [], "claimed": 0, "arrays": [b"\x00\x01", b"\x02\x03"]},
        ),
        (
            "largest-token",
            "Tokens go up to 2^31 - 1.",
            "Work",
            {"sequences": [[2**31 - 1]], "claimed": 0, "arrays": []},
        ),
    ):
        yield Case(words, about, {"struct": struct, "encoded": encode(fields)}, {"fields": fields})
    given = {"struct": "Work", "encoded": encode({**WORK, "opt_hint": 1})}
    yield Case("work-extended", "An unknown field that begins with opt_ is ignored.", given, {"fields": WORK})
    for words, about, struct, value in _wrong_plaintexts(tensor):
        yield refused(words, about, {"struct": struct, "encoded": encode(value)}, "bad_record")
    damaged = {"struct": "Piece", "encoded": encode(TOKENS)[:-1]}
    yield refused("piece-cut-short", "Its last byte is missing.", damaged, "bad_encoding")
    trailing = {"struct": "Input", "encoded": encode(INPUT) + b"\x00"}
    yield refused("input-trailing", "A byte after it.", trailing, "bad_encoding")


def _wrong_plaintexts(tensor: Fields) -> Iterator[tuple[str, str, str, Any]]:
    yield (
        "work-empty-sequence",
        "A sequence without tokens.",
        "Work",
        {"sequences": [[1], []], "claimed": 0, "arrays": []},
    )
    yield "work-of-both", "Sequences and arrays.", "Work", {"sequences": [[1]], "claimed": 0, "arrays": [b"\x00"]}
    yield (
        "work-claimed-array",
        "A claim without a sequence.",
        "Work",
        {"sequences": [], "claimed": 1, "arrays": [b"\x00"]},
    )
    yield "work-empty-array", "An array of no bytes.", "Work", {"sequences": [], "claimed": 0, "arrays": [b""]}
    yield "work-no-sequence", "No sequence.", "Work", {"sequences": [], "claimed": 0, "arrays": []}
    yield (
        "work-all-claimed",
        "A claim that leaves no input.",
        "Work",
        {"sequences": [[1, 2]], "claimed": 2, "arrays": []},
    )
    yield "work-token-too-large", "A token of 2^31.", "Work", {"sequences": [[2**31]], "claimed": 0, "arrays": []}
    yield "work-too-many", "More than 64 inputs.", "Work", {"sequences": [[1]] * 65, "claimed": 0, "arrays": []}
    yield "work-missing", "claimed is missing.", "Work", {"sequences": [[1]], "arrays": []}
    yield "work-unknown", "A field that it does not have.", "Work", {**WORK, "colour": 1}
    yield "work-not-a-map", "A list.", "Work", [[1, 2]]
    yield "input-short-salt", "A salt of 16 bytes.", "Input", {**INPUT, "salt": HASH[:16]}
    yield "input-without-work", "Work without bytes.", "Input", {**INPUT, "work": b""}
    yield "input-missing", "The reply secret is missing.", "Input", {"salt": HASH, "work": INPUT["work"]}
    yield "input-unknown", "A field that it does not have.", "Input", {**INPUT, "colour": 1}
    yield "piece-missing", "The shape is missing.", "Piece", {k: v for k, v in TOKENS.items() if k != "shape"}
    yield "piece-null", "A tensor that is null.", "Piece", {**tensor, "tensor": None}
    yield "piece-of-nine-dimensions", "More than eight dimensions.", "Piece", {**tensor, "shape": [1] * 9}
    yield "piece-negative-mass", "Mass below 0.", "Piece", {**TOKENS, "masses_ppm": [-1]}
    yield "piece-unknown", "A field that it does not have.", "Piece", {**TOKENS, "colour": 1}

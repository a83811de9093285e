"""Kinds `codec`, `framing` and `ed25519`: bytes, before anybody asks what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.protocol.ed25519_cases import CASES

from .cbor import ARRAY, BYTES, MAP, NEGATIVE, TAG, TEXT, UINT, encode, head, raw_map
from .notation import Case, refused

_VALUES: tuple[tuple[str, Any], ...] = (
    ("zero", 0),
    ("largest-in-the-head", 23),
    ("one-byte-integer", 24),
    ("two-byte-integer", 256),
    ("four-byte-integer", 65_536),
    ("eight-byte-integer", 2**32),
    ("largest-exact-in-json", 2**53 - 1),
    ("beyond-exact-in-json", 2**53),
    ("largest-integer", 2**63 - 1),
    ("smallest-integer", -(2**63)),
    ("negative", -25),
    ("bytes", b"\x00\xff"),
    ("no-bytes", b""),
    ("text", "fallow"),
    ("text-beyond-ascii", "Brache \u00fc\u2192\U0001f33e"),
    ("text-with-byte-order-mark", "\ufeffa"),
    ("no-text", ""),
    ("booleans-and-null", [True, False, None]),
    ("empty-list", []),
    ("empty-map", {}),
    ("map-by-length-then-bytes", {"aa": 3, "b": 2, "a": 1, "": 0, "\u00fc": 4}),
    ("lists-in-maps", {"list": [1, [2, {"three": b"\x03"}]], "map": {"x": {"y": -1}}}),
)


def codec() -> Iterator[Case]:
    for words, value in _VALUES:
        yield Case(words, "The one encoding of this value.", {"encoded": encode(value)}, {"value": value})
    yield Case("sixteen-deep", "Sixteen lists in one another.", {"encoded": _nested(16)}, {"value": _lists(16)})
    maps = b"\xa1\x60" * 15 + b"\xa0"
    yield Case("sixteen-maps-deep", "Sixteen maps in one another.", {"encoded": maps}, {"value": _maps(16)})
    for words, about, encoded in _undecodable():
        yield refused(words, about, {"encoded": encoded}, "bad_encoding")


def _nested(depth: int) -> bytes:
    return b"\x81" * (depth - 1) + b"\x80"


def _lists(depth: int) -> list[object]:
    return [_lists(depth - 1)] if depth > 1 else []


def _maps(depth: int) -> dict[str, object]:
    return {"": _maps(depth - 1)} if depth > 1 else {}


def _undecodable() -> Iterator[tuple[str, str, bytes]]:
    a, b, one, two = (encode(value) for value in ("a", "b", 1, 2))
    yield "nothing", "No bytes are no value.", b""
    yield "trailing-byte", "A byte after the value.", one + b"\x00"
    yield "cut-short", "Text of five bytes with four.", b"\x65fall"
    yield "head-cut-short", "A length of two bytes with one.", b"\x59\x01"
    yield "seventeen-deep", "One list too many in one another.", _nested(17)
    yield "seventeen-maps-deep", "One map too many in one another.", b"\xa1\x60" * 16 + b"\xa0"
    yield "integer-in-a-byte-too-many", "23 in one byte after the head.", head(UINT, 23, 1)
    yield "integer-in-two-bytes", "255 in two bytes.", head(UINT, 255, 2)
    yield "integer-in-eight-bytes", "1 in eight bytes.", head(UINT, 1, 8)
    yield "negative-in-two-bytes", "-1 in two bytes.", head(NEGATIVE, 0, 2)
    yield "length-in-a-byte-too-many", "The length of bytes in one byte more than needed.", head(BYTES, 1, 1) + b"\x07"
    yield "integer-of-64-bits-unsigned", "2^63: one more than the largest integer.", head(UINT, 2**63)
    yield "negative-beyond-64-bits", "-2^63 - 1.", head(NEGATIVE, 2**63)
    yield "big-integer", "2^64 as a tagged big integer.", head(TAG, 2) + encode(b"\x01" + bytes(8))
    yield "indefinite-list", "A list without length.", b"\x9f\x01\xff"
    yield "indefinite-map", "A map without length.", b"\xbf\x61a\x01\xff"
    yield "indefinite-text", "Text in pieces.", b"\x7f\x61a\xff"
    yield "indefinite-bytes", "Bytes in pieces.", b"\x5f\x41a\xff"
    yield "keys-unsorted", "A map whose keys are not in order.", raw_map((b, one), (a, two))
    yield "longer-key-first", "Keys sort by length first.", raw_map((encode("aa"), one), (b, two))
    yield "duplicate-key", "A map with one key twice.", raw_map((a, one), (a, two))
    yield "duplicate-pair", "A map with one pair twice.", raw_map((a, one), (a, one))
    yield "integer-key", "Keys are text.", raw_map((one, two))
    yield "bytes-key", "Keys are text.", raw_map((encode(b"a"), one))
    yield "tag", "Tags do not occur.", head(TAG, 1) + one
    yield "float", "Floats do not occur: 1.0.", b"\xf9\x3c\x00"
    yield "float-of-64-bits", "Floats do not occur: 0.1.", bytes.fromhex("fb3fb999999999999a")
    yield "not-a-number", "Floats do not occur.", b"\xf9\x7e\x00"
    yield "undefined", "Undefined does not occur.", b"\xf7"
    yield "simple-value", "Simple values but false, true and null do not occur.", b"\xe0"
    yield "reserved-head", "Heads 28 to 30 are reserved.", b"\x1c"
    yield "break-alone", "A break that ends nothing.", b"\xff"
    yield "text-not-utf8", "Text that is not UTF-8.", head(TEXT, 2) + b"\xc3\x28"
    yield "text-surrogate", "UTF-8 of a surrogate.", head(TEXT, 3) + b"\xed\xa0\x80"
    yield "list-of-four-billion", "A list that announces 2^32 items.", head(ARRAY, 2**32)
    yield "map-without-values", "A map that announces two pairs and has one.", head(MAP, 2) + a + one


def framing() -> Iterator[Case]:
    def read(words: str, about: str, reads: list[bytes], frames: list[bytes]) -> Case:
        return Case(words, about, {"reads": reads}, {"frames": frames})

    one, two = _frame(b"one"), _frame(b"two!")
    yield read("one", "A frame in one read.", [one], [b"one"])
    yield read("two-at-once", "Two frames in one read.", [one + two], [b"one", b"two!"])
    yield read("byte-by-byte", "A frame in as many reads as bytes.", [one[i : i + 1] for i in range(7)], [b"one"])
    yield read("across", "A read ends in the head of the second frame.", [one + two[:2], two[2:]], [b"one", b"two!"])
    yield read("empty", "A frame may be empty: framing does not look inside.", [_frame(b"")], [b""])
    yield read("unfinished", "What is not complete is no frame yet.", [one, two[:-1]], [b"one"])
    yield read("nothing", "No bytes, no frames.", [b""], [])
    most = 4 * 1024 * 1024
    yield read("largest-announced", "A frame of 4 MiB may be announced.", [most.to_bytes(4, "big")], [])
    over = (most + 1).to_bytes(4, "big")
    about = "Refused as soon as it is announced, before any of its bytes."
    yield refused("too-large", about, {"reads": [over]}, "too_large")
    yield refused("too-large-after-a-good-one", about, {"reads": [one + over]}, "too_large")
    yield refused("largest-length", about, {"reads": [b"\xff\xff", b"\xff\xff"]}, "too_large")


def ed25519() -> Iterator[Case]:
    for case in CASES:
        given = {"key": case.key, "message": case.message, "signature": case.signature}
        words = (
            case.why.replace(" (", "-").replace(")", "").replace(",", "").replace("/", "-").replace(" ", "-").lower()
        )
        words = "".join(letter for letter in words if letter.isalnum() or letter in "-+=")
        about = f"A signature {case.why}."
        yield Case(words, about, given, {}) if case.holds else refused(words, about, given, "bad_signature")


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body

"""Kinds `digest`, `transcript`, `price`, `policy`, `audit` and `sortition`: hashes and sums that both sides come to alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cbor import encode
from .cose import hashed
from .notation import Case, refused
from .world import HASH, Fields, name

SALT = name("a salt")
UNSATISFIABLE = "unsatisfiable_assurance"


def digest() -> Iterator[Case]:
    for words, plaintext in (
        ("of-work", encode({"claimed": 0, "sequences": [[1, 2]], "arrays": []})),
        ("of-nothing", b""),
    ):
        given: Fields = {"salt": SALT, "plaintext": plaintext}
        yield Case(words, "BLAKE3 over salt and plaintext.", given, {"digest": hashed(SALT, plaintext)})
    for policy in ("none", "quorum:2/3", "audit:50000+anchor"):
        commitment = hashed(b"fallow/1/policy", HASH, policy.encode())
        given = {"nonce": HASH, "policy": policy}
        words = f"commitment-{policy.replace(':', '-').replace('/', '-')}"
        yield Case(words, "What an order commits to.", given, {"commitment": commitment})


def rolled(salt: bytes, order: bytes, pieces: list[bytes]) -> list[bytes]:
    """The rolling hash before the first piece, and after each."""
    after = [hashed(b"fallow/1/transcript", salt, order)]
    for piece in pieces:
        after.append(hashed(after[-1], piece))
    return after


def transcript() -> Iterator[Case]:
    for words, about, pieces in (
        ("no-pieces", "It starts from salt and order.", []),
        ("one-piece", "One piece.", [b"one"]),
        ("three-pieces", "Each piece is hashed onto what came before.", [b"one", b"", b"three"]),
        ("pieces-joined", "Where a piece ends counts.", [b"onethree"]),
    ):
        start, *after = rolled(SALT, HASH, pieces)
        yield Case(words, about, {"salt": SALT, "order": HASH, "pieces": pieces}, {"start": start, "after": after})
    start, *after = rolled(name("another salt"), HASH, [b"one"])
    given = {"salt": name("another salt"), "order": HASH, "pieces": [b"one"]}
    yield Case("another-salt", "The same piece under another salt.", given, {"start": start, "after": after})


def price() -> Iterator[Case]:
    """Call 10, input token 1, output token 4, checked token 2."""
    for words, about, used, planned, end, amount in (
        ("complete", "10 + 40 + 48 * 4.", (1, 40, 48, 0), 48, "final", 242),
        (
            "complete-early",
            "A text that ends by itself pays its whole start: 50 + 3 * 4.",
            (1, 40, 3, 0),
            48,
            "final",
            62,
        ),
        ("half", "Half of the tokens planned, half of the start: 25 + 24 * 4.", (1, 40, 24, 0), 48, "open", 121),
        ("rounded-down", "50 * 1 / 48 is 1, and one token 4.", (1, 40, 1, 0), 48, "yielded", 5),
        ("nothing-delivered", "Without a token, nothing is owed.", (1, 40, 0, 0), 48, "yielded", 0),
        ("nothing-planned", "Without plan there is no share of the start.", (1, 40, 0, 0), 0, "yielded", 0),
        ("more-than-planned", "The start is paid at most once: 50 + 60 * 4.", (1, 40, 60, 0), 48, "open", 290),
        ("checked", "10 + 72 + 32 * 2.", (1, 72, 0, 32), 32, "final", 146),
        ("checked-in-part", "82 * 8 / 32 is 20, and 8 * 2.", (1, 72, 0, 8), 32, "yielded", 36),
        ("calls", "Three inputs of a call: 30 + 21.", (3, 21, 0, 0), 0, "final", 51),
        (
            "all-delivered-and-broken-off",
            "All tokens, not complete: the whole start.",
            (1, 40, 48, 0),
            48,
            "yielded",
            242,
        ),
        ("cancelled-at-once", "One call and one window of input: 10 + 32.", (1, 40, 0, 0), 48, "cancelled", 42),
        ("cancelled-short-input", "All of a short input: 10 + 7.", (1, 7, 0, 0), 48, "cancelled", 17),
        ("cancelled-early", "50 * 24 / 48 is less than 42: 42 + 24 * 4.", (1, 40, 24, 0), 48, "cancelled", 138),
        ("cancelled-late", "50 * 47 / 48 is more than 42: 48 + 47 * 4.", (1, 40, 47, 0), 48, "cancelled", 236),
        ("cancelled-calls", "Of three inputs of a call, one: 10 + 21.", (3, 21, 0, 0), 0, "cancelled", 31),
    ):
        yield _priced(words, about, world.price(), used, planned, end, amount)
    dear = world.price(call_ucr=0, input_token_ucr=2**53 - 1, output_token_ucr=2**53 - 1, checked_token_ucr=0)
    about = "Sums go beyond 2^53: 3 * (2^53 - 1) * 2 / 3 + 2 * (2^53 - 1)."
    yield _priced("beyond-exact-in-json", about, dear, (0, 3, 2, 0), 3, "open", 4 * (2**53 - 1))


def _priced(
    words: str, about: str, price: Fields, used: tuple[int, int, int, int], planned: int, end: str, amount: int
) -> Case:
    usage = dict(zip(("calls", "input_tokens", "output_tokens", "checked_tokens"), used, strict=True))
    given = {"price": price, "usage": usage, "planned_tokens": planned, "end": end}
    return Case(words, about, given, {"amount_ucr": amount})


def policy() -> Iterator[Case]:
    whole = 1_000_000
    for text, kind, k, n, ppm in (
        ("none", "none", 1, 1, whole),
        ("quorum:2/2", "quorum", 2, 2, whole),
        ("quorum:2/3", "quorum", 2, 3, whole),
        ("quorum:9/16", "quorum", 9, 16, whole),
        ("quorum:16/16", "quorum", 16, 16, whole),
        ("audit:1", "audit", 2, 2, 1),
        ("audit:50000", "audit", 2, 2, 50_000),
        ("audit:1000000", "audit", 2, 2, whole),
        ("adaptive:20000", "adaptive", 2, 2, 20_000),
        ("adaptive:1000000+anchor", "adaptive", 2, 2, whole),
        ("committee:2/3", "committee", 2, 3, whole),
        ("quorum:2/3+anchor", "quorum", 2, 3, whole),
        ("audit:50000+anchor", "audit", 2, 2, 50_000),
        ("committee:3/5+anchor", "committee", 3, 5, whole),
    ):
        words = text.replace(":", "-").replace("/", "-")
        read = {"kind": kind, "k": k, "n": n, "ppm": ppm, "anchored": text.endswith("+anchor")}
        yield Case(words, f"What {text} says.", {"text": text}, read)
    for words, about, text in (
        ("empty", "No text.", ""),
        ("unknown", "A kind that there is not.", "trust"),
        ("half", "Half is no majority.", "quorum:2/4"),
        ("one-of-one", "A quorum of one checks nothing.", "quorum:1/1"),
        ("one-of-two", "One of two is no majority.", "committee:1/2"),
        ("more-than-all", "Three of two.", "quorum:3/2"),
        ("too-many", "More than 16.", "quorum:9/17"),
        ("leading-zero", "A number has one form.", "quorum:02/3"),
        ("audit-nothing", "None of a million.", "audit:0"),
        ("audit-too-much", "More than a million.", "audit:1000001"),
        ("audit-leading-zero", "A number has one form.", "audit:050000"),
        ("adaptive-alone", "The least rate is part of the policy.", "adaptive"),
        ("none-anchored", "What is not checked has no anchor.", "none+anchor"),
        ("anchored-twice", "Two anchors.", "quorum:2/3+anchor+anchor"),
        ("anchor-alone", "An anchor of nothing.", "+anchor"),
        ("upper-case", "Words are in lower case.", "Quorum:2/3"),
        ("space", "A space.", "quorum: 2/3"),
        ("line-end", "A line end after it.", "quorum:2/3\n"),
        ("negative", "A sign.", "quorum:-2/3"),
        ("other-digits", "Digits outside of ASCII.", "quorum:\u0662/\u0663"),
        ("n-missing", "No N.", "quorum:2"),
    ):
        yield refused(words, about, {"text": text}, UNSATISFIABLE)


def audit_number(nonce: bytes, receipt: bytes) -> int:
    """What is held against the rate: below 2^64."""
    return int.from_bytes(hashed(b"fallow/1/audit", nonce, receipt)[:8], "big")


def audit() -> Iterator[Case]:
    receipts = [name(f"receipt {number}") for number in range(8)]

    def asked(words: str, about: str, receipt: bytes, policy: str, checked: bool) -> Case:
        return Case(words, about, {"nonce": HASH, "receipt": receipt, "policy": policy}, {"checked": checked})

    for number, receipt in enumerate(receipts):
        drawn = audit_number(HASH, receipt) * 1_000_000 < 400_000 * 2**64
        yield asked(f"of-many-{number}", "Two windows of five are checked, by chance.", receipt, "audit:400000", drawn)
    first = receipts[0]
    least = audit_number(HASH, first) * 1_000_000 // 2**64
    about = "The window's number, in millionths rounded down, is not below the rate."
    yield asked("at-the-rate", about, first, f"audit:{least}", False)
    yield asked("above-the-number", "The rate is one millionth higher.", first, f"audit:{least + 1}", True)
    yield asked("all", "A rate of a million: every window.", first, "audit:1000000", True)
    yield asked("adaptive-at-the-rate", "As an audit's, so far.", first, f"adaptive:{least}", False)
    yield asked("adaptive-above-the-number", "As an audit's.", first, f"adaptive:{least + 1}", True)
    yield asked("none", "Nothing is checked.", first, "none", False)
    yield asked("quorum", "Every window is checked.", first, "quorum:2/3", True)
    yield asked("committee", "Every window is checked.", first, "committee:2/3+anchor", True)
    given = {"nonce": HASH, "receipt": first, "policy": "audit:2000000"}
    yield refused("no-policy", "A rate that there is not.", given, UNSATISFIABLE)


def ranked(nonce: bytes, receipt: bytes, owners: list[bytes]) -> list[bytes]:
    """The owners in the order in which a committee takes them."""
    return sorted(owners, key=lambda owner: hashed(b"fallow/1/sortition", nonce, receipt, owner))


def sortition() -> Iterator[Case]:
    owners = [name(f"owner {number}") for number in range(6)]
    receipt = name("a receipt")
    order = ranked(HASH, receipt, owners)

    def lot(candidates: list[bytes], parties: list[bytes], count: int, receipt: bytes = receipt) -> dict[str, Any]:
        return {"nonce": HASH, "receipt": receipt, "candidates": candidates, "parties": parties, "count": count}

    yield Case("three-of-six", "The first three by their hash.", lot(owners, [], 3), {"drawn": order[:3]})
    about = "In which order the candidates stand makes no difference."
    yield Case("any-order", about, lot(owners[::-1], [], 3), {"drawn": order[:3]})
    about = "A party is passed over, and the next one takes its place."
    yield Case("party-passed-over", about, lot(owners, [order[1]], 3), {"drawn": [order[0], order[2], order[3]]})
    yield Case("strange-party", "A party that is no candidate.", lot(owners, [HASH], 2), {"drawn": order[:2]})
    yield Case("all", "All of them.", lot(owners, [], 6), {"drawn": order})
    yield Case("nobody", "A committee of nobody.", lot(owners, [], 0), {"drawn": []})
    twice = [*owners, *owners]
    yield Case("named-twice", "Who is named twice has one chance.", lot(twice, [], 3), {"drawn": order[:3]})
    other = name("another receipt")
    yield Case(
        "another-receipt",
        "Another receipt, another committee.",
        lot(owners, [], 3, other),
        {"drawn": ranked(HASH, other, owners)[:3]},
    )
    many = [name(f"owner {number}") for number in range(33)]
    yield Case(
        "of-thirty-two",
        "As many candidates as an order names.",
        lot(many[:32], [], 2),
        {"drawn": ranked(HASH, receipt, many[:32])[:2]},
    )
    yield refused("too-few", "Six candidates for seven places.", lot(owners, [], 7), UNSATISFIABLE)
    yield refused("too-few-beside-parties", "Two are parties.", lot(owners, order[:2], 5), UNSATISFIABLE)
    yield refused("too-few-twice-named", "Twelve names, six owners.", lot(twice, [], 7), UNSATISFIABLE)
    yield refused("too-many-candidates", "33 candidates.", lot(many, [], 2), UNSATISFIABLE)

"""Kind `delivery`: what both sides count as delivered, and the receipts for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .chance import SALT, rolled
from .cose import Envelope
from .notation import Case, refused
from .world import CLIENT, NODE, OTHER, Fields, name

_MACHINE = "float32/jaxlib-0.10.2/cpu/avx2/"
_VARIANTS = "1x256+4x256+4x1024"


def delivery() -> Iterator[Case]:
    for words, about, given, amount in _delivered():
        yield Case(words, about, given, {"amount_ucr": amount})
    for words, about, code, given in _not_delivered():
        yield refused(words, about, given, code)


def _piece(tokens: int, first: int = 0) -> Fields:
    return {"tokens": tokens, "values_micro": [-100 - first - i for i in range(tokens)], "piece": b"piece %d" % first}


def receipts_of(order: Envelope, price_fields: Fields, windows: list[tuple[list[Fields], str, int]]) -> list[Fields]:
    """The fields of the receipts for these windows: their pieces, how they end, and what is owed after each."""
    hashes = rolled(SALT, order.id, [piece["piece"] for pieces, _, _ in windows for piece in pieces])
    receipts: list[Fields] = []
    previous, first, count = None, 0, 0
    for sequence, (pieces, end, amount) in enumerate(windows):
        tokens, count = sum(piece["tokens"] for piece in pieces), count + len(pieces)
        fields = world.receipt(
            order=order.id, sequence=sequence, first_token=first, tokens=tokens, amount_ucr=amount, end=end,
            transcript=hashes[count] if count else order.id,
            values_micro=[value for piece in pieces for value in piece["values_micro"]],
        )  # fmt: skip
        receipts.append(fields if previous is None else {**fields, "previous": previous})
        previous, first = NODE.sign("receipt", receipts[-1]).id, first + tokens
    return receipts


def _given(
    order: Envelope,
    pieces: list[Fields],
    receipts: list[Fields],
    price: Fields | None = None,
    accepted: str = "float32/cpu",
) -> Fields:
    return {
        "order": order.whole, "price": price or world.price(), "class": accepted, "salt": SALT, "pieces": pieces,
        "receipts": [NODE.sign("receipt", fields).whole for fields in receipts],
    }  # fmt: skip


def _windows(*windows: tuple[list[Fields], str, int], **changes: Any) -> Fields:
    """Everything of a delivery in which each window has its receipt."""
    order = CLIENT.sign("job-order", world.order(**changes))
    pieces = [piece for pieces, _, _ in windows for piece in pieces]
    price = world.price(entry=changes.get("entry", "generate"))
    return _given(order, pieces, receipts_of(order, price, list(windows)), price)


def _delivered() -> Iterator[tuple[str, str, Fields, int]]:
    three = [_piece(3)]
    yield "complete", "One short window: 50 + 3 * 4.", _windows((three, "final", 62)), 62
    first, second = [_piece(16), _piece(16, 16)], [_piece(16, 32)]
    two = _windows((first, "open", 161), (second, "final", 242))
    yield "two-windows", "50 * 32 / 48 + 32 * 4 is 161; then all: 50 + 48 * 4.", two, 242
    yield "yielded", "50 * 3 / 48 + 3 * 4.", _windows((three, "yielded", 15)), 15
    yield (
        "cancelled",
        "The client had enough: one call and one window of input, 42 + 3 * 4.",
        _windows((three, "cancelled", 54)),
        54,
    )
    yield "nothing-delivered", "No piece: the transcript is the order's id.", _windows(([], "yielded", 0)), 0
    cut = _windows((first, "open", 161), ([], "yielded", 161))
    enough = _windows((first, "open", 161), ([], "cancelled", 161))
    yield "cancelled-after-a-window", "The last window is empty: it adds nothing.", enough, 161
    yield "cancelled-at-once", "No piece: one call and one window of input.", _windows(([], "cancelled", 42)), 42
    yield "nothing-after-a-window", "The last window is empty.", cut, 161
    call = [{"tokens": 0, "values_micro": [], "piece": b"a tensor"}]
    changes = {"entry": "call", "calls": 3, "input_tokens": 21, "planned_tokens": 0}
    yield "call", "Three calls, 21 tokens of input.", _windows((call, "final", 51), **changes), 51
    score = {"entry": "score", "input_tokens": 72, "planned_tokens": 3}
    yield "score", "10 + 72 + 3 * 2: checked tokens have their own price.", _windows((three, "final", 88), **score), 88
    big = [_piece(40)]
    yield "over-full", "A window ends with the piece that fills it.", _windows((big, "final", 210)), 210
    order = CLIENT.sign("job-order", world.order())
    (one,) = receipts_of(order, world.price(), [(three, "final", 62)])
    for words, about, ran in (
        ("class-one-variant", "One of the programs ran.", "4x256"),
        ("class-two-variants", "Two of them ran, in the order of the class that was accepted.", "1x256+4x1024"),
        ("class-all-variants", "All of them ran, or none did.", _VARIANTS),
    ):
        receipt = {**one, "numerics_class": _MACHINE + ran}
        yield words, about, _given(order, three, [receipt], accepted=_MACHINE + _VARIANTS), 62
    yield "no-receipt-yet", "Nothing is owed before a receipt.", _given(order, three, []), 0


def _not_delivered() -> Iterator[tuple[str, str, str, Fields]]:
    order = CLIENT.sign("job-order", world.order())
    pieces = [_piece(3)]
    (good,) = receipts_of(order, world.price(), [(pieces, "final", 62)])
    for words, about, changes in (
        ("another-order", "For another order.", {"order": name("another order")}),
        ("sequence-skipped", "The first receipt has sequence 0.", {"sequence": 1}),
        ("previous-invented", "The first receipt has none before it.", {"previous": name("a receipt")}),
        ("first-token-moved", "It begins at another token.", {"first_token": 1}),
        ("tokens-more", "A token more than came.", {"tokens": 4}),
        ("transcript-other", "Another transcript.", {"transcript": name("a transcript")}),
        ("transcript-as-if-empty", "The order's id, though pieces came.", {"transcript": order.id}),
        ("values-other", "Other proof values than came.", {"values_micro": [-100, -101, -103]}),
        ("values-missing", "No proof values.", {"values_micro": []}),
        ("class-other", "Another numerics class than accepted.", {"numerics_class": "float32/gpu"}),
        ("amount-more", "A micro-credit too much.", {"amount_ucr": 63}),
        ("amount-less", "A micro-credit too little.", {"amount_ucr": 61}),
        ("end-other", "Yielded, at the price of a complete job.", {"end": "yielded"}),
    ):
        yield words, about, "bad_record", _given(order, pieces, [{**good, **changes}])
    for words, about, claimed in (
        ("class-variant-not-accepted", "A program that may not run.", _MACHINE + "8x256"),
        ("class-variant-more", "One that may, and one that may not.", _MACHINE + "4x256+8x256"),
        ("class-variants-turned", "In another order.", _MACHINE + "4x1024+1x256"),
        ("class-variant-twice", "One of them twice.", _MACHINE + "4x256+4x256"),
        ("class-without-variant", "None at all.", _MACHINE),
        ("class-other-machine", "Another instruction set.", _MACHINE.replace("avx2", "avx") + "4x256"),
    ):
        receipt = {**good, "numerics_class": claimed}
        yield words, about, "bad_record", _given(order, pieces, [receipt], accepted=_MACHINE + _VARIANTS)
    windows = [([_piece(16), _piece(16, 16)], "open", 161), ([_piece(16, 32)], "final", 242)]
    one, two = receipts_of(order, world.price(), windows)
    pieces = [piece for each, _, _ in windows for piece in each]
    yield (
        "chain-broken",
        "The second receipt names another before it.",
        "bad_record",
        _given(order, pieces, [one, {**two, "previous": name("a receipt")}]),
    )
    yield (
        "amount-not-cumulative",
        "The second window's own amount.",
        "bad_record",
        _given(order, pieces, [one, {**two, "amount_ucr": 81}]),
    )
    yield "receipt-twice", "The first receipt again.", "bad_record", _given(order, pieces, [one, one])
    by_other = {**_given(order, [_piece(3)], []), "receipts": [OTHER.sign("receipt", good).whole]}
    yield "by-another", "A receipt by another node.", "bad_signature", by_other

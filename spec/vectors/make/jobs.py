"""Kind `job`: the moves of one job, each side's clock, and all that is no move."""

from __future__ import annotations

from collections.abc import Iterator

from .legal_moves import legal
from .moves import PATHS, RUN, UNPAID, C, X, moves, played
from .notation import Case, refused


def job() -> Iterator[Case]:
    yield from legal()
    yield from _illegal()
    yield from _unpaid()
    yield from _timed_out()


_ILLEGAL = {
    "idle": "x accept, c cancel, x chunk, x order",
    "ordered": "c order, x chunk, c accept, x receipt, c voucher, x final, x yield, x failed",
    "withdrawn": "c cancel, c order, c voucher, x chunk, x receipt, x final, x yield, x failed",
    "running": "x accept, c chunk, c receipt, c settle, c decline, x voucher, c failed, c order",
    "stopping": "c cancel, c settle, c decline, c order, x accept, x refuse",
    "yielding": "x chunk, x yield, x attestation, c settle, c decline",
    "closing": "x chunk, x receipt, x final, x yield, x failed, x decline",
    "settled": "c voucher, c decline, c heartbeat",
    "unsettled": "c settle, c heartbeat",
    "refused": "c heartbeat, c cancel",
    "broken": "c cancel, c heartbeat",
}
"""State -> moves that nobody may make in it."""


def _illegal() -> Iterator[Case]:
    for state, each in _ILLEGAL.items():
        for move in each.split(", "):
            sender, event = move.split()
            path, party = PATHS[state], C if sender == "c" else X
            text = f"{path}, 600 {move}" if path else f"600 {move}"
            at = len(moves(path)) if path else 0
            for role in (C, X) if state in ("ordered", "running") else (C,):
                about = f"The {party} may not send {event} while the job is {state}."
                yield refused(
                    f"{state}-{party}-{event}-seen-by-{role}", about, played(role, text), "illegal_move", at=at
                )


def _unpaid() -> Iterator[Case]:
    for words, about, role, text in (
        ("chunk-beyond-unpaid", "A chunk beyond the window that may be unpaid.", C, f"{UNPAID}, 600 x chunk"),
        ("receipt-beyond-unpaid", "A receipt beyond the one that may be unpaid.", X, f"{UNPAID}, 600 x receipt"),
        ("chunk-beyond-while-stopping", "Neither after a cancel.", C, f"{UNPAID}, 550 c cancel, 600 x chunk"),
        ("voucher-for-nothing", "A voucher without receipt.", X, f"{RUN}, 200 c voucher"),
        ("voucher-twice", "Two vouchers for a receipt.", X, f"{RUN}, 200 x receipt, 300 c voucher, 400 c voucher"),
        ("settle-said-twice", "The client may say nothing after the end.", C, f"{PATHS['settled']}, 400 c settle"),
        (
            "settle-before-the-voucher",
            "Two receipts are unpaid.",
            X,
            f"{RUN}, 200 x receipt, 300 x final, 400 c settle",
        ),
        ("settle-before-two-vouchers", "Three are.", C, f"{UNPAID}, 600 x final, 700 c settle"),
        (
            "settle-after-the-last-voucher",
            "The last receipt has its voucher.",
            X,
            f"{PATHS['closing']}, 300 c voucher, 400 c settle",
        ),
    ):
        yield refused(words, about, played(role, text), "illegal_move", at=len(moves(text)) - 1)


def _timed_out() -> Iterator[Case]:
    for words, about, given in (
        ("unanswered", "The order was not answered.", played(C, "0 c order", expire_at=2_000)),
        (
            "withdrawn",
            "The order was not answered, and cancelled.",
            played(C, "0 c order, 100 c cancel", expire_at=2_000),
        ),
        ("silent", "The executor fell silent.", played(C, RUN, expire_at=850)),
        ("silent-client", "The client fell silent.", played(X, RUN, expire_at=750)),
        ("first-chunk-late", "The first chunk is late.", played(C, RUN, first=300, expire_at=400)),
        ("gap-too-long", "The next chunk is late.", played(C, f"{RUN}, 300 x chunk", gap=200, expire_at=500)),
        ("voucher-late", "The voucher is late.", played(X, f"{UNPAID}, 20300 c heartbeat", expire_at=20_400)),
        (
            "last-voucher-late",
            "The last voucher is late.",
            played(X, f"{PATHS['closing']}, 20000 c heartbeat", expire_at=20_200),
        ),
        (
            "last-receipt-late",
            "The last receipt is late.",
            played(C, f"{PATHS['yielding']}, 900 x heartbeat", expire_at=1_200),
        ),
        (
            "too-long",
            "Longer than 15 minutes.",
            played(C, f"{RUN}, 899900 x heartbeat", first=10**6, expire_at=900_000),
        ),
    ):
        yield refused(f"late-{words}", about, given, "timed_out")

"""Kind `job`: the moves of one job, each side's clock, and all that is no move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .notation import Case, refused
from .world import Fields

_C, _X = "client", "executor"
Move = list[Any]


def _moves(text: str) -> list[Move]:
    """`0 c order, 100 x accept`: time, sender and event of each move."""
    parties = {"c": _C, "x": _X}
    words = [move.split() for move in text.split(",")]
    return [[int(now_ms), parties[sender], event] for now_ms, sender, event in words]


def _played(role: str, text: str, *, first: int = 20_000, gap: int = 5_000, expire_at: int | None = None) -> Fields:
    given = {"role": role, "first_chunk_ms_max": first, "gap_ms_max": gap, "moves": _moves(text) if text else []}
    return given if expire_at is None else {**given, "expire_at_ms": expire_at}


_RUN = "0 c order, 100 x accept"
_UNPAID = f"{_RUN}, 200 x chunk, 300 x receipt, 400 x chunk, 500 x receipt"
_PATHS = {
    "idle": "",
    "ordered": "0 c order",
    "withdrawn": "0 c order, 100 c cancel",
    "running": _RUN,
    "stopping": f"{_RUN}, 200 c cancel",
    "yielding": f"{_RUN}, 200 x yield",
    "closing": f"{_RUN}, 200 x final",
    "settled": f"{_RUN}, 200 x final, 300 c settle",
    "unsettled": f"{_RUN}, 200 x final, 300 c decline",
    "refused": "0 c order, 100 x refuse",
    "broken": f"{_RUN}, 200 x failed",
}
"""The shortest way into each state."""


def job() -> Iterator[Case]:
    for words, about, given, state, unpaid, deadline_ms in _legal():
        yield Case(words, about, given, {"state": state, "unpaid": unpaid, "deadline_ms": deadline_ms})
    for state, moves in _ILLEGAL.items():
        for move in moves.split(", "):
            sender, event = move.split()
            path = _PATHS[state]
            text = f"{path}, 600 {move}" if path else f"600 {move}"
            at = len(_moves(path)) if path else 0
            for role in (_C, _X) if state in ("ordered", "running") else (_C,):
                about = f"The {_C if sender == 'c' else _X} may not send {event} while the job is {state}."
                words = f"{state}-{'client' if sender == 'c' else 'executor'}-{event}-seen-by-{role}"
                yield refused(words, about, _played(role, text), "illegal_move", at=at)
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


def _legal() -> Iterator[tuple[str, str, Fields, str, int, int]]:
    """Bounds: answer 2000 ms, silence 750 ms, voucher 20000 ms, last receipt 1000 ms, whole job 900000 ms."""
    long_job = 900_000
    yield "nothing-yet", "Before the order.", _played(_C, ""), "idle", 0, 2_000
    yield "ordered", "The answer's bound runs from the order.", _played(_C, "0 c order"), "ordered", 0, 2_000
    yield (
        "ordered-heartbeats",
        "Heartbeats do not answer it.",
        _played(_C, "0 c order, 900 x heartbeat"),
        "ordered",
        0,
        2_000,
    )
    yield "accepted", "Silence is the nearest bound.", _played(_C, _RUN), "running", 0, 850
    yield "first-chunk-bound", "The order's own bound is nearer.", _played(_C, _RUN, first=300), "running", 0, 400
    chunk = f"{_RUN}, 300 x chunk"
    yield "gap-bound", "After the first chunk, the gap's bound.", _played(_C, chunk, gap=200), "running", 0, 500
    receipt = f"{chunk}, 310 x receipt, 320 c voucher"
    yield "voucher-is-progress", "A voucher lets the next gap begin.", _played(_C, receipt, gap=200), "running", 0, 520
    yield (
        "blocked-has-no-gap",
        "Nothing may be delivered, so nothing is late.",
        _played(_C, _UNPAID, gap=200),
        "running",
        2,
        1_250,
    )
    late = f"{_UNPAID}, 20300 c heartbeat"
    yield "voucher-bound", "20 s from the last chunk.", _played(_X, late), "running", 2, 20_400
    paid = f"{late}, 20350 c voucher"
    yield "unblocked", "After a voucher, only silence counts.", _played(_X, paid), "running", 1, 21_100
    one_open = f"{_RUN}, 200 x chunk, 300 x receipt, 400 x chunk"
    yield "one-window-ahead", "The window after an unpaid one may come.", _played(_X, one_open), "running", 1, 750
    whole = f"{receipt}, 400 x chunk, 500 x final, 600 c settle"
    yield "whole-by-client", "A job from order to settlement.", _played(_C, whole), "settled", 0, 1_250
    yield "whole-by-executor", "The same, seen by the executor.", _played(_X, whole), "settled", 0, 1_350
    at_disk = f"{_RUN}, 200 x chunk, 300 x yield, 400 x receipt, 410 c voucher, 500 x final"
    about = "A receipt that was being written when the owner came follows the notice."
    yield "yielding-late-receipt", about, _played(_C, at_disk), "closing", 1, 1_250
    two_final = f"{_UNPAID}, 600 x final, 610 c voucher, 620 c voucher, 630 c settle"
    yield "final-beyond-unpaid", "The final receipt may always come.", _played(_X, two_final), "settled", 0, 1_380
    yield (
        "closing-bound",
        "The last voucher has 20 s.",
        _played(_X, f"{_PATHS['closing']}, 20000 c heartbeat"),
        "closing",
        1,
        20_200,
    )
    yield (
        "closing-by-client",
        "The client waits for nothing but silence.",
        _played(_C, _PATHS["closing"]),
        "closing",
        1,
        950,
    )
    stopping = f"{_RUN}, 200 c cancel, 900 x heartbeat"
    yield "stopping-bound", "The last receipt has a second.", _played(_C, stopping), "stopping", 0, 1_200
    yield "stopping-by-executor", "The executor knows only silence.", _played(_X, stopping), "stopping", 0, 950
    stopped = f"{_RUN}, 150 c cancel, 160 x chunk, 170 x receipt, 180 c voucher"
    stopped = f"{stopped}, 185 x attestation, 190 x yield, 200 x final, 210 c settle"
    yield "stopped", "What was under way is legal after a cancel.", _played(_C, stopped), "settled", 0, 950
    about = "A cancelled order has the answer's bound as any other."
    yield "cancelled-unanswered", about, _played(_C, "0 c order, 100 c cancel"), "withdrawn", 0, 2_000
    about = "Heartbeats do not answer it."
    waiting = "0 c order, 100 c cancel, 900 x heartbeat"
    yield "withdrawn-heartbeats", about, _played(_C, waiting), "withdrawn", 0, 2_000
    about = "From the acceptance on the last receipt has a second."
    crossing = "0 c order, 100 c cancel, 110 x accept, 800 x heartbeat"
    yield "withdrawn-and-accepted", about, _played(_C, crossing), "stopping", 0, 1_110
    crossing = "0 c order, 100 c cancel, 110 x accept, 120 x final, 130 c decline"
    yield "cancelled-before-accept", "The answer crosses the cancel.", _played(_C, crossing), "unsettled", 1, 870
    crossing = f"{_PATHS['closing']}, 300 c cancel, 20000 c heartbeat"
    about = "A cancel that crosses the final receipt changes nothing, and is no progress."
    yield "cancel-crosses-final", about, _played(_X, crossing), "closing", 1, 20_200
    crossing = f"{_PATHS['closing']}, 300 c cancel, 400 c settle"
    yield "settled-after-a-cancel", "The client pays all the same.", _played(_C, crossing), "settled", 0, 950
    again = f"{_PATHS['yielding']}, 300 c cancel, 900 x heartbeat"
    about = "A cancel while yielding is no progress: it changes nothing."
    yield "cancelled-while-yielding", about, _played(_C, again), "yielding", 0, 1_200
    yield (
        "refused-after-cancel",
        "A refusal crosses the cancel.",
        _played(_X, "0 c order, 100 c cancel, 110 x refuse"),
        "refused",
        0,
        850,
    )
    yielded = f"{_UNPAID}, 550 x yield, 560 c voucher, 570 c cancel, 580 x final, 590 c voucher, 600 c settle"
    yield "yielded", "The owner takes the machine back.", _played(_X, yielded), "settled", 0, 1_350
    yielding = f"{_RUN}, 200 x yield, 900 x heartbeat"
    yield "yielding-bound", "The last receipt has a second.", _played(_C, yielding), "yielding", 0, 1_200
    yield "refused", "The executor says no.", _played(_C, _PATHS["refused"]), "refused", 0, 850
    yield "failed", "The executor cannot go on.", _played(_C, _PATHS["broken"]), "broken", 0, 950
    yield (
        "failed-while-stopping",
        "It cannot go on after a cancel.",
        _played(_C, f"{_PATHS['stopping']}, 300 x failed"),
        "broken",
        0,
        1_050,
    )
    yield (
        "failed-while-yielding",
        "It cannot even leave.",
        _played(_C, f"{_PATHS['yielding']}, 300 x failed"),
        "broken",
        0,
        1_050,
    )
    yield (
        "declined",
        "The client refuses to pay for the last receipt.",
        _played(_C, _PATHS["unsettled"]),
        "unsettled",
        1,
        950,
    )
    scored = f"{_RUN}, 200 x chunk, 210 x attestation, 220 x final, 230 c settle"
    yield "attested", "A checker's job.", _played(_C, scored), "settled", 0, 970
    heard = f"{_RUN}, 899900 x heartbeat"
    yield (
        "whole-job-bound",
        "No job takes longer than 15 minutes.",
        _played(_C, heard, first=long_job),
        "running",
        0,
        long_job,
    )
    yield "not-from-zero", "Times count from the first move.", _played(_X, "5000 c order"), "ordered", 0, 7_000
    yield "not-expired", "A millisecond before the deadline.", _played(_C, _RUN, expire_at=849), "running", 0, 850
    ended = _played(_C, _PATHS["settled"], expire_at=10**7)
    yield "nothing-after-the-end", "What has ended does not time out.", ended, "settled", 0, 950
    for state, move, unpaid, deadline_ms in (
        ("settled", "x chunk", 0, 950),
        ("settled", "x heartbeat", 0, 950),
        ("unsettled", "x heartbeat", 1, 950),
        ("refused", "x accept", 0, 850),
        ("broken", "x chunk", 0, 950),
        ("broken", "x heartbeat", 0, 950),
    ):
        given = _played(_C, f"{_PATHS[state]}, 600 {move}")
        words = f"{state}-executor-{move.split()[1]}-comes-late"
        yield words, "What comes after the end changes nothing.", given, state, unpaid, deadline_ms
    twice = _played(_X, f"{_PATHS['settled']}, 400 c settle, 500 c order")
    yield (
        "settle-twice",
        "Nothing follows the end: the executor hears it, and it changes nothing.",
        twice,
        "settled",
        0,
        1_050,
    )


def _unpaid() -> Iterator[Case]:
    for words, about, role, text in (
        ("chunk-beyond-unpaid", "A chunk beyond the window that may be unpaid.", _C, f"{_UNPAID}, 600 x chunk"),
        ("receipt-beyond-unpaid", "A receipt beyond the one that may be unpaid.", _X, f"{_UNPAID}, 600 x receipt"),
        ("chunk-beyond-while-stopping", "Neither after a cancel.", _C, f"{_UNPAID}, 550 c cancel, 600 x chunk"),
        ("voucher-for-nothing", "A voucher without receipt.", _X, f"{_RUN}, 200 c voucher"),
        ("voucher-twice", "Two vouchers for a receipt.", _X, f"{_RUN}, 200 x receipt, 300 c voucher, 400 c voucher"),
        ("settle-said-twice", "The client may say nothing after the end.", _C, f"{_PATHS['settled']}, 400 c settle"),
        (
            "settle-before-the-voucher",
            "Two receipts are unpaid.",
            _X,
            f"{_RUN}, 200 x receipt, 300 x final, 400 c settle",
        ),
        ("settle-before-two-vouchers", "Three are.", _C, f"{_UNPAID}, 600 x final, 700 c settle"),
        (
            "settle-after-the-last-voucher",
            "The last receipt has its voucher.",
            _X,
            f"{_PATHS['closing']}, 300 c voucher, 400 c settle",
        ),
    ):
        yield refused(words, about, _played(role, text), "illegal_move", at=len(_moves(text)) - 1)


def _timed_out() -> Iterator[Case]:
    for words, about, given in (
        ("unanswered", "The order was not answered.", _played(_C, "0 c order", expire_at=2_000)),
        (
            "withdrawn",
            "The order was not answered, and cancelled.",
            _played(_C, "0 c order, 100 c cancel", expire_at=2_000),
        ),
        ("silent", "The executor fell silent.", _played(_C, _RUN, expire_at=850)),
        ("silent-client", "The client fell silent.", _played(_X, _RUN, expire_at=750)),
        ("first-chunk-late", "The first chunk is late.", _played(_C, _RUN, first=300, expire_at=400)),
        ("gap-too-long", "The next chunk is late.", _played(_C, f"{_RUN}, 300 x chunk", gap=200, expire_at=500)),
        ("voucher-late", "The voucher is late.", _played(_X, f"{_UNPAID}, 20300 c heartbeat", expire_at=20_400)),
        (
            "last-voucher-late",
            "The last voucher is late.",
            _played(_X, f"{_PATHS['closing']}, 20000 c heartbeat", expire_at=20_200),
        ),
        (
            "last-receipt-late",
            "The last receipt is late.",
            _played(_C, f"{_PATHS['yielding']}, 900 x heartbeat", expire_at=1_200),
        ),
        (
            "too-long",
            "Longer than 15 minutes.",
            _played(_C, f"{_RUN}, 899900 x heartbeat", first=10**6, expire_at=900_000),
        ),
    ):
        yield refused(f"late-{words}", about, given, "timed_out")

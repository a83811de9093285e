"""Moves of one job that are legal: where they lead, and what is the next deadline.

Bounds: answer 2000 ms, silence 750 ms, voucher 20000 ms, last receipt 1000 ms, whole job 900000 ms.
"""

from __future__ import annotations

from collections.abc import Iterator

from .moves import PATHS, RUN, UNPAID, C, X, played
from .notation import Case
from .world import Fields

LONG_JOB_MS = 900_000


def legal() -> Iterator[Case]:
    """From the order to what comes after the end."""
    yield from _delivering()
    yield from _closing()
    yield from _cancelled()
    yield from _other_ends()
    yield from _timed()
    yield from _after_the_end()


def _case(words: str, about: str, given: Fields, state: str, unpaid: int, deadline_ms: int) -> Case:
    return Case(words, about, given, {"state": state, "unpaid": unpaid, "deadline_ms": deadline_ms})


_CHUNK = f"{RUN}, 300 x chunk"
_PAID = f"{_CHUNK}, 310 x receipt, 320 c voucher"


def _delivering() -> Iterator[Case]:
    yield _case("nothing-yet", "Before the order.", played(C, ""), "idle", 0, 2_000)
    yield _case("ordered", "The answer's bound runs from the order.", played(C, "0 c order"), "ordered", 0, 2_000)
    heartbeats = played(C, "0 c order, 900 x heartbeat")
    yield _case("ordered-heartbeats", "Heartbeats do not answer it.", heartbeats, "ordered", 0, 2_000)
    yield _case("accepted", "Silence is the nearest bound.", played(C, RUN), "running", 0, 850)
    early = played(C, RUN, first=300)
    yield _case("first-chunk-bound", "The order's own bound is nearer.", early, "running", 0, 400)
    yield _case("gap-bound", "After the first chunk, the gap's bound.", played(C, _CHUNK, gap=200), "running", 0, 500)
    paid = played(C, _PAID, gap=200)
    yield _case("voucher-is-progress", "A voucher lets the next gap begin.", paid, "running", 0, 520)
    unpaid, about = played(C, UNPAID, gap=200), "Nothing may be delivered, so nothing is late."
    yield _case("blocked-has-no-gap", about, unpaid, "running", 2, 1_250)
    late = f"{UNPAID}, 20300 c heartbeat"
    yield _case("voucher-bound", "20 s from the last chunk.", played(X, late), "running", 2, 20_400)
    answered = played(X, f"{late}, 20350 c voucher")
    yield _case("unblocked", "After a voucher, only silence counts.", answered, "running", 1, 21_100)
    one_open = played(X, f"{RUN}, 200 x chunk, 300 x receipt, 400 x chunk")
    yield _case("one-window-ahead", "The window after an unpaid one may come.", one_open, "running", 1, 750)


def _closing() -> Iterator[Case]:
    whole = f"{_PAID}, 400 x chunk, 500 x final, 600 c settle"
    yield _case("whole-by-client", "A job from order to settlement.", played(C, whole), "settled", 0, 1_250)
    yield _case("whole-by-executor", "The same, seen by the executor.", played(X, whole), "settled", 0, 1_350)
    at_disk = played(C, f"{RUN}, 200 x chunk, 300 x yield, 400 x receipt, 410 c voucher, 500 x final")
    about = "A receipt that was being written when the owner came follows the notice."
    yield _case("yielding-late-receipt", about, at_disk, "closing", 1, 1_250)
    two_final = played(X, f"{UNPAID}, 600 x final, 610 c voucher, 620 c voucher, 630 c settle")
    yield _case("final-beyond-unpaid", "The final receipt may always come.", two_final, "settled", 0, 1_380)
    late = played(X, f"{PATHS['closing']}, 20000 c heartbeat")
    yield _case("closing-bound", "The last voucher has 20 s.", late, "closing", 1, 20_200)
    by_client, about = played(C, PATHS["closing"]), "The client waits for nothing but silence."
    yield _case("closing-by-client", about, by_client, "closing", 1, 950)


def _cancelled() -> Iterator[Case]:
    stopping = f"{RUN}, 200 c cancel, 900 x heartbeat"
    yield _case("stopping-bound", "The last receipt has a second.", played(C, stopping), "stopping", 0, 1_200)
    yield _case("stopping-by-executor", "The executor knows only silence.", played(X, stopping), "stopping", 0, 950)
    stopped = f"{RUN}, 150 c cancel, 160 x chunk, 170 x receipt, 180 c voucher"
    stopped = f"{stopped}, 185 x attestation, 190 x yield, 200 x final, 210 c settle"
    yield _case("stopped", "What was under way is legal after a cancel.", played(C, stopped), "settled", 0, 950)
    unanswered, about = played(C, PATHS["withdrawn"]), "A cancelled order has the answer's bound as any other."
    yield _case("cancelled-unanswered", about, unanswered, "withdrawn", 0, 2_000)
    waiting = played(C, f"{PATHS['withdrawn']}, 900 x heartbeat")
    yield _case("withdrawn-heartbeats", "Heartbeats do not answer it.", waiting, "withdrawn", 0, 2_000)
    accepted = played(C, f"{PATHS['withdrawn']}, 110 x accept, 800 x heartbeat")
    about = "From the acceptance on the last receipt has a second."
    yield _case("withdrawn-and-accepted", about, accepted, "stopping", 0, 1_110)
    crossing = played(C, f"{PATHS['withdrawn']}, 110 x accept, 120 x final, 130 c decline")
    yield _case("cancelled-before-accept", "The answer crosses the cancel.", crossing, "unsettled", 1, 870)
    crossing = played(X, f"{PATHS['closing']}, 300 c cancel, 20000 c heartbeat")
    about = "A cancel that crosses the final receipt changes nothing, and is no progress."
    yield _case("cancel-crosses-final", about, crossing, "closing", 1, 20_200)
    paid = played(C, f"{PATHS['closing']}, 300 c cancel, 400 c settle")
    yield _case("settled-after-a-cancel", "The client pays all the same.", paid, "settled", 0, 950)
    again = played(C, f"{PATHS['yielding']}, 300 c cancel, 900 x heartbeat")
    about = "A cancel while yielding is no progress: it changes nothing."
    yield _case("cancelled-while-yielding", about, again, "yielding", 0, 1_200)
    no = played(X, f"{PATHS['withdrawn']}, 110 x refuse")
    yield _case("refused-after-cancel", "A refusal crosses the cancel.", no, "refused", 0, 850)


def _other_ends() -> Iterator[Case]:
    yielded = f"{UNPAID}, 550 x yield, 560 c voucher, 570 c cancel, 580 x final, 590 c voucher, 600 c settle"
    yield _case("yielded", "The owner takes the machine back.", played(X, yielded), "settled", 0, 1_350)
    yielding = played(C, f"{PATHS['yielding']}, 900 x heartbeat")
    yield _case("yielding-bound", "The last receipt has a second.", yielding, "yielding", 0, 1_200)
    yield _case("refused", "The executor says no.", played(C, PATHS["refused"]), "refused", 0, 850)
    yield _case("failed", "The executor cannot go on.", played(C, PATHS["broken"]), "broken", 0, 950)
    stopping = played(C, f"{PATHS['stopping']}, 300 x failed")
    yield _case("failed-while-stopping", "It cannot go on after a cancel.", stopping, "broken", 0, 1_050)
    yielding = played(C, f"{PATHS['yielding']}, 300 x failed")
    yield _case("failed-while-yielding", "It cannot even leave.", yielding, "broken", 0, 1_050)
    unsettled, about = played(C, PATHS["unsettled"]), "The client refuses to pay for the last receipt."
    yield _case("declined", about, unsettled, "unsettled", 1, 950)
    scored = played(C, f"{RUN}, 200 x chunk, 210 x attestation, 220 x final, 230 c settle")
    yield _case("attested", "A checker's job.", scored, "settled", 0, 970)


def _timed() -> Iterator[Case]:
    heard = played(C, f"{RUN}, 899900 x heartbeat", first=LONG_JOB_MS)
    yield _case("whole-job-bound", "No job takes longer than 15 minutes.", heard, "running", 0, LONG_JOB_MS)
    later = played(X, "5000 c order")
    yield _case("not-from-zero", "Times count from the first move.", later, "ordered", 0, 7_000)
    in_time = played(C, RUN, expire_at=849)
    yield _case("not-expired", "A millisecond before the deadline.", in_time, "running", 0, 850)
    ended = played(C, PATHS["settled"], expire_at=10**7)
    yield _case("nothing-after-the-end", "What has ended does not time out.", ended, "settled", 0, 950)


def _after_the_end() -> Iterator[Case]:
    for state, move, unpaid, deadline_ms in (
        ("settled", "x chunk", 0, 950),
        ("settled", "x heartbeat", 0, 950),
        ("unsettled", "x heartbeat", 1, 950),
        ("refused", "x accept", 0, 850),
        ("broken", "x chunk", 0, 950),
        ("broken", "x heartbeat", 0, 950),
    ):
        words = f"{state}-executor-{move.split()[1]}-comes-late"
        given = played(C, f"{PATHS[state]}, 600 {move}")
        yield _case(words, "What comes after the end changes nothing.", given, state, unpaid, deadline_ms)
    twice = played(X, f"{PATHS['settled']}, 400 c settle, 500 c order")
    about = "Nothing follows the end: the executor hears it, and it changes nothing."
    yield _case("settle-twice", about, twice, "settled", 0, 1_050)

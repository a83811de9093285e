"""Kind `channel`: what payer and payee make of vouchers, forfeits and the clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cose import Signer
from .notation import Case, refused
from .world import CLIENT, DAY_MS, HOUR_MS, NOW_MS, OTHER, SKEW_MS, Fields, name

_CHANNEL = CLIENT.sign("channel", world.channel())
_GRACE_MS, _LIMIT_UCR = 60_000, 1_000
_EXPIRES_MS = NOW_MS + DAY_MS
_RELEASE_MS = NOW_MS + HOUR_MS
_HELD = {"held_ppm": 250_000, "hold_ms": HOUR_MS}
"""Of 101, 25 may be held: 25.25, rounded down."""

Step = dict[str, Any]


def channel() -> Iterator[Case]:
    yield from _paying()
    yield from _forfeiting()
    yield from _taking()
    yield from _closing()
    yield from _refused_to_pay()
    yield from _refused_to_take()
    yield from _refused_to_forfeit()
    yield from _refused_to_close()


def _claim(owed_ucr: int, held_ppm: int = 0, hold_ms: int = 0, receipt_ms: int = NOW_MS) -> Fields:
    return {"owed_ucr": owed_ucr, "held_ppm": held_ppm, "hold_ms": hold_ms, "receipt_ms": receipt_ms}


def _pay(number: int, owed_ucr: int, now_ms: int = NOW_MS, **terms: int) -> Step:
    claim = _claim(owed_ucr, receipt_ms=now_ms, **terms)
    return {"event": "pay", "now_ms": now_ms, "receipt": name(f"receipt {number}"), "claim": claim}


def _voucher(number: int, due: int, held: int = 0, forfeited: int = 0, release_at_ms: int | None = None) -> Fields:
    release = _RELEASE_MS if release_at_ms is None else release_at_ms
    return _rolling(number, due, forfeited, *[(held, release)] * bool(held))


def _rolling(number: int, due: int, forfeited: int, *parts: tuple[int, int]) -> Fields:
    """A voucher that holds in parts."""
    return {
        "channel": _CHANNEL.id, "receipt": name(f"receipt {number}"), "due_ucr": due, "held": world.held(*parts),
        "forfeited_ucr": forfeited,
    }  # fmt: skip


def _receive(voucher: Fields, claim: Fields, now_ms: int = NOW_MS, signer: Signer = CLIENT) -> Step:
    return {"event": "receive", "now_ms": now_ms, "voucher": signer.sign("voucher", voucher).whole, "claim": claim}


def _present(voucher: Fields, now_ms: int, signer: Signer = CLIENT) -> Step:
    return {"event": "present", "now_ms": now_ms, "voucher": signer.sign("voucher", voucher).whole}


def _forfeit(ucr: int, now_ms: int = NOW_MS, ground: str = "a verdict", kind: str = "verdict") -> Step:
    return {"event": "forfeit", "now_ms": now_ms, "ground": {"kind": kind, "id": name(ground)}, "ucr": ucr}


def _close(by: str, now_ms: int = NOW_MS) -> Step:
    return {"event": "close", "now_ms": now_ms, "by": by}


def _given(party: str, steps: list[Step], now_ms: int) -> Fields:
    return {"party": party, "channel": _CHANNEL.whole, "steps": steps, "now_ms": now_ms}


def _state(
    words: str, about: str, party: str, steps: list[Step], *, now_ms: int = NOW_MS, vouchers: tuple[Fields, ...] = (),
    phase: str = "open", due: int = 0, held: int = 0, forfeited: int = 0, deadline_ms: int | None = _EXPIRES_MS,
) -> Case:  # fmt: skip
    """What stands at the end: `due` and `held` make up the balance."""
    sums = {"promised_ucr": due + held + forfeited, "forfeited_ucr": forfeited, "payable_ucr": due, "held_ucr": held}
    expect = {"vouchers": list(vouchers), "phase": phase, **sums, "deadline_ms": deadline_ms}
    return Case(f"{party}-{words}", about, _given(party, steps, now_ms), expect)


def _paying() -> Iterator[Case]:
    yield _state("opens", "Nothing is promised yet.", "payer", [])
    one, two = _voucher(1, 100), _voucher(2, 150)
    yield _state("pays", "One receipt.", "payer", [_pay(1, 100)], vouchers=(one,), due=100)
    about = "Vouchers are cumulative: 100 + 50."
    yield _state("pays-twice", about, "payer", [_pay(1, 100), _pay(2, 50)], vouchers=(one, two), due=150)
    about = "All that the limit covers."
    yield _state("pays-up-to-the-limit", about, "payer", [_pay(1, 1_000)], vouchers=(_voucher(1, 1_000),), due=1_000)
    about = "A receipt that adds nothing is answered too."
    yield _state("pays-nothing", about, "payer", [_pay(1, 0)], vouchers=(_voucher(1, 0),))
    first, held = _pay(1, 101, **_HELD), _voucher(1, 76, 25)
    about = "A quarter of 101, rounded down, is held."
    yield _state("holds", about, "payer", [first], vouchers=(held,), due=76, held=25)
    later = _pay(2, 101, NOW_MS + 1_000, **_HELD)
    about = "What is held shortly after has the same release."
    two = _voucher(2, 152, 50)
    yield _state("holds-more", about, "payer", [first, later], vouchers=(held, two), due=152, held=50)
    short = _pay(2, 101, held_ppm=250_000, hold_ms=60_000)
    about = "What may be held for a minute is a part of its own, and falls due first."
    two = _rolling(2, 152, 0, (25, NOW_MS + 60_000), (25, _RELEASE_MS))
    yield _state("holds-no-longer", about, "payer", [first, short], vouchers=(held, two), due=152, held=50)
    seventh_ms = -(-HOUR_MS // 7)
    near = _pay(2, 101, NOW_MS + seventh_ms - 1, **_HELD)
    about = "A millisecond before a seventh of the hour is over: with the part before."
    yield _state("joins", about, "payer", [first, near], vouchers=(held, _voucher(2, 152, 50)), due=152, held=50)
    far = _pay(2, 101, NOW_MS + seventh_ms, **_HELD)
    two = _rolling(2, 152, 0, (25, _RELEASE_MS), (25, _RELEASE_MS + seventh_ms))
    about = "A seventh of the hour later: a part of its own."
    yield _state("rolls", about, "payer", [first, far], vouchers=(held, two), due=152, held=50)
    about = "Of two parts, the first has fallen due."
    yield _state("rolls-on", about, "payer", [first, far], now_ms=_RELEASE_MS, vouchers=(held, two), due=177, held=25)
    full = [_pay(n, 4, held_ppm=1_000_000, hold_ms=HOUR_MS - n * 600_000) for n in range(6)]
    full += [_pay(n, 4, held_ppm=1_000_000, hold_ms=hold_ms) for n, hold_ms in ((6, 60_000), (7, 6_000), (8, 30_000))]
    times = [6_000, 60_000, 600_000, 1_200_000, 1_800_000, 2_400_000, 3_000_000, 3_600_000]
    until = [(4, NOW_MS + time_ms) for time_ms in times]
    last = _rolling(8, 0, 0, (8, until[0][1]), *until[1:])
    about = "Of nine different times, the ninth joins the part that falls due before it."
    yield Case(
        "payer-has-no-more-parts", about, _given("payer", full, NOW_MS),
        {
            "vouchers": [
                *(_rolling(n, 0, 0, *until[7 - n :]) for n in range(6)),
                _rolling(6, 0, 0, *until[1:]), _rolling(7, 0, 0, *until), last,
            ],
            "phase": "open", "promised_ucr": 36, "forfeited_ucr": 0, "payable_ucr": 0, "held_ucr": 36,
            "deadline_ms": _EXPIRES_MS,
        },
    )  # fmt: skip
    about = "A millisecond before the release."
    yield _state("before-release", about, "payer", [first], now_ms=_RELEASE_MS - 1, vouchers=(held,), due=76, held=25)
    about = "At the release, all is due by itself."
    yield _state("at-release", about, "payer", [first], now_ms=_RELEASE_MS, vouchers=(held,), due=101)
    anew = _pay(2, 101, _RELEASE_MS, **_HELD)
    two = _voucher(2, 177, 25, release_at_ms=_RELEASE_MS + HOUR_MS)
    about = "After the release a new part begins."
    yield _state(
        "holds-anew", about, "payer", [first, anew], now_ms=_RELEASE_MS, vouchers=(held, two), due=177, held=25
    )
    restated = {"event": "restate", "now_ms": _RELEASE_MS}
    about = "Said again after the release: all is due."
    yield _state(
        "restates", about, "payer", [first, restated], now_ms=_RELEASE_MS, vouchers=(held, _voucher(1, 101)), due=101
    )


def _forfeiting() -> Iterator[Case]:
    first, held = _pay(1, 101, **_HELD), _voucher(1, 76, 25)
    told = [first, _forfeit(20)]
    about = "Of 25 held, 20 are forfeited; the voucher does not know it yet."
    yield _state("forfeits", about, "payer", told, vouchers=(held,), due=76, held=5, forfeited=20)
    about = "The same forfeit again changes nothing."
    yield _state("forfeits-once", about, "payer", [*told, _forfeit(20)], vouchers=(held,), due=76, held=5, forfeited=20)
    both = [*told, _forfeit(5, ground="evidence", kind="evidence")]
    about = "Two grounds, and nothing is left of what was held."
    yield _state("forfeits-all", about, "payer", both, vouchers=(held,), due=76, forfeited=25)
    restated = [*told, {"event": "restate", "now_ms": NOW_MS}]
    vouchers = (held, _voucher(1, 76, 5, 20))
    about = "The forfeit is taken off."
    yield _state("restates-forfeit", about, "payer", restated, vouchers=vouchers, due=76, held=5, forfeited=20)
    later_ms = NOW_MS + HOUR_MS // 2
    roll, both_due = _pay(2, 101, later_ms, **_HELD), _RELEASE_MS + HOUR_MS // 2
    parts = _rolling(2, 152, 0, (25, _RELEASE_MS), (25, both_due))
    last = [first, roll, _forfeit(30, later_ms), {"event": "restate", "now_ms": later_ms}]
    about = "What would fall due last is forfeited first."
    vouchers = (held, parts, _voucher(2, 152, 20, 30))
    yield _state(
        "forfeits-last-first", about, "payer", last, now_ms=later_ms, vouchers=vouchers, due=152, held=20, forfeited=30
    )
    late = {"event": "yield", "now_ms": _RELEASE_MS, "ground": {"kind": "verdict", "id": name("a verdict")}, "ucr": 25}
    about = "The payee was told once the first part had fallen due: what that forfeit was too late for is due."
    vouchers = (*vouchers, _voucher(2, 177, 0, 25))
    yield _state(
        "gives-up", about, "payer", [*last, late], now_ms=_RELEASE_MS, vouchers=vouchers, due=177, forfeited=25
    )
    half = _pay(1, 1_000, held_ppm=500_000, hold_ms=HOUR_MS)
    freed = [half, _forfeit(500), _pay(2, 500)]
    vouchers = (_voucher(1, 500, 500), _voucher(2, 1_000, 0, 500))
    about = "What was forfeited counts no more against the limit."
    yield _state("has-room-again", about, "payer", freed, vouchers=vouchers, due=1_000, forfeited=500)
    spent = [first, _forfeit(25), _pay(2, 100, **_HELD)]
    vouchers = (held, _voucher(2, 151, 25, 25))
    about = "What was forfeited is not held a second time."
    yield _state("holds-beside-forfeit", about, "payer", spent, vouchers=vouchers, due=151, held=25, forfeited=25)
    taken = [_receive(held, _claim(101, **_HELD)), _forfeit(20)]
    about = "The payee is told of the ground before any voucher says so."
    yield _state("is-told", about, "payee", taken, due=76, held=5, forfeited=20)
    said = [*taken, _receive(_voucher(1, 76, 5, 20), _claim(101, **_HELD))]
    yield _state("takes-forfeit", "The voucher says what is known.", "payee", said, due=76, held=5, forfeited=20)
    about = "After the release, what was left is due; what was forfeited is not."
    now_ms = _RELEASE_MS + SKEW_MS
    yield _state("forfeit-stays", about, "payee", said, now_ms=now_ms, due=81, forfeited=20)


def _taking() -> Iterator[Case]:
    one, two = _receive(_voucher(1, 100), _claim(100)), _receive(_voucher(2, 150), _claim(50))
    yield _state("takes", "One voucher.", "payee", [one], due=100)
    yield _state("takes-two", "Two vouchers.", "payee", [one, two], due=150)
    yield _state("overtaken", "The later voucher comes first.", "payee", [two, one], due=150)
    yield _state("repeated", "The same voucher again.", "payee", [one, one, two, one], due=150)
    about = "More than is owed may be promised."
    yield _state("takes-more", about, "payee", [_receive(_voucher(1, 120), _claim(100))], due=120)
    held = _receive(_voucher(1, 76, 25), _claim(101, **_HELD))
    yield _state("held-as-agreed", "A quarter is held.", "payee", [held], due=76, held=25)
    now_ms = _RELEASE_MS + SKEW_MS
    about = "By the payee's clock, the payer may still forfeit so long."
    yield _state("before-release", about, "payee", [held], now_ms=now_ms - 1, due=76, held=25)
    yield _state("at-release", "All is due.", "payee", [held], now_ms=now_ms, due=101)
    late = _receive(_voucher(1, 76, 25, release_at_ms=now_ms), _claim(101, **_HELD))
    yield _state("held-with-skew", "Released as late as clocks may differ.", "payee", [late], due=76, held=25)
    week = {"held_ppm": 250_000, "hold_ms": 7 * DAY_MS}
    longest = _receive(_voucher(1, 76, 25, release_at_ms=NOW_MS + 7 * DAY_MS + SKEW_MS), _claim(101, **week))
    yield _state("held-for-a-week", "The longest that any order allows.", "payee", [longest], due=76, held=25)
    more = _receive(_voucher(2, 152, 50), _claim(101, **_HELD))
    yield _state("held-for-two", "What two receipts allow.", "payee", [held, more], due=152, held=50)
    sooner = _receive(_voucher(1, 76, 25, release_at_ms=_RELEASE_MS - 1), _claim(101, **_HELD))
    yield _state("released-sooner", "A voucher that releases sooner follows.", "payee", [held, sooner], due=76, held=25)
    two = _receive(
        _rolling(2, 152, 0, (25, _RELEASE_MS), (25, _RELEASE_MS + HOUR_MS)), _claim(101, 250_000, 2 * HOUR_MS)
    )
    yield _state("takes-parts", "Each part until its own time.", "payee", [held, two], due=152, held=50)
    about = "The first part has fallen due."
    yield _state("takes-parts-in-turn", about, "payee", [held, two], now_ms=now_ms, due=177, held=25)
    lost = [held, _forfeit(20), _receive(_voucher(1, 76, 5, 20), _claim(101, **_HELD))]
    given = [*lost, _receive(_voucher(1, 96, 5), _claim(101, **_HELD))]
    about = "The payer gives up what was forfeited, and is late: the ground still counts, for what is held."
    yield _state("given-up", about, "payee", given, due=96, forfeited=5)


def _closing() -> Iterator[Case]:
    ends = NOW_MS + _GRACE_MS + SKEW_MS
    closed = {"phase": "closing", "deadline_ms": ends}
    for by in ("payer", "payee"):
        yield _state(f"closes-by-{by}", "The grace begins, and some skew.", "payer", [_close(by)], **closed)  # type: ignore[arg-type]
    both = [_close("payer"), _close("payee", NOW_MS + 1_000)]
    yield _state("closed-by-both", "The grace runs from the first.", "payee", both, **closed)  # type: ignore[arg-type]
    about = "By itself, at its end."
    expired = {"phase": "closing", "deadline_ms": _EXPIRES_MS + _GRACE_MS + SKEW_MS}
    yield _state("expires", about, "payer", [], now_ms=_EXPIRES_MS, **expired)  # type: ignore[arg-type]
    yield _state("just-open", "A millisecond before its end.", "payee", [], now_ms=_EXPIRES_MS - 1)
    now_ms = _EXPIRES_MS + _GRACE_MS + SKEW_MS
    yield _state(
        "closed", "Its end and its grace are over.", "payee", [], now_ms=now_ms, phase="closed", deadline_ms=None
    )
    held = _receive(_voucher(1, 76, 25), _claim(101, **_HELD))
    about = "What is held waits for its release."
    waiting = _RELEASE_MS + SKEW_MS
    yield _state(
        "waits-for-release",
        about,
        "payee",
        [held, _close("payee")],
        phase="closing",
        due=76,
        held=25,
        deadline_ms=waiting,
    )
    about = "Then all that was not forfeited is the balance."
    done = {"now_ms": waiting, "phase": "closed", "deadline_ms": None}
    yield _state("released-and-closed", about, "payee", [held, _close("payee")], due=101, **done)  # type: ignore[arg-type]
    contest = [_close("payer"), _receive(_voucher(1, 100), _claim(100), ends - 1)]
    about = "A voucher in the grace, as late as clocks may differ."
    yield _state("takes-while-closing", about, "payee", contest, now_ms=ends - 1, due=100, **closed)  # type: ignore[arg-type]
    paid = [_close("payer"), _pay(1, 100, NOW_MS + _GRACE_MS - 1)]
    about = "The payer's own last millisecond."
    yield _state("pays-while-closing", about, "payer", paid, vouchers=(_voucher(1, 100),), due=100, **closed)  # type: ignore[arg-type]
    shown = [_close("payee"), _present(_voucher(1, 100), ends - 1)]
    about = "The payer stands by a voucher that it has forgotten."
    yield _state("is-shown", about, "payer", shown, now_ms=ends - 1, due=100, **closed)  # type: ignore[arg-type]
    known = [_pay(1, 100), _pay(2, 50), _close("payee"), _present(_voucher(1, 100), NOW_MS)]
    about = "An earlier voucher than the payer has."
    vouchers = (_voucher(1, 100), _voucher(2, 150))
    yield _state("is-shown-an-old-one", about, "payer", known, vouchers=vouchers, due=150, **closed)  # type: ignore[arg-type]
    forfeit = [held, _close("payer"), _forfeit(25)]
    about = "What is held may be forfeited while closing."
    yield _state(
        "forfeits-while-closing", about, "payee", forfeit, phase="closing", due=76, forfeited=25, deadline_ms=waiting
    )


def _no(words: str, about: str, party: str, code: str, *steps: Step, at: int | None = None) -> Case:
    """The last step is refused."""
    given = _given(party, list(steps), NOW_MS)
    return refused(f"{party}-{words}", about, given, code, at=len(steps) - 1 if at is None else at)


def _refused_to_pay() -> Iterator[Case]:
    first = _pay(1, 101, **_HELD)
    yield _no("beyond-the-limit", "A micro-credit too much.", "payer", "credit_exhausted", _pay(1, _LIMIT_UCR + 1))
    about = "Together a micro-credit too much; what is held counts."
    yield _no("beyond-the-limit-in-two", about, "payer", "credit_exhausted", first, _pay(2, _LIMIT_UCR - 100))
    yield _no("same-receipt", "The receipt has its voucher.", "payer", "illegal_move", first, _pay(1, 10))
    restate = {"event": "restate", "now_ms": NOW_MS}
    yield _no("restates-nothing", "Nothing was promised.", "payer", "illegal_move", restate)
    yield _no("pays", "Only the payer pays.", "payee", "illegal_move", _pay(1, 10))
    late = _pay(1, 10, NOW_MS + _GRACE_MS)
    yield _no("pays-after-grace", "The payer's own clock.", "payer", "expired", _close("payer"), late)
    long_after = _pay(1, 10, NOW_MS + 3 * DAY_MS)
    yield _no("pays-when-closed", "All is over.", "payer", "expired", long_after)


def _refused_to_take() -> Iterator[Case]:
    claim, held = _claim(101, **_HELD), _receive(_voucher(1, 76, 25), _claim(101, **_HELD))
    first = _receive(_voucher(1, 100), _claim(100))

    def no(words: str, about: str, code: str, voucher: Fields, claim: Fields, *before: Step, **more: Any) -> Case:
        return _no(words, about, "payee", code, *before, _receive(voucher, claim, **more))

    yield no("too-little", "A micro-credit too little.", "unpaid", _voucher(1, 99), _claim(100))
    yield no("second-too-little", "It covers one of two.", "unpaid", _voucher(2, 149), _claim(50), first)
    about = "An earlier voucher for a receipt that no voucher covers."
    yield no("overtaken-too-little", about, "unpaid", _voucher(2, 90), _claim(90), first)
    yield no("held-without-consent", "Nothing may be held.", "unpaid", _voucher(1, 76, 25), _claim(101))
    yield no("held-too-much", "A micro-credit too much is held.", "unpaid", _voucher(1, 75, 26), claim)
    late = _voucher(1, 76, 25, release_at_ms=_RELEASE_MS + SKEW_MS + 1)
    yield no("held-too-long", "A millisecond too long.", "unpaid", late, claim)
    about = "Its second part is held for longer than its order says, and its first is not all."
    parts = _rolling(1, 76, 0, (20, _RELEASE_MS), (5, _RELEASE_MS + SKEW_MS + 1))
    yield no("a-part-held-too-long", about, "unpaid", parts, claim)
    about = "What two orders let it hold, all of it until the time of the later one."
    later = _rolling(2, 152, 0, (50, _RELEASE_MS + HOUR_MS))
    yield no("held-on", about, "unpaid", later, _claim(101, 250_000, 2 * HOUR_MS), held)
    about = "What one receipt allows is held of another."
    yield no("held-of-another", about, "unpaid", _voucher(2, 101, 50), _claim(50), held)
    week = _voucher(1, 76, 25, release_at_ms=NOW_MS + 7 * DAY_MS + SKEW_MS + 1)
    longer = _claim(101, held_ppm=250_000, hold_ms=30 * DAY_MS)
    yield no("held-for-more-than-a-week", "No order allows it.", "bad_record", week, longer)
    yield no("forfeits-by-itself", "No ground is known.", "unpaid", _voucher(1, 76, 5, 20), claim, held)
    about = "More than the grounds."
    yield no("forfeits-more", about, "unpaid", _voucher(1, 76, 4, 21), claim, held, _forfeit(20))
    about = "What was forfeited is held a second time."
    again = _voucher(2, 126, 50, 25)
    yield no("held-beside-forfeit", about, "unpaid", again, _claim(100, **_HELD), held, _forfeit(25))
    yield no("beyond-the-limit", "More than the limit.", "credit_exhausted", _voucher(1, 1_001), _claim(100))
    about = "What is held counts against the limit."
    yield no("held-beyond-the-limit", about, "credit_exhausted", _voucher(1, 976, 25), claim)
    other = {**_voucher(1, 100), "channel": name("another channel")}
    yield no("another-channel", "For another channel.", "bad_signature", other, _claim(100))
    yield no("another-payer", "By another payer.", "bad_signature", _voucher(1, 100), _claim(100), signer=OTHER)
    about = "It takes back what was due, and promises more later."
    yield no("contradiction", about, "contradiction", _voucher(2, 60, 90), _claim(50), first)
    about = "It moves the release of what is held."
    moved = _voucher(2, 177, 25, release_at_ms=_RELEASE_MS + 1)
    two = _receive(_voucher(2, 152, 50), claim)
    yield no("release-moved", about, "contradiction", moved, claim, held, two)
    ends = NOW_MS + _GRACE_MS + SKEW_MS
    about = "The grace and the skew are over."
    yield no("after-grace", about, "expired", _voucher(1, 100), _claim(100), _close("payer"), now_ms=ends)
    about = "The grace is over, though something waits for its release."
    yield no(
        "after-grace-while-held", about, "expired", _voucher(2, 177, 25), claim, held, _close("payer"), now_ms=ends
    )


def _refused_to_forfeit() -> Iterator[Case]:
    held = _receive(_voucher(1, 76, 25), _claim(101, **_HELD))
    for party, first in (("payer", _pay(1, 101, **_HELD)), ("payee", held)):
        late = _RELEASE_MS + (SKEW_MS if party == "payee" else 0)
        yield _no("forfeits-too-much", "More than is held.", party, "expired", first, _forfeit(26))
        yield _no("forfeits-nothing", "Nothing.", party, "expired", first, _forfeit(0))
        yield _no("forfeits-too-late", "It has been released.", party, "expired", first, _forfeit(25, late))
        changed = (first, _forfeit(20), _forfeit(5))
        yield _no("forfeits-anew", "The same ground for another amount.", party, "illegal_move", *changed)
    yield _no("forfeits-from-nothing", "Nothing was promised.", "payer", "expired", _forfeit(1))
    about = "The channel is closed."
    yield _no("forfeits-when-closed", about, "payee", "illegal_move", held, _forfeit(25, NOW_MS + 3 * DAY_MS))


def _refused_to_close() -> Iterator[Case]:
    after = _close("payee", _EXPIRES_MS + _GRACE_MS + SKEW_MS)
    yield _no("closes-when-closed", "It is closed already.", "payer", "illegal_move", after)
    shown = _present(_voucher(1, 100), NOW_MS)
    yield _no("is-shown-while-open", "Nothing is closing.", "payer", "illegal_move", shown)
    ends = NOW_MS + _GRACE_MS + SKEW_MS
    late = _present(_voucher(1, 100), ends)
    yield _no("is-shown-too-late", "The grace and the skew are over.", "payer", "expired", _close("payee"), late)
    strange = _present(_voucher(1, 100), NOW_MS, OTHER)
    yield _no("is-shown-a-strange-one", "Not its own voucher.", "payer", "bad_signature", _close("payee"), strange)
    both = (_pay(1, 100), _close("payee"), _present(_voucher(2, 60, 90), NOW_MS))
    yield _no("is-shown-a-contradiction", "It signed what no order makes true.", "payer", "contradiction", *both)

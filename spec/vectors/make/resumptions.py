"""Verdicts on texts that several executors wrote, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import world
from .cose import Envelope
from .texts import ACCEPTED, INCONCLUSIVE, REFUTED, SILENT, UNDECIDED, UPHELD
from .work import Part, Told, Work, checker, executor, told


def resumed() -> Iterator[Told]:
    yield from _gone_on()
    yield from _carried()
    yield from _passed_over()
    yield from _torn()
    yield from _anew()


def _left(policy: str, unsigned: int = 0, **changes: Any) -> tuple[Work, Part, Part, Envelope, Envelope]:
    """Node 1 signs for three tokens and leaves; node 2 goes on after some more, and ends the text with two."""
    work = Work(policy)
    part = work.text(1)
    first = work.window(part, 0, 3, "yielded", 12)
    other = work.text(2, 3 + unsigned, after=first, **changes)
    return work, part, other, first, work.window(other, 3 + unsigned, 2, "final", 26 + unsigned)


def _gone_on() -> Iterator[Told]:
    work, part, other, first, last = _left("quorum:2/2")
    one, two = work.check(3, first, 3, 3), work.check(4, last, 5, 2)
    findings = [
        executor(part, UPHELD, 12),
        executor(other, UPHELD, 26),
        checker(one, UPHELD, 12),
        checker(two, UPHELD, 12),
    ]
    yield told("resumed", "Another goes on where the first left.", work, part, ACCEPTED, *findings)
    work, part, other, first, last = _left("none")
    findings = [executor(part, UPHELD, 12), executor(other, UPHELD, 26)]
    yield told("resumed-unchecked", "Nobody looks at either.", work, part, ACCEPTED, *findings)
    work, part, other, first, last = _left("none", 2)
    findings = [executor(part, UPHELD, 12), executor(other, UPHELD, 28)]
    yield told("resumed-beyond-unchecked", "Nor at what nobody signed for.", work, part, ACCEPTED, *findings)


def _carried() -> Iterator[Told]:
    """Two tokens came after the last receipt of the first executor."""
    for words, about, carried, gaps, outcome in (
        ("carried", "The checker confirms the two tokens between.", 2, None, ACCEPTED),
        ("carried-bad", "One of the two is not what the model chooses.", 2, [0, 5_000, 0, 0], INCONCLUSIVE),
        ("carried-in-part", "The checker was asked about one of the two.", 1, None, INCONCLUSIVE),
        ("carried-unchecked", "The checker was asked about neither.", 0, None, INCONCLUSIVE),
        ("carried-more", "The checker was asked about more than the two.", 4, None, ACCEPTED),
    ):
        work, part, other, first, last = _left("quorum:2/2", 2)
        one, two = work.check(3, first, 3, 3), work.check(4, last, 7, 2, carried=carried, gaps=gaps)
        findings = [
            executor(part, UPHELD, 12), executor(other, UPHELD, 28), checker(one, UPHELD, 12), checker(two, UPHELD, 12),
        ]  # fmt: skip
        yield told(words, about, work, part, outcome, *findings)


def _passed_over() -> Iterator[Told]:
    """Node 5 was asked to go on after the two tokens that nobody signed for, and left without one."""
    for words, about, policy, carried, outcome in (
        ("passed-over", "The check of the next window covers them.", "quorum:2/2", 2, ACCEPTED),
        ("passed-over-unchecked", "It does not.", "quorum:2/2", 0, INCONCLUSIVE),
        ("passed-over-undrawn", "It does not; who left was not drawn.", "adaptive:1", 0, INCONCLUSIVE),
    ):
        work = Work(policy)
        part = work.text(1)
        first = work.window(part, 0, 3, "yielded", 12)
        gone = work.text(5, 5, after=first)
        nothing = work.window(gone, 5, 0, "yielded", 0)
        other = work.text(2, 5, after=nothing)
        last = work.window(other, 5, 2, "final", 28)
        one, two = work.check(3, first, 3, 3), work.check(4, last, 7, 2, carried=carried)
        findings = [
            executor(part, UPHELD, 12), executor(gone, UPHELD, due_for=[nothing]), executor(other, UPHELD, 28),
            checker(one, UPHELD, 12), checker(two, UPHELD, 12),
        ]  # fmt: skip
        yield told(words, about, work, part, outcome, *findings)


def _torn() -> Iterator[Told]:
    """What goes before does not lead to it."""
    work, part, other, first, last = _left("none")
    work.records.remove(first)
    findings = [executor(part, SILENT, evidence=[]), executor(other, UPHELD, 26)]
    about = "The receipt that it goes on from is missing; but nothing is to be checked."
    yield told("resumed-from-the-unknown", about, work, part, ACCEPTED, *findings)
    work, part, other, first, last = _left("quorum:2/2")
    work.records.remove(first)
    check = work.check(4, last, 5, 2)
    findings = [executor(part, SILENT, evidence=[]), executor(other, UPHELD, 26), checker(check, UPHELD, 12)]
    about = "The receipt that it goes on from is missing."
    yield told("resumed-without-the-first", about, work, part, INCONCLUSIVE, *findings)
    work, part, other, first, last = _left("quorum:2/2")
    check = work.check(4, last, 5, 2)
    findings = [executor(part, UNDECIDED, 0, 12), executor(other, UPHELD, 26), checker(check, UPHELD, 12)]
    yield told("resumed-from-unchecked", "The first window was not checked.", work, part, INCONCLUSIVE, *findings)
    work, part, other, first, last = _left("none", created_ms=world.NOW_MS - 1)
    findings = [executor(part, UPHELD, 12), executor(other, UPHELD, 26)]
    about = "It was ordered before what it goes on from: then it is the beginning itself."
    yield told("resumed-before", about, work, other, INCONCLUSIVE, *findings)


def _anew() -> Iterator[Told]:
    work = Work("quorum:2/2")
    part = work.text(1)
    work.window(part, 0, 3, "yielded", 12)
    anew = work.text(2)
    window = work.window(anew, 0, 2, "final", 23)
    check = work.check(3, window, 2, 2)
    findings = [executor(part, UNDECIDED, 0, 12), executor(anew, UPHELD, 23), checker(check, UPHELD, 12)]
    about = "The text was written anew; what nobody was asked about is not due."
    yield told("written-anew", about, work, part, ACCEPTED, *findings)
    work = Work("quorum:2/2")
    part = work.text(1)
    first = work.window(part, 0, 3, "yielded", 12, shift=500)
    one, two = work.check(3, first, 3, 3), work.check(4, first, 3, 3)
    anew = work.text(2)
    window = work.window(anew, 0, 2, "final", 23)
    checks = [one, two, work.check(5, window, 2, 2)]
    work.open(part, one, two)
    honest = (checker(check, UPHELD, 12) for check in checks)
    findings = [executor(part, REFUTED, 0, 12), executor(anew, UPHELD, 23), *honest]
    about = "What was rejected is not due, and the text was written anew."
    yield told("written-anew-after-a-lie", about, work, part, ACCEPTED, *findings)

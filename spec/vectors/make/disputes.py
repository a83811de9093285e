"""Kind `dispute`: what a judge decides between the two sides of an order, by what both have shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import world
from .cose import Envelope, Signer, hashed
from .notation import Case, refused
from .work import BUNDLE, NODES, NONCE, OWNERS, PROMPT, Part, Work, opening_of
from .world import CLIENT, HASH, NOW_MS, Fields

_POLICY, _FEE, _AMOUNT = "adaptive:1", 12, 50
_PAYER_CLAIMS = ("wrong", "two-faced", "disowned")


def _channel(part_number: int) -> Envelope:
    payee, owner = NODES[part_number], OWNERS[part_number]
    return CLIENT.sign("channel", world.channel(payee=payee.key, payout_owner=owner.key))


@dataclass
class _Matter:
    """One order of node 1, three tokens of an answer to it, and what is shown."""

    kind: str
    work: Work = field(default_factory=lambda: Work(_POLICY))
    answered: list[Envelope] = field(default_factory=list)
    openings: list[bytes] = field(default_factory=list)
    says: Fields | None = None
    changes: Fields = field(default_factory=dict)
    call_ucr: int = _AMOUNT - PROMPT - 3 * 4
    """Of the order's price."""
    elsewhere: list[Fields] | None = None
    """What the accused has said to other judges."""

    def __post_init__(self) -> None:
        self.channel = _channel(1)
        price = world.price(bundle=BUNDLE.id, call_ucr=self.call_ucr)
        self.part = self.work.text(1, channel=self.channel.id, price=price)
        self.window = self.receipt = self.work.window(self.part, 0, 3, "final", _AMOUNT)
        self.work.records.append(self.channel)

    def opened(self, *parts: Part, **changes: Any) -> _Matter:
        self.openings += [opening_of(part, **changes) for part in parts or (self.part,)]
        return self

    def given(self, objection: str | None = None, *, late: bool = False) -> Fields:
        by_payer = self.kind in _PAYER_CLAIMS
        claimant, accused = (CLIENT, self.part.node) if by_payer else (self.part.node, CLIENT)
        fields = world.dispute(
            kind=self.kind, accused=accused.key, order=self.part.order.id, receipt=self.receipt.id, fee_ucr=_FEE,
            opened_ms=NOW_MS,
        )  # fmt: skip
        dispute = claimant.sign("dispute", {**fields, **self.changes})
        given: Fields = {
            "dispute": dispute.whole, "claimed": [record.whole for record in self.work.records],
            "answered": [record.whole for record in self.answered], "openings": self.openings, "late": late,
        }  # fmt: skip
        if self.says is not None:
            given["plea"] = _plea(accused, dispute, self.says)
        if self.elsewhere is not None:
            given["elsewhere"] = [_plea(accused, dispute, says) for says in self.elsewhere]
        if objection is not None:
            given["objection"] = objection
        return given

    def decided(self, outcome: str, due: int, withheld: int, fee: int = _FEE) -> Fields:
        by_payer = self.kind in _PAYER_CLAIMS
        claimant, accused = (CLIENT, self.part.node) if by_payer else (self.part.node, CLIENT)
        loser: Signer = accused if outcome == "upheld" else claimant
        sums = {"due_ucr": due, "withheld_ucr": withheld, "fee_ucr": fee}
        return {"outcome": outcome, "loser": loser.key, **sums}


def _plea(accused: Signer, dispute: Envelope, says: Fields) -> bytes:
    return accused.sign("plea", {"dispute": dispute.id, "says": "answers", "shown": HASH, **says}).whole


def dispute() -> Iterator[Case]:
    yield from _of_the_payer()
    yield from _two_findings()
    yield from _of_the_payee()
    yield from _two_answers()
    yield from _long_answers()
    yield from _none()


def _of_the_payer() -> Iterator[Case]:
    wrong = _Matter("wrong").opened()
    about = "Run again, it is something else."
    yield Case("wrong", about, wrong.given("off"), wrong.decided("upheld", 0, _AMOUNT))
    yield Case("wrong-and-right", "Run again, it is that.", wrong.given(""), wrong.decided("dismissed", _AMOUNT, 0))
    closed = _Matter("wrong")
    yield Case("wrong-not-opened", "Nothing is opened.", closed.given(), closed.decided("dismissed", _AMOUNT, 0))
    other = _Matter("wrong").opened(salt=hashed(b"another"))
    yield Case("wrong-other-input", "Another input.", other.given(), other.decided("dismissed", _AMOUNT, 0))
    shorter = _Matter("wrong").opened(pieces=[])
    about = "The input, and not the pieces that the receipt vouches for."
    yield Case("wrong-other-pieces", about, shorter.given(), shorter.decided("dismissed", 0, 0))
    for says, outcome in (("owns", "dismissed"), ("denies", "upheld"), ("answers", "upheld")):
        disowned = _Matter("disowned", says={"says": says})
        yield Case(f"disowned-{says}", "The payee says so.", disowned.given(), disowned.decided(outcome, _AMOUNT, 0))
    silent = _Matter("disowned")
    yield Case("disowned-waits", "The payee may still answer.", silent.given(), {"open": True})
    yield Case("disowned-late", "Nobody has heard it.", silent.given(late=True), silent.decided("dismissed", 0, 0, 0))


def _two_findings() -> Iterator[Case]:
    for words, shift, outcome in (("within", 100, "dismissed"), ("beyond", 101, "upheld")):
        matter, parts = _both(shift)
        due, withheld = (12, 0) if outcome == "dismissed" else (0, 12)
        about = f"Two findings about the same tokens, {shift} micro-nats apart."
        yield Case(f"two-faced-{words}", about, matter.opened(*parts).given(), matter.decided(outcome, due, withheld))
    top_p = world.PARAMETERS["top_p_ppm"]
    for words, one, other, outcome in (
        ("inside", 0, top_p, "dismissed"),
        ("mass-within", top_p, top_p + 500, "dismissed"),
        ("mass-beyond", 0, top_p + 501, "upheld"),
    ):
        matter, parts = _both(0, (one, other))
        due, withheld = (12, 0) if outcome == "dismissed" else (0, 12)
        about = f"The first token has {one} and {other} ppm of the mass before it."
        yield Case(f"two-faced-{words}", about, matter.opened(*parts).given(), matter.decided(outcome, due, withheld))
    matter, _ = _both(101)
    yield Case("two-faced-closed", "Neither is opened.", matter.given(), matter.decided("dismissed", 12, 0))
    matter, _ = _both(0)
    fields = world.attestation(
        subject=matter.window.id,
        order=matter.part.order.id,
        values_micro=[-1] * 3,
        gaps_micro=[0] * 3,
        masses_ppm=[0] * 3,
    )
    matter.work.records.append(matter.part.node.sign("attestation", fields))
    about = "Two findings under one order."
    yield Case("two-faced-one-order", about, matter.given(), matter.decided("upheld", 0, 12))


def _both(shift: int, masses: tuple[int, int] = (0, 0)) -> tuple[_Matter, list[Part]]:
    """Node 2 has checked the window twice."""
    matter, channel = _Matter("two-faced"), _channel(2)
    matter.work.records.append(channel)
    one, other = (
        matter.work.check(
            2,
            matter.receipt,
            3,
            3,
            shift=off,
            channel=channel.id,
            found={"masses_ppm": [mass, 0, 0]},
            price=world.price(bundle=BUNDLE.id, entry="score", call_ucr=12 - PROMPT - 3 * 2),
        )
        for off, mass in zip((0, shift), masses, strict=True)
    )
    matter.part, matter.receipt = one, one.receipts[0]
    return matter, [one, other]


def _of_the_payee() -> Iterator[Case]:
    for kind in ("unpaid", "mismatched", "unopened"):
        silent = _Matter(kind)
        yield Case(f"{kind}-waits", "The payer may still answer.", silent.given(), {"open": True})
        yield Case(f"{kind}-late", "It has not.", silent.given(late=True), silent.decided("upheld", _AMOUNT, 0))
        false = _Matter(kind, says={}).opened(salt=hashed(b"another"))
        about = "Another input than was ordered, and nothing else."
        yield Case(f"{kind}-other-input", about, false.given(), false.decided("upheld", _AMOUNT, 0))
    good = _Matter("unpaid", says={}).opened()
    yield Case("unpaid-good", "Run again, it is that.", good.given(""), good.decided("upheld", _AMOUNT, 0))
    about = "Run again, it is something else."
    yield Case("unpaid-bad", about, good.given("off"), good.decided("dismissed", 0, _AMOUNT))
    about = "The input, and not the pieces that the receipt vouches for: nothing shows that they came."
    for kind, fee in (("unpaid", 0), ("mismatched", _FEE)):
        unsent = _Matter(kind, says={}).opened(pieces=[])
        yield Case(f"{kind}-never-sent", about, unsent.given(), unsent.decided("dismissed", 0, 0, fee))
    came = _Matter("unpaid", says={}).opened(pieces=[])
    sums: Fields = {"due_ucr": 1, "held": [], "forfeited_ucr": 0}
    came.work.records.append(
        CLIENT.sign("voucher", world.voucher(channel=came.channel.id, receipt=came.receipt.id, **sums))
    )
    about = "The input alone, of a payer that has signed a voucher for less."
    yield Case("unpaid-came", about, came.given(), came.decided("upheld", _AMOUNT, 0))
    checked = _Matter("unpaid", says={}).opened(pieces=[])
    checked.work.check(2, checked.receipt, 3, 3)
    about = "The input alone, of a payer that has had the window checked."
    yield Case("unpaid-checked", about, checked.given(), checked.decided("upheld", _AMOUNT, 0))
    for words, due, outcome in (("paid", _AMOUNT, "dismissed"), ("paid-less", _AMOUNT - 1, "upheld")):
        paid = _Matter("unpaid", says={})
        sums = {"due_ucr": due, "held": [], "forfeited_ucr": 0}
        voucher = world.voucher(channel=paid.channel.id, receipt=paid.receipt.id, **sums)
        paid.answered.append(CLIENT.sign("voucher", voucher))
        fee = 0 if outcome == "dismissed" else _FEE
        yield Case(f"unpaid-{words}", f"A voucher for {due}.", paid.given(), paid.decided(outcome, _AMOUNT, 0, fee))
    open_input = _Matter("mismatched", says={}).opened()
    yield Case("mismatched-opened", "What was ordered.", open_input.given(), open_input.decided("dismissed", 0, 0))
    opened = _Matter("unopened", says={"commitment_nonce": NONCE, "policy": _POLICY})
    yield Case("unopened-opened", "Nonce and policy.", opened.given(), opened.decided("dismissed", 0, 0))
    other = _Matter("unopened", says={"commitment_nonce": NONCE, "policy": "none"})
    yield Case("unopened-other-policy", "Another policy.", other.given(), other.decided("upheld", _AMOUNT, 0))


def _two_answers() -> Iterator[Case]:
    for kind, one, other in (
        ("disowned", {"says": "owns"}, {"says": "denies"}),
        ("unpaid", {}, {"shown": NONCE}),
        ("unopened", {"commitment_nonce": NONCE, "policy": _POLICY}, {}),
    ):
        twice = _Matter(kind, says=one, elsewhere=[other])
        about = "The accused has answered another judge otherwise."
        yield Case(f"{kind}-two-answers", about, twice.given(), twice.decided("upheld", _AMOUNT, 0))
        early = _Matter(kind, elsewhere=[one, other])
        about = "It has answered two others, each otherwise: there is nothing to wait for."
        yield Case(f"{kind}-two-elsewhere", about, early.given(), early.decided("upheld", _AMOUNT, 0))
        silent = _Matter(kind, elsewhere=[one])
        about = "It has answered another judge, and may still answer this one."
        yield Case(f"{kind}-one-elsewhere", about, silent.given(), {"open": True})
    alike = _Matter("disowned", says={"says": "owns"}, elsewhere=[{"says": "owns"}, {"says": "owns"}])
    about = "It says the same to each."
    yield Case("one-answer", about, alike.given(), alike.decided("dismissed", _AMOUNT, 0))
    wrong = _Matter("wrong", says={"says": "owns"}, elsewhere=[{"says": "denies"}]).opened()
    about = "No answer is owed: none counts, nor two."
    yield Case("wrong-two-answers", about, wrong.given(""), wrong.decided("dismissed", _AMOUNT, 0))


def _long_answers() -> Iterator[Case]:
    """A claimant shows each judge what the others have heard: a plea has room for little more than its fields."""
    longest, longer, own = _plea_of(512), _plea_of(513), {"says": "owns"}
    fits = _Matter("disowned", says=longest, elsewhere=[longest])
    yield Case("plea-longest", "Pleas of 512 bytes.", fits.given(), fits.decided("dismissed", _AMOUNT, 0))
    yield refused("plea-too-long", "A byte more.", _Matter("disowned", says=longer).given(), "too_large")
    about = "Nor is one shown that another judge has heard."
    yield refused(
        "plea-elsewhere-too-long", about, _Matter("disowned", says=own, elsewhere=[longer]).given(), "too_large"
    )


def _plea_of(bytes_: int) -> Fields:
    """What a plea says that has so many bytes, most of them an extension's."""
    for padding in range(bytes_):
        says = {"says": "owns", "opt_more": bytes(padding)}
        if len(CLIENT.sign("plea", {"dispute": HASH, "shown": HASH, **says}).whole) == bytes_:
            return says
    raise AssertionError("no padding gives that length")


def _none() -> Iterator[Case]:
    shown = _Matter("unpaid", says={}).opened()
    shown.work.records.remove(shown.receipt)
    shown.answered.append(shown.receipt)
    about = "The receipt is shown by the accused alone, and the claimant has to show it."
    yield refused("shown-by-the-accused", about, shown.given(""), "bad_record")
    for off in (-1, 1):
        matter = _Matter("unpaid", says={}, call_ucr=_AMOUNT - PROMPT - 3 * 4 + off).opened()
        about = f"The order's price gives {_AMOUNT + off} micro-credits, and the receipt says {_AMOUNT}."
        yield refused("dearer" if off < 0 else "cheaper", about, matter.given(""), "bad_record")
    for record in ("channel", "order", "receipt"):
        matter = _Matter("wrong").opened()
        lost = {"channel": matter.channel, "order": matter.part.order, "receipt": matter.receipt}[record]
        matter.work.records.remove(lost)
        yield refused(f"without-{record}", f"The {record} is missing.", matter.given(), "bad_record")
    matter = _Matter("wrong").opened()
    matter.work.records.pop(0)
    yield refused("without-manifest", "The manifest is missing.", matter.given(), "unknown_bundle")
    turned = _Matter("wrong", changes={"accused": CLIENT.key})
    yield refused("turned", "The payer accuses itself.", turned.given(), "bad_record")
    dear = _Matter("wrong", changes={"fee_ucr": _AMOUNT + 1})
    yield refused("dear", "The fee is above what the receipt says.", dear.given(), "bad_record")
    for words, off_ms in (("before-its-order", -world.SKEW_MS), ("in-time-to-come", world.SKEW_MS + 1)):
        off = _Matter("wrong", changes={"opened_ms": NOW_MS + off_ms})
        yield refused(words, "It was opened when there was no order, or will be.", off.given(), "expired")

"""One piece of work as signed records, made step by step: what verdicts and settlements are about.

Tokens are their positions, windows are short, and receipts say by hand what the order's price gives: 15 micro-credits for call
and prompt, and 4 for each token; of the 15 as much as was delivered of 80 tokens, which is none, unless the work is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import world
from .cbor import encode
from .chance import ranked, rolled
from .cose import Envelope, Signer, hashed
from .world import CLIENT, DAY_MS, NOW_MS, PUBLISHER, Fields

PROMPT = 5
"""Tokens before the text."""
NODES = {0: CLIENT, **{number: Signer(100 + number) for number in range(1, 8)}}
"""The client, which may run a node itself, and others."""
OWNERS = {number: Signer(120 + number) for number in range(1, 8)}
"""Of the node of the same number, in cases in which it matters. Else a node is its own owner, by a mandate of its own."""
BUNDLE = PUBLISHER.sign("manifest", world.manifest(
    name="m", licence="", provenance="", entries=["generate", "score", "call"], parameters=[], state=[], end_tokens=[],
    chat_template="-", outputs=[{"name": "y", "dtype": "float32", "shape": [1]}],
))  # fmt: skip
NONCE = world.name("a commitment's nonce")


def value(position: int) -> int:
    """The honest proof value of the token at a position of the answer."""
    return -1_000 - 17 * position


@dataclass
class Part:
    """One order and what its executor answered."""

    number: int
    order: Envelope
    salt: bytes
    work: bytes
    receipts: list[Envelope] = field(default_factory=list)
    attestation: Envelope | None = None
    pieces: list[bytes] = field(default_factory=list)
    tokens: int = 0
    accepted: Envelope | None = None
    """Its acceptance under its own mandate, as long as it has no other."""

    @property
    def node(self) -> Signer:
        return NODES[self.number]

    @property
    def evidence(self) -> list[Envelope]:
        """All that a verdict's finding names."""
        return self.receipts + ([self.attestation] if self.attestation else [])


@dataclass
class Work:
    """Records under one commitment, growing."""

    policy: str
    candidates: Sequence[bytes] = ()
    anchors: Sequence[bytes] = ()
    records: list[Envelope] = field(default_factory=lambda: [BUNDLE])
    openings: list[bytes] = field(default_factory=list)
    clock: int = 0

    def given(self, **changes: Any) -> Fields:
        """The input of a case."""
        return {
            "client": CLIENT.key, "bundle": BUNDLE.id, "policy": self.policy, "nonce": NONCE,
            "anchors": list(self.anchors), "records": [record.whole for record in self.records],
            "openings": self.openings, **changes,
        }  # fmt: skip

    def order(
        self, number: int, sequence: Sequence[int], claimed: int = 0, arrays: Sequence[bytes] = (), **changes: Any
    ) -> Part:
        """An order to a node."""
        self.clock += 1
        salt, work = (
            hashed(bytes([self.clock])),
            encode({"sequences": [] if arrays else [list(sequence)], "claimed": claimed, "arrays": list(arrays)}),
        )
        fields = world.order(
            bundle=BUNDLE.id, executor=NODES[number].key, input_tokens=len(arrays or sequence) - claimed, planned_tokens=80,
            input_digest=hashed(salt, work), created_ms=NOW_MS + self.clock, nonce=bytes([self.clock]) * 16,
            check_commitment=hashed(b"fallow/1/policy", NONCE, self.policy.encode()), candidates=list(self.candidates),
        )  # fmt: skip
        part = Part(number, CLIENT.sign("job-order", {**fields, **changes}), salt, work)
        who = part.node.key
        own = part.node.sign("mandate", world.mandate(node=who, owner=who, not_before_ms=NOW_MS - DAY_MS))
        part.accepted = part.node.sign("accept", world.accept(order=part.order.id, mandate=own.id))
        self.records += [part.order, own, part.accepted]
        return part

    def text(self, number: int, start: int = 0, after: Envelope | None = None, **changes: Any) -> Part:
        """An order for the text from a position of the answer on, after another's receipt."""
        if after is not None:
            changes = {"continues": {"receipt": after.id, "position": PROMPT + start}, **changes}
        return self.order(number, range(PROMPT + start), **changes)

    def window(
        self, part: Part, first: int, tokens: int, end: str, amount: int, *, shift: int = 0, **changes: Any
    ) -> Envelope:
        """A receipt for tokens from a position of the answer on, each a piece of its own; `amount` is cumulative."""
        values = [value(first + n) + shift for n in range(tokens)]
        for n, found in enumerate(values):
            part.pieces.append(encode(_piece(tokens=[PROMPT + first + n], values_micro=[found])))
        transcript = rolled(part.salt, part.order.id, part.pieces)[-1] if part.pieces else part.order.id
        return self._receipt(part, tokens, end, amount, values, transcript, **changes)

    def _receipt(
        self, part: Part, tokens: int, end: str, amount: int, values: list[int], transcript: bytes, **changes: Any
    ) -> Envelope:
        fields = world.receipt(
            order=part.order.id, sequence=len(part.receipts), first_token=part.tokens, tokens=tokens, end=end,
            amount_ucr=amount, values_micro=values, transcript=transcript,
        )  # fmt: skip
        if part.receipts:
            fields["previous"] = part.receipts[-1].id
        receipt = part.node.sign("receipt", {**fields, **changes})
        part.receipts.append(receipt)
        part.tokens += tokens
        self.records.append(receipt)
        return receipt

    def check(
        self, number: int, receipt: Envelope, end: int, tokens: int, *, carried: int = 0, shift: int = 0,
        gaps: Sequence[int] | None = None, silent: bool = False, paid: bool = True, found: Fields | None = None,
        sequence: Sequence[int] | None = None, **changes: Any,
    ) -> Part:  # fmt: skip
        """A check of the window that ends at a position of the answer; for 12 micro-credits."""
        claimed = tokens + carried
        price = world.price(call_ucr=12, input_token_ucr=0, output_token_ucr=0, checked_token_ucr=0)
        asked = {"entry": "score", "checks": receipt.id, "planned_tokens": claimed, "price": price}
        given = range(PROMPT + end) if sequence is None else sequence
        part = self.order(number, given, claimed, **{**asked, **changes})
        figures = {
            "values_micro": [value(end - claimed + n) + shift for n in range(claimed)],
            "gaps_micro": list(gaps or [0] * claimed), "masses_ppm": [0] * claimed, **(found or {}),
        }  # fmt: skip
        if not silent:
            fields = world.attestation(subject=receipt.id, order=part.order.id, **figures)
            part.attestation = part.node.sign("attestation", fields)
            self.records.append(part.attestation)
        if paid:
            part.pieces.append(encode(_piece(**figures)))
            transcript = rolled(part.salt, part.order.id, part.pieces)[-1]
            self._receipt(part, len(figures["values_micro"]), "final", 12, figures["values_micro"], transcript)
        return part

    def call(
        self, number: int, tensor: Fields | None, sequence: Sequence[int] = (1, 2, 3), *, opened: bool = True,
        end: str = "final", **changes: Any,
    ) -> Part:  # fmt: skip
        """A function call that came to this piece; for 10 micro-credits, and 1 for each input: of three tokens, 13."""
        part = self.order(number, sequence, **{"entry": "call", "planned_tokens": 0, **changes})
        if tensor is not None:
            part.pieces.append(encode(tensor))
            amount = 10 * changes.get("calls", 1) + len(changes.get("arrays", sequence)) if end == "final" else 0
            self._receipt(part, 0, end, amount, [], rolled(part.salt, part.order.id, part.pieces)[-1])
            if opened:
                self.open(part)
        return part

    def open(self, *parts: Part, **changes: Any) -> None:
        """The plaintext of these parts is shown."""
        self.openings += [opening_of(part, **changes) for part in parts]

    def again(self, part: Part, record: str, signed: Envelope) -> Envelope:
        """The part's node signs what it said once more: another envelope, and another id."""
        twin = part.node.sign_again(record, signed.payload)
        assert twin.id != signed.id
        self.records.append(twin)
        return twin

    def disown(self, part: Part) -> None:
        """The part's node named no mandate."""
        if part.accepted is not None:
            self.records.remove(part.accepted)
            part.accepted = None

    def accept(self, part: Part, owner: int, **changes: Any) -> None:
        """The part's node accepted, under the mandate of this owner."""
        self.disown(part)
        fields = world.mandate(node=part.node.key, owner=OWNERS[owner].key, not_before_ms=NOW_MS - DAY_MS)
        mandate = OWNERS[owner].sign("mandate", {**fields, **changes})
        accept = part.node.sign("accept", world.accept(order=part.order.id, mandate=mandate.id))
        self.records += [mandate, accept]

    def drawn(self, receipt: Envelope, parties: Sequence[bytes], count: int) -> list[bytes]:
        """Owners of the committee for a receipt."""
        eligible = [owner for owner in self.candidates if owner not in parties]
        return ranked(NONCE, receipt.id, eligible)[:count]


def opening_of(part: Part, **changes: Any) -> bytes:
    """The plaintext of a part, as it is passed on."""
    opening = {"order": part.order.id, "salt": part.salt, "work": part.work, "pieces": part.pieces}
    return encode({**opening, **changes})


def _piece(**changes: Any) -> Fields:
    empty = {"tokens": [], "values_micro": [], "gaps_micro": [], "masses_ppm": [], "tensor": b"", "shape": []}
    return {**empty, **changes}


@dataclass(frozen=True)
class Told:
    """A case of a verdict: its words, what it is about, the evidence, and the verdict."""

    words: str
    about: str
    work: Work
    fields: Fields


def finding(
    role: str, part: Part, standing: str, due: int = 0, withheld: int = 0, *, owner: bytes | None = None,
    due_for: Sequence[Envelope] | None = None, evidence: Sequence[Envelope] | None = None,
) -> Fields:  # fmt: skip
    """What a verdict says of the executor of a part; of its receipts all are due, or none, unless it says which."""
    due_for = (part.receipts if due else []) if due_for is None else due_for
    return {
        "node": part.node.key, "owner": owner or part.node.key, "role": role, "standing": standing,
        "evidence": sorted(record.id for record in (part.evidence if evidence is None else evidence)),
        "due_for": sorted(receipt.id for receipt in due_for), "due_ucr": due, "withheld_ucr": withheld,
    }  # fmt: skip


def executor(part: Part, standing: str, due: int = 0, withheld: int = 0, **more: Any) -> Fields:
    """A finding about who did the work."""
    return finding("executor", part, standing, due, withheld, **more)


def checker(part: Part, standing: str, due: int = 0, withheld: int = 0, **more: Any) -> Fields:
    """A finding about who checked it."""
    return finding("checker", part, standing, due, withheld, **more)


def told(
    words: str, about: str, work: Work, subject: Part, outcome: str, *findings: Fields, anchors: Sequence[bytes] = ()
) -> Told:
    """A case whose verdict has these findings, without reasons: those are for people."""
    return Told(words, about, work, {
        "subject": subject.order.id, "bundle": BUNDLE.id, "policy": work.policy, "commitment_nonce": NONCE,
        "anchors": sorted(anchors), "outcome": outcome,
        "findings": sorted(findings, key=lambda found: (found["role"], found["node"])),
    })  # fmt: skip

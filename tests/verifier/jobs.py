"""Whole jobs as signed records, made step by step: what a verdict is recomputed from."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Any

from nacl.signing import SigningKey

from fallow.protocol.bundle import File, Manifest, Program, Tensor, Tolerance
from fallow.protocol.checks import TEACHER_FORCED, Attestation
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.identity import Mandate
from fallow.protocol.opening import Opening
from fallow.protocol.orders import Accept, Continuation, JobOrder
from fallow.protocol.policy import Policy, check_commitment
from fallow.protocol.prices import Price
from fallow.protocol.receipts import FINAL, OPEN, Delivery, Receipt
from fallow.protocol.work import Input, Parameters, Piece, Work, transcript_next, transcript_start
from fallow.verifier.case import Question

H, NOW_MS, PROMPT = b"\x07" * 32, 1_790_000_000_000, 5
CLIENT = SigningKey(b"\x01" * 32)
FILE = File(1, (H,))
MANIFEST = sign(
    Manifest(
        "made-up", "none", "-", "-", ("generate", "score", "call"), FILE, (), (), (), (Tensor("y", "float32", (1,)),),
        (Program("p", "decode", 1, 1, 8, FILE, 0, 0),),
        FILE, None, 100, (), Tolerance(100, 1_000, 500, 0, 0, (), "-"),
    ),
    SigningKey(b"\x02" * 32),
)  # fmt: skip


def node_key(number: int) -> SigningKey:
    return SigningKey(bytes([number]) * 32)


def owner_key(number: int) -> SigningKey:
    return SigningKey(bytes([number]) * 31 + b"\x01")


def mandate(node: int, owner: int) -> Signed[Mandate]:
    record = Mandate(
        bytes(node_key(node).verify_key), bytes(owner_key(owner).verify_key), ("executor", "checker"), 1,
        NOW_MS - 1000, NOW_MS + 10**6, None,
    )  # fmt: skip
    return sign(record, owner_key(owner))


@dataclass
class Job:
    """Records of one piece of work under one policy, growing."""

    policy: str
    nonce: bytes = b"\x09" * 32
    candidates: tuple[bytes, ...] = ()
    records: list[Signed[Any]] = field(default_factory=lambda: [MANIFEST])
    openings: list[Opening] = field(default_factory=list)
    ordered: list[Ordered] = field(default_factory=list)
    clock: int = 0

    @property
    def question(self) -> Question:
        return Question(bytes(CLIENT.verify_key), MANIFEST.id, Policy.parse(self.policy), self.nonce)

    def order(
        self, node: int, owner: int | None = None, *, sequence: tuple[int, ...], claimed: int = 0, **changes: Any
    ) -> Ordered:
        """An order to `node` (of the owner of that number, unless said), accepted."""
        self.clock += 1
        work = Input(bytes([self.clock]) * 32, H, Work((sequence,), claimed).encode())
        record = JobOrder(
            bundle=MANIFEST.id, entry="generate", parameters=Parameters(80), calls=1, input_tokens=len(sequence) - claimed,
            planned_tokens=80, input_digest=work.digest, executor=bytes(node_key(node).verify_key), worker_key=H,

            price=Price(MANIFEST.id, changes.get("entry", "generate"), 10, 1, 4, 2), channel=H, amount_ucr_max=10_000,
            created_ms=NOW_MS + self.clock, nonce=bytes([self.clock]) * 16,
            first_chunk_ms_max=1000, gap_ms_max=1000, check_commitment=check_commitment(self.nonce, self.policy),
            held_ppm=0, hold_ms=0, candidates=self.candidates, continues=None, checks=None,
        )  # fmt: skip
        signed = sign(replace(record, **changes), CLIENT)
        paper = mandate(node, node if owner is None else owner)
        accept = sign(Accept(signed.id, paper.id, NOW_MS, "class"), node_key(node))
        self.records += [paper, signed, accept]
        price = signed.record.price
        start = transcript_start(work.salt, signed.id)
        self.ordered.append(Ordered(self, node, signed, work, Delivery(signed, price, "class", start)))
        return self.ordered[-1]

    def text(
        self,
        node: int,
        owner: int | None = None,
        *,
        start: int = 0,
        after: Signed[Receipt] | None = None,
        **changes: Any,
    ) -> Ordered:
        """An order for the text, whose tokens are their positions; from answer position `start` on, after a receipt."""
        sequence = tuple(range(PROMPT + start))
        resumes = Continuation(after.id, len(sequence)) if after else None
        left = 80 - start
        return self.order(
            node,
            owner,
            sequence=sequence,
            continues=resumes,
            parameters=Parameters(left),
            planned_tokens=left,
            **changes,
        )

    def check(
        self, node: int, receipt: Signed[Receipt], end: int, *, owner: int | None = None, carried: int = 0,
        shift: int = 0, gap: int = 0, mass: int = 0, silent: bool = False, **changes: Any,
    ) -> Ordered:  # fmt: skip
        """A check of the window that ends at answer position `end`, whose figures are off by `shift` and `gap`."""
        claimed = receipt.record.tokens + carried
        sequence = changes.pop("sequence", tuple(range(PROMPT + end)))
        asked = self.order(
            node, owner, sequence=sequence, claimed=claimed, entry="score", planned_tokens=claimed, checks=receipt.id,
            **changes,
        )  # fmt: skip
        if silent:
            return asked
        values = tuple(value(end - claimed + n) + shift for n in range(claimed))
        gaps, masses = (gap,) * claimed, (mass,) * claimed
        found = Attestation(receipt.id, asked.order.id, TEACHER_FORCED, values, gaps, masses, "class")
        asked.deliver(Piece(values_micro=values, gaps_micro=gaps, masses_ppm=masses), claimed)
        self.records.append(sign(found, node_key(node)))
        asked.receipt(FINAL)
        return asked


def value(position: int) -> int:
    """The honest proof value of the token at an answer position."""
    return -1000 - position * 17


@dataclass
class Ordered:
    """One order and what is delivered under it."""

    job: Job
    node: int
    order: Signed[JobOrder]
    input: Input
    delivery: Delivery
    pieces: list[bytes] = field(default_factory=list)

    def deliver(self, piece: Piece, tokens: int) -> None:
        encoded = piece.encode()
        self.pieces.append(encoded)
        self.delivery.add(tokens, piece.values_micro, transcript_next(self.delivery.transcript, encoded))

    def write(self, start: int, count: int, shift: int = 0) -> None:
        """Tokens from answer position `start` on, with values off by `shift`."""
        for position in range(start, start + count):
            self.deliver(Piece(tokens=(PROMPT + position,), values_micro=(value(position) + shift,)), 1)

    def receipt(self, end: str = OPEN) -> Signed[Receipt]:
        signed = sign(self.delivery.next_receipt(end), node_key(self.node))
        self.delivery.issued(signed)
        self.job.records.append(signed)
        return signed

    def open(self) -> None:
        self.job.openings.append(Opening(self.order.id, self.input.salt, self.input.work, tuple(self.pieces)))


def call(job: Job, node: int, result: tuple[float, ...], owner: int | None = None, **changes: Any) -> Ordered:
    """A function call that came to `result`."""
    asked = {"sequence": (1, 2, 3), "entry": "call", "planned_tokens": 0, "parameters": Parameters(), **changes}
    ordered = job.order(node, owner, **asked)
    ordered.deliver(Piece(tensor=struct.pack(f"<{len(result)}f", *result), shape=(1, len(result))), 0)
    ordered.receipt(FINAL)
    ordered.open()
    return ordered

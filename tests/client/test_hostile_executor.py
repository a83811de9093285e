"""An order given to an executor that cheats or breaks the protocol, over real libp2p: it is noticed, and not paid."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nacl.signing import SigningKey

from fallow.client.desk import Desk
from fallow.client.events import Attested, Broken, Delivered, Receipted
from fallow.client.execution import execute
from fallow.client.nodes import Node
from fallow.client.ordering import Request
from fallow.client.settling import Settler
from fallow.client.wallet import Wallet
from fallow.node.engine.sealing import PieceSealer, open_input
from fallow.node.log import wall_ms
from fallow.node.network.mesh import open_network
from fallow.node.network.seam import Network, Stream
from fallow.node.network.table_rules import profile_rules
from fallow.protocol.bundle import File, Manifest, Program, Tensor, Tolerance
from fallow.protocol.checks import TEACHER_FORCED, Attestation
from fallow.protocol.envelope import Signed, sign, verify_untrusted
from fallow.protocol.errors import Code
from fallow.protocol.evidence import Fault, Proven, prove
from fallow.protocol.identity import Mandate, WorkerKey
from fallow.protocol.limits import HEARTBEAT_MS, WINDOW_TOKENS
from fallow.protocol.messages.codec import Message, decode_message_untrusted, encode_message
from fallow.protocol.messages.jobs import (
    AcceptMessage,
    AttestationMessage,
    ChunkMessage,
    FailedMessage,
    HeartbeatMessage,
    OrderMessage,
    ReceiptMessage,
    VoucherMessage,
)
from fallow.protocol.messages.refusals import RefuseMessage
from fallow.protocol.orders import Accept, JobOrder
from fallow.protocol.prices import Price
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile, ServedBundle
from fallow.protocol.receipts import FINAL, OPEN, Delivery
from fallow.protocol.streams import JOB_PROTOCOL
from fallow.protocol.work import Parameters, Piece, Work, decode_input_untrusted, transcript_next, transcript_start

BUNDLE, H = b"\x09" * 32, b"\x07" * 32
FILE = File(1, (H,))
MANIFEST = Manifest(
    "made-up", "none", "-", "-", ("generate", "score", "call"), FILE, (), (), (), (Tensor("vector", "float32", (2,)),),
    (Program("p", "decode", 1, 1, 8, FILE, 0, 0),),
    FILE, None, 100, (), Tolerance(1, 1, 1, 0, 0, (), "-"),
)  # fmt: skip
PRICES = tuple(Price(BUNDLE, entry, 10, 1, 2, 1) for entry in ("generate", "score", "call"))
PLANNED = 40


@dataclass
class Executor:
    """The other end of a job, before it has done anything wrong."""

    key: SigningKey
    stream: Stream
    order: Signed[JobOrder]
    sealer: PieceSealer
    delivery: Delivery
    mandate: Signed[Mandate]

    async def say(self, message: Message) -> None:
        await self.stream.send(encode_message(message))

    async def accept(self, **changes: Any) -> None:
        record = replace(Accept(self.order.id, self.mandate.id, wall_ms(), "class"), **changes)
        await self.say(AcceptMessage(sign(record, self.key).envelope))

    async def deliver(self, piece: Piece, index: int) -> None:
        encoded = piece.encode()
        tokens, transcript = len(piece.values_micro), transcript_next(self.delivery.transcript, encoded)
        self.delivery.add(tokens, piece.values_micro, transcript)
        await self.say(ChunkMessage(index, self.sealer.seal(index, encoded)))

    async def text(self, count: int, start: int = 0) -> None:
        for number in range(start, start + count):
            await self.deliver(Piece(tokens=(number,), values_micro=(-number,)), number)

    async def receipt(self, end: str, key: SigningKey | None = None, **changes: Any) -> None:
        receipt = sign(replace(self.delivery.next_receipt(end), **changes), key or self.key)
        self.delivery.issued(receipt)
        await self.say(ReceiptMessage(receipt.envelope))

    async def attest(self, **changes: Any) -> None:
        record = Attestation(H, self.order.id, TEACHER_FORCED, (-1,) * PLANNED, (0,) * PLANNED, (0,) * PLANNED, "class")
        await self.say(AttestationMessage(sign(replace(record, **changes), self.key).envelope))


Crime = Callable[[Executor], Awaitable[None]]


def request(entry: str) -> Request:
    claimed = PLANNED if entry == "score" else 0
    work = Work((tuple(range(claimed + 5)),), claimed)
    planned = 0 if entry == "call" else PLANNED
    parameters = Parameters(max_tokens=planned)
    return Request(BUNDLE, MANIFEST, entry, work, parameters, planned, H, checks=H if entry == "score" else None)


@asynccontextmanager
async def ordered(tmp_path: Path, crime: Crime) -> AsyncIterator[tuple[Desk, Node]]:
    """A client's desk, and the node that does this to whatever it is ordered."""
    key, owner, worker = SigningKey.generate(), SigningKey.generate(), X25519PrivateKey.generate()
    public, now = bytes(key.verify_key), wall_ms()
    record = Mandate(public, bytes(owner.verify_key), ("executor", "checker"), 1, now, now + 60_000, None)
    mandate = sign(record, owner)

    async def serve(stream: Stream) -> None:
        message = decode_message_untrusted(await stream.receive())
        assert isinstance(message, OrderMessage)
        order = verify_untrusted(JobOrder, message.order, signer=wallet.payer)
        asked = decode_input_untrusted(open_input(worker, order.id, message.sealed_input))
        price = next(price for price in PRICES if price.entry == order.record.entry)
        delivery = Delivery(order, price, "class", transcript_start(asked.salt, order.id))
        await crime(Executor(key, stream, order, PieceSealer(asked.reply_secret, order.id), delivery, mandate))
        async with trio.open_nursery() as nursery:  # alive until the client goes
            nursery.start_soon(_beat, stream)
            while True:
                await stream.receive()

    client = SigningKey.generate()
    wallet = Wallet(tmp_path / "wallet.db", client)
    rules, listen = profile_rules(wall_ms), ["/ip4/127.0.0.1/tcp/0"]
    with trio.fail_after(60):
        async with open_network(bytes(key), listen, [], rules) as theirs:
            theirs.serve(JOB_PROTOCOL, serve)
            client_seed = bytes(SigningKey.generate())
            async with open_network(client_seed, [], theirs.addresses(), rules, mode="client") as ours:
                yield Desk(ours, wallet, Settler(ours), client, wall_ms), described(theirs, key, mandate, worker)
    wallet.close()


async def _beat(stream: Stream) -> None:
    while True:
        await stream.send(encode_message(HeartbeatMessage()))
        await trio.sleep(HEARTBEAT_MS / 1000)


def described(network: Network, key: SigningKey, mandate: Signed[Mandate], worker: X25519PrivateKey) -> Node:
    public, now = bytes(key.verify_key), wall_ms()
    served = ServedBundle(BUNDLE, ("generate", "score", "call"), "class", 0, 0, 0)
    return Node(
        public,
        mandate,
        CapabilityProfile(
            public, mandate.id, 1, now, now + 1000, "host", "", ("executor",), (), (served,), PRICES, 4, 0, 0, (),
        ),
        ConnectivityProfile(public, 1, now, now + 1000, (), (), None, 0, None, None, None, None, None, None),
        sign(WorkerKey(public, worker.public_key().public_bytes_raw(), now, now + 1000), key),
        "ready", (), 0, network.addresses(), 1.0, 0.0,
    )  # fmt: skip


async def receipt_for_nothing(executor: Executor) -> None:
    await executor.accept()
    await executor.receipt(FINAL, tokens=PLANNED, values_micro=(-1,) * PLANNED)


async def more_money(executor: Executor) -> None:
    await executor.accept()
    await executor.text(3)
    await executor.receipt(FINAL, amount_ucr=executor.delivery.next_receipt(FINAL).amount_ucr + 1)


async def other_values(executor: Executor) -> None:
    await executor.accept()
    await executor.text(3)
    await executor.receipt("yielded", values_micro=(-1, -1, -1))


async def more_tokens(executor: Executor) -> None:
    await executor.accept()
    for number in range(PLANNED + 1):
        await executor.text(1, number)
        if executor.delivery.window_full:
            await executor.receipt(OPEN)


async def no_receipt_when_due(executor: Executor) -> None:
    await executor.accept()
    await executor.text(WINDOW_TOKENS + 1)


async def bitty_receipts(executor: Executor) -> None:
    await executor.accept()
    await executor.text(3)
    await executor.receipt(OPEN)


async def beyond_credit(executor: Executor) -> None:
    await executor.accept()
    await executor.text(WINDOW_TOKENS)
    await executor.receipt(OPEN)
    await executor.receipt(OPEN)


async def empty_pieces(executor: Executor) -> None:
    await executor.accept()
    await executor.deliver(Piece(), 0)


async def no_values(executor: Executor) -> None:
    await executor.accept()
    await executor.deliver(Piece(tokens=(1, 2), values_micro=(-1,)), 0)


async def out_of_order(executor: Executor) -> None:
    await executor.accept()
    await executor.deliver(Piece(tokens=(1,), values_micro=(-1,)), 1)


async def another_mandate(executor: Executor) -> None:
    await executor.accept(mandate=H)


async def another_order(executor: Executor) -> None:
    await executor.accept(order=H)


async def strangers_receipt(executor: Executor) -> None:
    await executor.accept()
    await executor.text(3)
    await executor.receipt(FINAL, key=SigningKey.generate())


async def no_acceptance(executor: Executor) -> None:
    await executor.text(1)


async def a_clients_message(executor: Executor) -> None:
    await executor.accept()
    await executor.say(VoucherMessage(b"x"))


async def garbage(executor: Executor) -> None:
    await executor.stream.send(b"\xff" * 100)


async def silence(executor: Executor) -> None:
    await executor.accept()
    await trio.sleep_forever()


async def refusal(executor: Executor) -> None:
    await executor.say(RefuseMessage("busy", "later", 1000))


async def unheard_of_refusal(executor: Executor) -> None:
    await executor.say(RefuseMessage("whatever", "", 0))


async def failure(executor: Executor) -> None:
    await executor.accept()
    await executor.say(FailedMessage("worker_died", "it died"))


GENERATE_CRIMES = [
    (receipt_for_nothing, Code.BAD_RECORD),
    (more_money, Code.BAD_RECORD),
    (other_values, Code.BAD_RECORD),
    (more_tokens, Code.ILLEGAL_MOVE),
    (no_receipt_when_due, Code.ILLEGAL_MOVE),
    (bitty_receipts, Code.ILLEGAL_MOVE),
    (beyond_credit, Code.ILLEGAL_MOVE),
    (empty_pieces, Code.BAD_RECORD),
    (no_values, Code.BAD_RECORD),
    (out_of_order, Code.ILLEGAL_MOVE),
    (another_order, Code.BAD_RECORD),
    (another_mandate, Code.BAD_MANDATE),
    (strangers_receipt, Code.BAD_SIGNATURE),
    (no_acceptance, Code.ILLEGAL_MOVE),
    (a_clients_message, Code.ILLEGAL_MOVE),
    (garbage, Code.BAD_ENCODING),
    (silence, Code.TIMED_OUT),
    (refusal, Code.BUSY),
    (unheard_of_refusal, Code.BAD_RECORD),
    (failure, Code.WORKER_DIED),
]


@pytest.mark.spec("J-14", "J-20", "J-21", "J-24", "J-25", "J-28", "J-29", "J-32", "E-3")
@pytest.mark.parametrize(("crime", "code"), GENERATE_CRIMES, ids=lambda value: getattr(value, "__name__", str(value)))
async def test_a_text_that_is_not_as_ordered(tmp_path: Path, crime: Crime, code: Code) -> None:
    await breaks(tmp_path, "generate", crime, code)


async def padded_text(executor: Executor) -> None:
    """With megabytes of what no text has: its opening would be too large for any judge to read."""
    await executor.accept()
    await executor.deliver(Piece(tokens=(1,), values_micro=(-1,), tensor=bytes(2**20)), 0)


async def padded_result(executor: Executor) -> None:
    await executor.accept()
    await executor.deliver(Piece(tensor=bytes(2**20), shape=(1, 2)), 0)


async def padded_finding(executor: Executor) -> None:
    await executor.accept()
    await executor.deliver(replace(CHECKED, tensor=bytes(2**20)), 0)


@pytest.mark.spec("J-21")
@pytest.mark.parametrize(
    ("entry", "crime"), [("generate", padded_text), ("call", padded_result), ("score", padded_finding)]
)
async def test_an_answer_with_what_is_no_part_of_it(tmp_path: Path, entry: str, crime: Crime) -> None:
    await breaks(tmp_path, entry, crime, Code.BAD_RECORD)


async def two_results(executor: Executor) -> None:
    await executor.accept()
    for index in range(2):
        await executor.deliver(Piece(tensor=b"\x00" * 8, shape=(1, 2)), index)


async def other_shape(executor: Executor) -> None:
    await executor.accept()
    await executor.deliver(Piece(tensor=b"\x00" * 8, shape=(2, 1)), 0)


async def more_numbers(executor: Executor) -> None:
    await executor.accept()
    await executor.deliver(Piece(tensor=b"\x00" * 12, shape=(1, 3)), 0)


async def no_result(executor: Executor) -> None:
    await executor.accept()
    await executor.receipt(FINAL)


@pytest.mark.spec("J-21", "J-26")
@pytest.mark.parametrize("crime", [two_results, other_shape, more_numbers, no_result])
async def test_a_result_that_is_not_as_ordered(tmp_path: Path, crime: Crime) -> None:
    await breaks(tmp_path, "call", crime, Code.BAD_RECORD)


CHECKED = Piece(values_micro=(-1,) * PLANNED, gaps_micro=(0,) * PLANNED, masses_ppm=(0,) * PLANNED)


def false_finding(**changes: Any) -> Crime:
    async def crime(executor: Executor) -> None:
        await executor.accept()
        await executor.deliver(CHECKED, 0)
        await executor.attest(**changes)

    return crime


async def no_finding(executor: Executor) -> None:
    await executor.accept()
    await executor.deliver(CHECKED, 0)
    await executor.receipt(FINAL)


async def fewer_tokens(executor: Executor) -> None:
    less = PLANNED - 1
    await executor.accept()
    await executor.deliver(Piece(values_micro=(-1,) * less, gaps_micro=(0,) * less, masses_ppm=(0,) * less), 0)
    await executor.attest(values_micro=(-1,) * less, gaps_micro=(0,) * less, masses_ppm=(0,) * less)
    await executor.receipt(FINAL)


@pytest.mark.spec("J-26", "J-27")
@pytest.mark.parametrize(
    "crime",
    [
        no_finding,
        fewer_tokens,
        false_finding(subject=BUNDLE),
        false_finding(order=BUNDLE),
        false_finding(numerics_class="another"),
        false_finding(numerics_class="class+another"),
        false_finding(values_micro=(-2,) * PLANNED),
        false_finding(gaps_micro=(1,) * PLANNED),
    ],
)
async def test_a_finding_that_is_not_the_checkers_result(tmp_path: Path, crime: Crime) -> None:
    await breaks(tmp_path, "score", crime, Code.BAD_RECORD)


async def breaks(tmp_path: Path, entry: str, crime: Crime, code: Code) -> None:
    """The execution ends by this code, without a final receipt, and nothing was promised for it."""
    async with ordered(tmp_path, crime) as (desk, node):
        async with execute(desk, node, request(entry)) as execution:
            events = []
            async for event in execution.events:
                events.append(event)
                if isinstance(event, Broken):
                    break
        assert isinstance(events[-1], Broken)
        assert events[-1].error.code is code
        finals = [e for e in events if isinstance(e, Receipted) and e.receipt.record.end != OPEN]
        assert not finals
        assert desk.wallet.owed_by_owner() == {}
        assert all(isinstance(event, Delivered | Attested | Receipted | Broken) for event in events)


async def two_receipts(executor: Executor) -> None:
    await executor.accept()
    await executor.text(WINDOW_TOKENS)
    due = executor.delivery.next_receipt(OPEN)
    for more_ucr in (0, 1_000):
        await executor.say(
            ReceiptMessage(sign(replace(due, amount_ucr=due.amount_ucr + more_ucr), executor.key).envelope)
        )


async def two_receipts_at_the_end(executor: Executor) -> None:
    await executor.accept()
    await executor.text(3)
    due = executor.delivery.next_receipt("yielded")
    for tokens in (3, 2):
        short = replace(due, tokens=tokens, values_micro=due.values_micro[:tokens])
        await executor.say(ReceiptMessage(sign(short, executor.key).envelope))


async def two_acceptances(executor: Executor) -> None:
    await executor.accept()
    await executor.accept(numerics_class="another")


async def two_findings(executor: Executor) -> None:
    await executor.accept()
    await executor.deliver(CHECKED, 0)
    await executor.attest()
    await executor.attest(values_micro=(-2,) * PLANNED)


@pytest.mark.parametrize(
    ("entry", "crime"),
    [
        ("generate", two_receipts),
        ("generate", two_receipts_at_the_end),
        ("generate", two_acceptances),
        ("score", two_findings),
    ],
)
async def test_two_of_what_may_be_signed_once_are_shown_to_everybody(tmp_path: Path, entry: str, crime: Crime) -> None:
    """Also if the second comes when all is paid: the stream is read to its end."""
    accused: list[tuple[Signed[Any], ...]] = []
    async with ordered(tmp_path, crime) as (desk, node):
        desk = replace(desk, accuse=lambda records: accused.append(tuple(records)))
        async with execute(desk, node, request(entry)) as execution:
            async for event in execution.events:
                if isinstance(event, Receipted):
                    await execution.pay(event)
                if isinstance(event, Broken) or execution.job.ended:
                    break
    assert [prove(records) for records in accused] == [Proven(Fault.EQUIVOCATION, node.key)]


async def the_same_twice(executor: Executor) -> None:
    await executor.accept()
    await executor.text(WINDOW_TOKENS)
    receipt = sign(executor.delivery.next_receipt(OPEN), executor.key)
    for _ in range(2):
        await executor.say(ReceiptMessage(receipt.envelope))


@pytest.mark.parametrize("crime", [more_money, strangers_receipt, beyond_credit, another_order, the_same_twice])
async def test_what_is_wrong_and_contradicts_nothing_accuses_nobody(tmp_path: Path, crime: Crime) -> None:
    accused: list[Any] = []
    async with (
        ordered(tmp_path, crime) as (desk, node),
        execute(replace(desk, accuse=accused.append), node, request("generate")) as execution,
    ):
        async for event in execution.events:
            if isinstance(event, Broken):
                break
    assert accused == []

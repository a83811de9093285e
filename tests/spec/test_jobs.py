"""Page 03: what is sealed, hashed and counted, by the page's words; orders refused; bounds of time kept."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import nacl.bindings as sodium
import pytest
import trio
from blake3 import blake3
from nacl.signing import SigningKey

from fallow.client.desk import Desk
from fallow.client.events import Broken
from fallow.client.execution import Execution, execute
from fallow.client.nodes import Node
from fallow.client.ordering import Request
from fallow.client.settling import Settler
from fallow.client.wallet import Wallet
from fallow.node.engine.sealing import PieceSealer, seal_input
from fallow.node.network.seam import Network, Stream
from fallow.protocol.bundle import File, Manifest, Program, Tolerance
from fallow.protocol.codec import encode
from fallow.protocol.envelope import sign, verify_untrusted
from fallow.protocol.errors import Code, NetworkError, Refused, RemoteProtocolError
from fallow.protocol.identity import Mandate, WorkerKey
from fallow.protocol.job import Event, Job, Role
from fallow.protocol.limits import (
    ACCEPT_MS_MAX,
    HEARTBEAT_MS,
    HOLD_MS_MAX,
    JOB_MS_MAX,
    MESSAGE_BYTES_MAX,
    SILENCE_MS_MAX,
    SKEW_MS,
    VOUCHER_MS_MAX,
    YIELD_MS_MAX,
)
from fallow.protocol.messages.codec import Message, decode_message_untrusted, encode_message
from fallow.protocol.messages.jobs import AcceptMessage, ChunkMessage, OrderMessage
from fallow.protocol.orders import Accept, JobOrder, Terms, check_order
from fallow.protocol.prices import (
    CANCELLED,
    FINAL,
    OPEN,
    YIELDED,
    Price,
    Usage,
    amount_ucr,
    amount_ucr_max,
)
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile, ServedBundle
from fallow.protocol.work import (
    Input,
    Parameters,
    Piece,
    Work,
    decode_input_untrusted,
    decode_work_untrusted,
    transcript_next,
    transcript_start,
)

CLIENT, NODE, OWNER, STRANGER = (SigningKey(bytes([number] * 32)) for number in range(1, 5))
NODE_KEY = bytes(NODE.verify_key)
WORKER_SECRET = b"\x0b" * 32
H, BUNDLE, SALT = b"\x07" * 32, b"\x08" * 32, b"\x09" * 32
NOW_MS = 1_790_000_000_000
PRICE = Price(BUNDLE, "generate", 100, 3, 5, 7)


@pytest.mark.spec("J-4", "N-7", "N-8", "L-1")
@pytest.mark.parametrize(
    ("code", "frame"),
    [
        (Code.BAD_ENCODING, b""),
        (Code.BAD_ENCODING, encode(["order"])),
        (Code.BAD_ENCODING, encode({})),
        (Code.BAD_ENCODING, encode({"t": "unheard-of"})),
        (Code.BAD_ENCODING, encode({"t": 1})),
        (Code.BAD_ENCODING, encode({"t": "heartbeat"}) + b"\0"),
        (Code.BAD_RECORD, encode({"t": "cancel"})),
        (Code.BAD_RECORD, encode({"t": "heartbeat", "more": 1})),
        (Code.TOO_LARGE, bytes(MESSAGE_BYTES_MAX + 1)),
    ],
)
def test_a_frame_is_a_message_of_a_known_kind(code: Code, frame: bytes) -> None:
    decode_message_untrusted(encode({"t": "heartbeat", "opt_more": 1}))
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message_untrusted(frame)
    assert caught.value.code is code


@pytest.mark.spec("J-5")
@pytest.mark.parametrize(
    ("usage", "planned", "end", "owed"),
    [
        (Usage(1, 40, 32), 80, FINAL, 100 + 120 + 160),
        (Usage(1, 40, 32), 80, OPEN, 220 * 32 // 80 + 160),
        (Usage(1, 40, 7), 9, YIELDED, 171 + 35),
        (Usage(1, 40, 0), 80, YIELDED, 0),
        (Usage(1, 40, 0), 80, CANCELLED, 100 + 96),
        (Usage(1, 8, 0), 80, CANCELLED, 100 + 24),
        (Usage(1, 40, 79), 80, CANCELLED, 220 * 79 // 80 + 395),
        (Usage(3, 40), 0, FINAL, 300 + 120),
        (Usage(3, 40), 0, YIELDED, 0),
        (Usage(3, 40), 0, CANCELLED, 100 + 96),
        (Usage(1, 40, 0, 32), 32, FINAL, 100 + 120 + 224),
    ],
)
def test_what_a_job_costs(usage: Usage, planned: int, end: str, owed: int) -> None:
    assert amount_ucr(PRICE, usage, planned_tokens=planned, end=end) == owed
    assert owed <= amount_ucr_max(PRICE, usage.calls, usage.input_tokens, planned)


@pytest.mark.spec("J-22")
def test_digests_and_transcripts_are_hashes_of_the_bytes_that_were_sealed() -> None:
    piece = Piece(tokens=(1,), values_micro=(-5,)).encode()
    start = blake3(b"fallow/1/transcript" + SALT + H).digest()
    assert transcript_start(SALT, H) == start
    assert transcript_next(start, piece) == blake3(start + piece).digest()
    work = Work(((1, 2, 3),)).encode()
    assert Input(SALT, H, work).digest == blake3(SALT + work).digest()


def opened(secret: bytes, order_id: bytes, sealed: bytes) -> bytes:
    """The plaintext of a sealed input: RFC 9180 in base mode, step by step, on another library than the one under test."""

    def extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + key, "sha256")

    def expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
        return hmac.digest(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info + b"\x01", "sha256")[
            :length
        ]

    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x03"
    enc, ciphertext = sealed[:32], sealed[32:]
    shared = extract(kem, b"", b"eae_prk", sodium.crypto_scalarmult(secret, enc))
    shared = expand(kem, shared, b"shared_secret", enc + sodium.crypto_scalarmult_base(secret), 32)
    context = extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", b"fallow/1/input" + order_id)
    schedule = extract(suite, shared, b"secret", b"")
    key = expand(suite, schedule, b"key", b"\0" + context, 32)
    nonce = expand(suite, schedule, b"base_nonce", b"\0" + context, 12)
    return sodium.crypto_aead_chacha20poly1305_ietf_decrypt(ciphertext, b"", nonce, key)


@pytest.mark.spec("J-15")
def test_the_input_is_sealed_by_hpke_as_in_its_rfc() -> None:
    sealed = seal_input(sodium.crypto_scalarmult_base(WORKER_SECRET), H, b"plaintext")
    assert opened(WORKER_SECRET, H, sealed) == b"plaintext"
    with pytest.raises(RemoteProtocolError) as caught:
        seal_input(bytes(32), H, b"plaintext")
    assert caught.value.code is Code.STALE_WORKER_KEY


@pytest.mark.spec("J-17", "J-18")
def test_pieces_are_sealed_by_their_number_under_the_reply_secret() -> None:
    number = 258
    sealed = PieceSealer(SALT, H).seal(number, b"piece")
    nonce = bytes(10) + b"\x01\x02"
    assert sealed == sodium.crypto_aead_chacha20poly1305_ietf_encrypt(b"piece", H, nonce, SALT)
    for secret, order_id, index in ((H, H, number), (SALT, SALT, number), (SALT, H, number + 1)):
        with pytest.raises(RemoteProtocolError) as caught:
            PieceSealer(secret, order_id).open(index, sealed)
        assert caught.value.code is Code.BAD_ENCODING


ORDER = JobOrder(
    BUNDLE, "generate", Parameters(40), 1, 40, 40, H, NODE_KEY, H, replace(PRICE, call_ucr=90), H, 1000, NOW_MS,
    b"n" * 16, 1000, 1000, H, 250_000, 60_000, (H,), None, None,
)  # fmt: skip
OF_CHECKS = replace(PRICE, entry="score")
TERMS = Terms(
    NODE_KEY, H, frozenset({ORDER.price, OF_CHECKS}), frozenset({(BUNDLE, "generate"), (H, "call")}), 250_000, 60_000,
    frozenset({H, SALT}),
)  # fmt: skip


@pytest.mark.spec("J-10")
@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (Code.WRONG_EXECUTOR, {"executor": H, "created_ms": 0}),
        (Code.EXPIRED, {"created_ms": NOW_MS - SKEW_MS - 1, "bundle": SALT}),
        (Code.EXPIRED, {"created_ms": NOW_MS + SKEW_MS + 1}),
        (Code.UNKNOWN_BUNDLE, {"bundle": SALT, "entry": "call"}),
        (Code.UNKNOWN_ENTRY, {"entry": "call", "price": PRICE}),
        (Code.STALE_PRICES, {"price": replace(ORDER.price, output_token_ucr=0), "worker_key": SALT}),
        (Code.STALE_PRICES, {"price": OF_CHECKS}),
        (Code.STALE_WORKER_KEY, {"worker_key": SALT, "held_ppm": 1_000_000}),
        (Code.BAD_TERMS, {"held_ppm": 250_001}),
        (Code.BAD_TERMS, {"hold_ms": 60_001}),
        (Code.BAD_TERMS, {"hold_ms": HOLD_MS_MAX, "held_ppm": 0}),
        (Code.BAD_TERMS, {"candidates": (H, BUNDLE)}),
    ],
)
def test_an_order_is_held_against_the_terms_and_the_first_fault_counts(code: Code, changes: dict[str, Any]) -> None:
    for created_ms in (NOW_MS - SKEW_MS, NOW_MS + SKEW_MS):
        check_order(replace(ORDER, created_ms=created_ms), TERMS, NOW_MS)
    with pytest.raises(Refused) as caught:
        check_order(replace(ORDER, **changes), TERMS, NOW_MS)
    assert caught.value.code is code


_C, _X = Role.CLIENT, Role.EXECUTOR
TWO_UNPAID = [(_X, Event.ACCEPT), (_X, Event.CHUNK), (_X, Event.RECEIPT), (_X, Event.CHUNK), (_X, Event.RECEIPT)]


@pytest.mark.spec("J-32")
@pytest.mark.parametrize(
    ("role", "moves", "heard", "bound_ms"),
    [
        (_C, [], False, ACCEPT_MS_MAX),
        (_X, [], False, ACCEPT_MS_MAX),
        (_C, [(_X, Event.ACCEPT)], False, SILENCE_MS_MAX),
        (_X, [(_X, Event.ACCEPT)], False, SILENCE_MS_MAX),
        (_C, [(_X, Event.ACCEPT)], True, 20_000),
        (_C, [(_X, Event.ACCEPT), (_X, Event.CHUNK)], True, 5_000),
        (_C, [(_X, Event.ACCEPT), (_X, Event.CHUNK), (_X, Event.RECEIPT)], True, 5_000),
        (_C, TWO_UNPAID, True, JOB_MS_MAX),
        (_C, [*TWO_UNPAID, (_C, Event.VOUCHER)], True, 5_000),
        (_C, [(_X, Event.ACCEPT), (_C, Event.CANCEL)], True, YIELD_MS_MAX),
        (_C, [(_X, Event.ACCEPT), (_X, Event.YIELD)], True, YIELD_MS_MAX),
        (_C, [(_X, Event.ACCEPT), (_X, Event.FINAL)], True, JOB_MS_MAX),
        (_X, [(_X, Event.ACCEPT), (_X, Event.CHUNK), (_X, Event.RECEIPT)], True, JOB_MS_MAX),
        (_X, TWO_UNPAID, True, VOUCHER_MS_MAX),
        (_X, [(_X, Event.ACCEPT), (_X, Event.FINAL)], True, VOUCHER_MS_MAX),
    ],
)  # fmt: skip
def test_a_job_ends_when_a_bound_is_reached_and_not_before(
    role: Role, moves: list[tuple[Role, Event]], heard: bool, bound_ms: int
) -> None:
    job = Job(role, 20_000, 5_000, 0)
    for by, event in [(_C, Event.ORDER), *moves]:
        (job.send if by is role else job.receive)(event, 0)
    if heard:
        job.receive(Event.HEARTBEAT, bound_ms - 1)
    assert job.deadline_ms() == bound_ms
    job.expire(bound_ms - 1)
    with pytest.raises(RemoteProtocolError) as caught:
        job.expire(bound_ms)
    assert caught.value.code is Code.TIMED_OUT and job.ended


@pytest.mark.spec("J-33", "J-28")
def test_a_heartbeat_changes_nothing_but_when_the_next_one_is_due() -> None:
    job = Job(_C, 20_000, 5_000, 0)
    job.send(Event.ORDER, 0)
    for now_ms in range(HEARTBEAT_MS, 4 * HEARTBEAT_MS, HEARTBEAT_MS):
        assert job.heartbeat_due_ms() == now_ms
        before = job.state
        job.send(Event.HEARTBEAT, now_ms)
        job.receive(Event.HEARTBEAT, now_ms)
        assert job.state is before


class FakeStream:
    """The client's end of a job stream: `answers` makes the node's frames from the order."""

    peer = NODE_KEY

    def __init__(self, answers: Callable[[OrderMessage], Sequence[Message]]) -> None:
        self._answers = answers
        self._out, self._in = trio.open_memory_channel[bytes](16)
        self.sent: list[Message] = []

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        message = decode_message_untrusted(frame)
        self.sent.append(message)
        if isinstance(message, OrderMessage):
            for answer in self._answers(message):
                self._out.send_nowait(encode_message(answer))

    async def receive(self) -> bytes:
        try:
            return await self._in.receive()
        except trio.ClosedResourceError:
            raise NetworkError(Code.STREAM_CLOSED, "closed") from None

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self._in.close()

    async def reset(self) -> None:
        await self.close()


class FakeNetwork:
    """A network of one node that is always there."""

    def __init__(self, answers: Callable[[OrderMessage], Sequence[Message]]) -> None:
        self._answers = answers

    def peers(self) -> list[bytes]:
        return [NODE_KEY]

    async def open(self, peer: bytes, protocol: str, addresses: Sequence[str] = (), *, watched: bool = False) -> Stream:
        await trio.lowlevel.checkpoint()
        return cast(Stream, FakeStream(self._answers))


FILE = File(1, (H,))
MANIFEST = Manifest(
    "made-up", "none", "-", "-", ("generate",), FILE, (), (), (), (),
    (Program("p", "decode", 1, 1, 8, FILE, 0, 0),), FILE, None, 100, (),
    Tolerance(1, 1, 1, 0, 0, (), "-"),
)  # fmt: skip
MANDATE = sign(Mandate(NODE_KEY, bytes(OWNER.verify_key), ("executor",), 1, NOW_MS, NOW_MS + 1000, None), OWNER)
NODE_SEEN = Node(
    NODE_KEY,
    MANDATE,
    CapabilityProfile(
        NODE_KEY, MANDATE.id, 1, NOW_MS, NOW_MS + 1, None, "", ("executor",), (),
        (ServedBundle(BUNDLE, ("generate",), "class", 0, 0, 0),), (PRICE,), 4, 0, 0, (),
    ),
    ConnectivityProfile(NODE_KEY, 1, NOW_MS, NOW_MS + 1, (), (), None, 0, None, None, None, None, None, None),
    sign(WorkerKey(NODE_KEY, sodium.crypto_scalarmult_base(WORKER_SECRET), NOW_MS, NOW_MS + 1000), NODE),
    "ready", (), 0, (), 1.0, 0.0,
)  # fmt: skip


@asynccontextmanager
async def ordered(tmp_path: Path, answers: Callable[[OrderMessage], Sequence[Message]]) -> AsyncIterator[Execution]:
    network = cast(Network, FakeNetwork(answers))
    wallet = Wallet(tmp_path / "wallet.db", CLIENT)
    request = Request(BUNDLE, MANIFEST, "generate", Work(((1, 2, 3),)), Parameters(40), 40, H)
    with trio.fail_after(20):
        async with execute(
            Desk(network, wallet, Settler(network), CLIENT, lambda: NOW_MS), NODE_SEEN, request
        ) as execution:
            yield execution
    wallet.close()


async def outcome(execution: Execution) -> Code | None:
    async for event in execution.events:
        if isinstance(event, Broken):
            return event.error.code
    return None


@pytest.mark.spec("J-7", "J-8", "J-15")
async def test_each_order_has_secrets_of_its_own_and_the_payers_signature(tmp_path: Path) -> None:
    seen: list[tuple[JobOrder, Input]] = []

    def look(message: OrderMessage) -> Sequence[Message]:
        order = verify_untrusted(JobOrder, message.order, signer=bytes(CLIENT.verify_key))
        seen.append((order.record, decode_input_untrusted(opened(WORKER_SECRET, order.id, message.sealed_input))))
        return [AcceptMessage(b"none")]

    for _ in range(2):
        async with ordered(tmp_path, look) as execution:
            await outcome(execution)
    (one, first), (other, second) = seen
    assert len({first.salt, first.reply_secret, second.salt, second.reply_secret}) == 4
    assert one.nonce != other.nonce
    assert (one.input_digest, other.input_digest) == (first.digest, second.digest)
    assert decode_work_untrusted(first.work) == Work(((1, 2, 3),))


@pytest.mark.spec("J-14")
@pytest.mark.parametrize(
    ("code", "key", "changes"),
    [
        (Code.BAD_SIGNATURE, STRANGER, {}),
        (Code.BAD_RECORD, NODE, {"order": H}),
        (Code.BAD_MANDATE, NODE, {"mandate": H}),
    ],
)
async def test_an_accept_is_the_executors_for_this_order_under_the_mandate_it_showed(
    tmp_path: Path, code: Code, key: SigningKey, changes: dict[str, bytes]
) -> None:
    def accept(message: OrderMessage) -> Sequence[Message]:
        record = replace(Accept(blake3(message.order).digest(), MANDATE.id, NOW_MS, "class"), **changes)
        return [AcceptMessage(sign(record, key).envelope)]

    async with ordered(tmp_path, accept) as execution:
        assert await outcome(execution) is code


@pytest.mark.spec("J-18")
async def test_a_chunk_that_does_not_open_ends_the_job(tmp_path: Path) -> None:
    def answer(message: OrderMessage) -> Sequence[Message]:
        order_id = blake3(message.order).digest()
        asked = decode_input_untrusted(opened(WORKER_SECRET, order_id, message.sealed_input))
        sealed = PieceSealer(asked.reply_secret, order_id).seal(1, Piece(tokens=(1,), values_micro=(-1,)).encode())
        accept = sign(Accept(order_id, MANDATE.id, NOW_MS, "class"), NODE)
        return [AcceptMessage(accept.envelope), ChunkMessage(0, sealed)]

    async with ordered(tmp_path, answer) as execution:
        assert await outcome(execution) is Code.BAD_ENCODING

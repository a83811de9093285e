"""A client and a node that are real in all that deals with money: only the wire between them is a socket of this machine,
and only what is computed is a script."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nacl.signing import SigningKey

from fallow.client.desk import Desk
from fallow.client.nodes import Node
from fallow.client.ordering import Request
from fallow.client.settling import Settler
from fallow.client.wallet import Wallet
from fallow.node.accounts import Accounts
from fallow.node.availability import Availability
from fallow.node.engine.engine import Engine
from fallow.node.engine.messages import LENGTH, EngineJob, EnginePiece
from fallow.node.engine.sealing import PieceSealer, open_input
from fallow.node.journal import Journal
from fallow.node.log import EventLog, wall_ms
from fallow.node.network.seam import Handler, Network
from fallow.node.profiles import Offer
from fallow.node.serving import Executor
from fallow.node.settling import Settling
from fallow.protocol.bundle import File, Manifest, Program, Tolerance
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, FallowError, NetworkError
from fallow.protocol.identity import Mandate, WorkerKey
from fallow.protocol.limits import HOLD_MS_MAX
from fallow.protocol.prices import Price
from fallow.protocol.profiles import CapabilityProfile, ConnectivityProfile, ServedBundle
from fallow.protocol.streams import GROUND_PROTOCOL, JOB_PROTOCOL, VOUCHER_PROTOCOL
from fallow.protocol.work import (
    Parameters,
    Piece,
    Work,
    decode_input_untrusted,
    decode_work_untrusted,
    transcript_next,
    transcript_start,
)

NODE, OWNER, CLIENT = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
NODE_KEY, OWNER_KEY, CLIENT_KEY = (bytes(key.verify_key) for key in (NODE, OWNER, CLIENT))
WORKER = X25519PrivateKey.from_private_bytes(b"\x04" * 32)
BUNDLE, H = b"\x09" * 32, b"\x07" * 32
FILE = File(1, (H,))
MANIFEST = Manifest(
    "scripted", "none", "-", "-", ("generate",), FILE, (), (), (), (), (Program("p", "decode", 1, 1, 8, FILE, 0, 0),),
    FILE, None, 4096, (), Tolerance(1, 1, 1, 0, 0, (), "-"),
)  # fmt: skip
PRICE = Price(BUNDLE, "generate", 0, 1, 4, 0)
JUDGES = tuple(sorted(bytes(SigningKey(bytes([number]) * 32).verify_key) for number in (11, 12, 13)))
HOLDS: dict[str, Any] = {"held_ppm_max": 500_000, "hold_ms_max": HOLD_MS_MAX, "arbiters": JUDGES}
SERVED = ServedBundle(BUNDLE, ("generate",), "class", 1_000, 1_000, 0)
_BYE = 2**32 - 1
"""A length that no frame has: the other side has ended the stream in good order."""


@dataclass
class Wire:
    """Frames over a byte stream, between two who know each other."""

    peer: bytes
    stream: trio.abc.Stream
    broken: Callable[[], None] = lambda: None
    """Called when the other side is gone without a word."""

    async def send(self, frame: bytes) -> None:
        try:
            await self.stream.send_all(struct.pack(">I", len(frame)) + frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._gone() from None

    async def receive(self) -> bytes:
        (length,) = struct.unpack(">I", await self._exactly(4))
        if length == _BYE:
            raise NetworkError(Code.STREAM_CLOSED, "The other side has ended the stream.")
        return await self._exactly(length)

    async def close(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.send_all(struct.pack(">I", _BYE))

    async def reset(self) -> None:
        await self.stream.aclose()

    async def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            try:
                more = await self.stream.receive_some(count - len(got))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise self._gone() from None
            if not more:
                raise self._gone()
            got += more
        return got

    def _gone(self) -> NetworkError:
        self.broken()
        return NetworkError(Code.STREAM_CLOSED, "The other side is gone.")


@dataclass
class Line:
    """The client's network: one node, dialled as `dial` does."""

    dial: Callable[[], Awaitable[trio.abc.Stream]]
    up: bool = False

    def peers(self) -> list[bytes]:
        return [NODE_KEY] if self.up else []

    def drop(self, peer: bytes) -> bool:
        return False

    async def open(self, peer: bytes, protocol: str, addresses: Sequence[str] = (), *, watched: bool = False) -> Wire:
        assert peer == NODE_KEY
        try:
            stream = await self.dial()
        except OSError:
            self.up = False
            raise NetworkError(Code.PEER_UNREACHABLE, "Nobody is there.") from None
        self.up = True
        wire = Wire(peer, stream, self._down)
        await wire.send(protocol.encode())
        return wire

    async def request(self, peer: bytes, protocol: str, frame: bytes, addresses: Sequence[str] = ()) -> bytes:
        wire = await self.open(peer, protocol)
        try:
            await wire.send(frame)
            return await wire.receive()
        finally:
            await wire.reset()

    async def get(self, key: str) -> bytes | None:
        """Nobody publishes anything."""
        await trio.lowlevel.checkpoint()
        return None

    def _down(self) -> None:
        self.up = False


class Script:
    """An engine that computes nothing: token 5, as often as it was asked for; of what it is to check, it likes every token."""

    free_slots = 4

    def __init__(self) -> None:
        self.pace: Callable[[int], Awaitable[None]] = _at_once
        """Awaited before each piece, with its index."""
        self.value = -7
        """What it finds of each token, whether it writes or checks."""

    def submit(self, job: EngineJob) -> Any:
        return Scripted(job, self)

    def cancel(self, job: bytes) -> None:
        pass


class Scripted:
    """One job's pieces."""

    def __init__(self, job: EngineJob, script: Script) -> None:
        asked = decode_input_untrusted(open_input(WORKER, job.id, job.sealed))
        self._job, self._script, self._index = job, script, 0
        self._claimed = decode_work_untrusted(asked.work).claimed
        self._sealer = PieceSealer(asked.reply_secret, job.id)
        self._transcript = transcript_start(asked.salt, job.id)

    def __aiter__(self) -> Scripted:
        return self

    async def __anext__(self) -> EnginePiece:
        index, count = self._index, 1 if self._claimed else self._job.parameters.max_tokens
        if index == count:
            raise StopAsyncIteration
        self._index += 1
        await self._script.pace(index)
        values = (self._script.value,) * (self._claimed or 1)
        liked = (0,) * self._claimed
        written = () if self._claimed else (5,)
        encoded = Piece(tokens=written, values_micro=values, gaps_micro=liked, masses_ppm=liked).encode()
        self._transcript = transcript_next(self._transcript, encoded)
        sealed, end = self._sealer.seal(index, encoded), LENGTH if index == count - 1 else ""
        return EnginePiece(
            self._job.id, index, sealed, len(values), values, self._transcript, end, gaps_micro=liked, masses_ppm=liked
        )


async def _at_once(index: int) -> None:
    await trio.lowlevel.checkpoint()


@dataclass
class House:
    """The node: its journal is in `state`."""

    state: Path
    engine: Script = field(default_factory=Script)
    holds: bool = False
    """Half of its pay may be held, with three judges to forfeit it."""
    key: SigningKey = NODE
    owner: bytes = OWNER_KEY
    offer: Offer | None = None
    """What it serves, if it is not as `SEEN` says."""
    mandate: Signed[Mandate] | None = None

    def __post_init__(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.state)
        self.accounts = Accounts(self.journal, wall_ms)
        self.availability = Availability(jobs_max=4)
        self.availability.start()
        self.availability.worker(ready=True)
        mandate = self.mandate or MANDATE
        self.executor = Executor(
            self.key, self.owner, self.accounts, cast(Engine, self.engine), self.availability, lambda: mandate.id,
            EventLog(self.state),
        )  # fmt: skip
        offer = self.offer or Offer(NODE_KEY, {BUNDLE: MANIFEST}, (SERVED,), (PRICE,), WORKER_KEY)
        self.executor.offer = replace(offer, **HOLDS) if self.holds else offer
        settling = Settling(bytes(self.key.verify_key), self.owner, self.accounts)
        self.handlers: dict[str, Handler] = {
            JOB_PROTOCOL: self.executor.serve, VOUCHER_PROTOCOL: settling.answer, GROUND_PROTOCOL: settling.answer_grounds,
        }  # fmt: skip

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One stream of the client's, to its end."""
        wire = Wire(CLIENT_KEY, stream)
        async with stream:
            try:
                await self.handlers[(await wire.receive()).decode()](wire)
                await wire.close()
            except* FallowError:
                pass


NOW_MS = wall_ms()
MANDATE = sign(Mandate(NODE_KEY, OWNER_KEY, ("executor",), 1, NOW_MS, NOW_MS + 3_600_000, None), OWNER)
WORKER_KEY = sign(WorkerKey(NODE_KEY, WORKER.public_key().public_bytes_raw(), NOW_MS, NOW_MS + 3_600_000), NODE)
SEEN = Node(
    NODE_KEY, MANDATE,
    CapabilityProfile(
        NODE_KEY, MANDATE.id, 1, NOW_MS, NOW_MS + 1000, None, "", ("executor",), (), (SERVED,), (PRICE,), 4, 0, 0, (),
    ),
    ConnectivityProfile(NODE_KEY, 1, NOW_MS, NOW_MS + 1000, (), (), None, 0, None, None, None, None, None, None),
    WORKER_KEY, "ready", (), 0, (), 1.0, 0.0,
)  # fmt: skip


HOLDING = replace(SEEN, capability=replace(SEEN.capability, **HOLDS))
"""The same node, where its house holds."""


def desk_of(wallet: Wallet, line: Line) -> Desk:
    network = cast(Network, line)
    return Desk(network, wallet, Settler(network, wallet.confirmed), CLIENT, wall_ms, judges=frozenset(JUDGES))


def request_of(tokens: int) -> Request:
    return Request(BUNDLE, MANIFEST, "generate", Work(((1, 2, 3),)), Parameters(max_tokens=tokens), tokens, H)

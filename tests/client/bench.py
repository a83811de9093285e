"""Work of a node that its client's verdict refutes, and the judges who were drawn for it, each at the end of a wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import trio

from fallow.client.answers import Proof
from fallow.client.desk import Desk
from fallow.client.wallet_cases import Case
from fallow.node.network.seam import Network
from fallow.protocol.checks import Verdict
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, NetworkError
from fallow.protocol.identity import peer_id
from fallow.protocol.messages.assurance import VerdictReply
from fallow.protocol.messages.codec import encode_message
from fallow.protocol.messages.refusals import RefuseMessage
from fallow.protocol.policy import draw
from fallow.verifier.case import gather
from fallow.verifier.verdict import judge

from ..verifier.jobs import CLIENT, Job
from ..verifier.test_grounds import JUDGES, verifier_of
from .test_lapsed import Away, Wire, lie


@dataclass
class Seat:
    """The stream to a judge."""

    reply: bytes

    async def send(self, frame: bytes) -> None:
        pass

    async def receive(self) -> bytes:
        return self.reply

    async def reset(self) -> None:
        pass


@dataclass
class Bench(Wire):
    """The way to the node, and to its judges."""

    replies: dict[bytes, bytes] = field(default_factory=dict)
    asked: int = 0
    silent: bool = False
    """Nobody ever answers."""
    opened: trio.Event = field(default_factory=trio.Event)
    _over: trio.Event = field(default_factory=trio.Event)

    def go_on(self) -> None:
        """Whoever waits for a judge learns that it is away."""
        self._over.set()
        self._over = trio.Event()

    async def open(self, peer: bytes, protocol: str, addresses: Sequence[str] = ()) -> Seat:
        self.asked += 1
        self.opened.set()
        if self.silent:
            await self._over.wait()
        if peer not in self.replies:
            raise NetworkError(Code.PEER_UNREACHABLE, "it is away")
        return Seat(self.replies[peer])


@dataclass
class Lied:
    """What there is to settle."""

    job: Job
    desk: Desk
    bench: Bench
    verdict: Signed[Verdict]
    case: Case
    held_ucr: int
    addresses: Mapping[bytes, str]
    """Of the judges drawn, by owner."""
    verdicts: Sequence[tuple[bytes, bytes]]
    """Of each judge, its key and what it answers: it comes to what the client has come to."""

    def sit(self, count: int = 3) -> None:
        """So many of the judges are there."""
        self.bench.replies = dict(self.verdicts[:count])

    def refuse(self, code: Code) -> None:
        """All of them are there, and will not."""
        message = encode_message(RefuseMessage(code.value, "no", 0))
        self.bench.replies = {key: message for key, _ in self.verdicts}

    def waiting(self) -> list[tuple[int, int]]:
        """Of the cases on disk, how often each was tried and when it is tried again."""
        rows = self.desk.wallet._database.execute("SELECT tries, next_ms FROM cases ORDER BY rowid")
        return rows.fetchall()

    async def keep(self) -> bool:
        """The verdict and its case are on disk."""
        return await self.desk.wallet.keep_verdict(self.verdict, self.case, self.desk.now_ms())


async def lied(at: Away) -> Lied:
    """Two checkers come to something else than the node; all of its pay is held. No judge is there yet."""
    at.wire.state = "whole"
    job, writer, receipt = lie(at.channel)
    held_ucr = await at.works(writer, receipt)
    found = judge(gather(job.question, job.records, job.openings))
    bench, addresses, verdicts = Bench(at.wire.services, "whole"), dict[bytes, str](), list[tuple[bytes, bytes]]()
    for owner in draw(job.nonce, receipt.id, JUDGES, (), 3):
        key, mandate = verifier_of(owner)
        seat = bytes(key.verify_key)
        addresses[owner] = f"/judge/{peer_id(seat)}"
        verdicts.append((seat, encode_message(VerdictReply(sign(found, key).envelope, mandate.envelope))))
    desk = replace(at.desk, network=cast(Network, bench))
    proof = Proof(tuple(job.records), tuple(job.openings)).file(openings=True)
    signed = sign(found, CLIENT)
    case = Case(signed.id, signed.envelope, proof, at.channel.channel.id)
    return Lied(job, desk, bench, signed, case, held_ucr, addresses, verdicts)

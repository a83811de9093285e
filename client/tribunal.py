"""A verifier's service, `/fallow/dispute/1`: either side of an order brings its claim or its answer, and is told the decision.

The accused is asked where the claimant says it was; a payer, which nobody may be able to dial, asks by itself what there is to
answer. Nothing of a request is believed: see `arbiter`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import trio
from nacl.signing import SigningKey

from ..node.engine.engine import Engine
from ..node.engine.sealing import seal_input
from ..node.machine import beside
from ..node.network.seam import Network, Stream
from ..protocol.disputes import (
    Decision,
    Dispute,
    Kind,
    Plea,
    check_dispute,
    judges,
    matter_id,
    reference_of,
    share_ucr,
)
from ..protocol.envelope import Signed, claimed_signer_untrusted, sign, verify_untrusted
from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.identity import Mandate, content_hash
from ..protocol.limits import TEXT_BYTES_MAX
from ..protocol.messages import (
    DISPUTE_PROTOCOL,
    DecisionReply,
    DisputeRequest,
    DisputesReply,
    DisputesRequest,
    Message,
    PleaReply,
    RefuseMessage,
    decode_message_untrusted,
    encode_message,
)
from ..verifier.disputes import Matter, Shown, decide, matter_of, run_wanted
from ..verifier.rerun import disowned
from .arbiter import AT_ONCE, REQUEST_S, RETRY_MS, WAIT_S, open_proof_untrusted
from .discovery import published_addresses
from .docket import Docket, Entry
from .rerunning import Seal, rerun

T = TypeVar("T")

ANSWER_MS: Final = 24 * 3600 * 1000
"""Least time to answer, unless the verifier's owner says otherwise: a laptop that was shut for a night."""
ASK_S: Final = 5.0
"""For the accused's word at one place, while the claimant waits."""


class Till(Protocol):
    """Who owes this judge its part of a fee, and what has been paid: `node.accounts.Accounts`."""

    async def fees_open_ucr(self, party: bytes) -> int: ...
    async def settled_ucr(self, party: bytes) -> int: ...
    async def book(self, matter: bytes, dues: Mapping[bytes, int]) -> None: ...


@dataclass
class Tribunal:
    """One owner's judge."""

    key: SigningKey
    mandate: Signed[Mandate]
    engine: Engine
    bundles: frozenset[bytes]
    """That this machine can run."""
    docket: Docket
    network: Network
    now_ms: Callable[[], int]
    accounts: Till
    owe: Callable[[bytes, str, int], Awaitable[None]]
    """Told of what a party owes: for the ledger of mutual debts."""
    answer_ms: int = ANSWER_MS
    fee_ucr: int = 0
    """The least fee, of all judges together, for which it works."""
    seal: Seal = seal_input

    def __post_init__(self) -> None:
        self._turns = trio.CapacityLimiter(AT_ONCE)
        self._desk = trio.CapacityLimiter(1)
        """The docket is for one thread, and 4 MiB of a stranger's are not read between the judge's other streams."""

    async def serve(self, stream: Stream) -> None:
        """One request, and what came of it."""
        with trio.fail_after(REQUEST_S):
            frame = await stream.receive()
        try:
            reply = await self.answer_untrusted(frame)
        except FallowError as error:
            retry_ms = error.retry_after_ms if isinstance(error, Refused) else 0
            reply = RefuseMessage(str(error.code), error.message[: TEXT_BYTES_MAX // 4], retry_ms)
        await stream.send(encode_message(reply))

    async def answer_untrusted(self, frame: bytes) -> Message:
        """The decision, or what there is to answer. Raises `FallowError`: `timed_out` while the accused may still answer, with
        the time that it has; `unpaid` for a claimant that owes a fee here, or offers too small a one."""
        request = decode_message_untrusted(frame)
        if isinstance(request, DisputesRequest):
            accused = request.accused
            return DisputesReply(await self._at_desk(lambda: self.docket.against(accused)))
        if not isinstance(request, DisputeRequest):
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That cannot be asked on this stream.")
        dispute = verify_untrusted(Dispute, request.dispute, signer=claimed_signer_untrusted(request.dispute))
        entry = await self._at_desk(lambda: self.docket.entry(dispute.id))
        if entry is None and request.plea is None:
            if await self.accounts.fees_open_ucr(dispute.signer) > 0:
                raise Refused(Code.UNPAID, "The claimant owes its judge's part of a fee.")
            stranger = not await self.accounts.settled_ucr(dispute.signer)
            now_ms = self.now_ms()  # of this task: a thread has no simulated clock
            entry = await self._at_desk(lambda: self._open(dispute, request.proof, stranger, now_ms))
        if entry is None:
            raise RemoteProtocolError(Code.BAD_RECORD, "The dispute was not brought here.")
        if request.plea is not None and entry.decision is None:
            plea = request.plea
            entry = await self._at_desk(lambda: self._hear(dispute, plea, request.proof))
        if entry.decision is None:
            with trio.move_on_after(WAIT_S) as waiting:
                await self._turns.acquire()
            if waiting.cancelled_caught:
                raise Refused(Code.BUSY, "Other disputes are being looked at.", RETRY_MS)
            try:
                entry = await self._decide(dispute, entry, request.addresses)
            finally:
                self._turns.release()
        assert entry.decision is not None
        await self._charge(dispute, entry.decision)
        return DecisionReply(entry.decision, self.mandate.envelope)

    async def _at_desk(self, work: Callable[[], T]) -> T:
        return await beside(work, self._desk)

    def _open(self, dispute: Signed[Dispute], claimed: bytes, stranger: bool, now_ms: int) -> Entry:
        """The dispute is on the docket: it holds together, and it is for this judge."""
        record = dispute.record
        if content_hash(claimed) != record.shown:
            raise RemoteProtocolError(Code.BAD_RECORD, "What is shown is not what the dispute names.")
        records, openings = open_proof_untrusted(claimed)
        matter = matter_of(dispute, Shown(list(records.values()), openings), None, Shown())
        check_dispute(dispute, matter.order, matter.receipt.record, now_ms)
        if self.mandate.record.owner not in judges(matter.order, matter.channel.record.payout_owner):
            raise RemoteProtocolError(Code.UNSATISFIABLE_ASSURANCE, "This owner was not drawn to judge it.")
        if matter.order.record.bundle not in self.bundles:
            raise RemoteProtocolError(Code.UNKNOWN_BUNDLE, "This verifier does not run the bundle.")
        if record.answer_ms < self.answer_ms:
            raise Refused(Code.BAD_TERMS, f"The accused is to have {self.answer_ms} ms to answer, and no less.")
        if record.fee_ucr < self.fee_ucr:
            raise Refused(Code.UNPAID, f"This verifier judges for a fee of {self.fee_ucr} ucr or more.")
        return self.docket.open(dispute, claimed, now_ms, stranger=stranger)

    def _hear(self, dispute: Signed[Dispute], envelope: bytes, answered: bytes) -> Entry:
        plea = verify_untrusted(Plea, envelope, signer=dispute.record.accused)
        if plea.record.dispute != dispute.id or content_hash(answered) != plea.record.shown:
            raise RemoteProtocolError(Code.BAD_RECORD, "The plea is of another dispute, or names something else.")
        if answered:
            open_proof_untrusted(answered)
        self.docket.answer(plea, answered)
        entry = self.docket.entry(dispute.id)
        assert entry is not None
        return entry

    async def _decide(self, dispute: Signed[Dispute], entry: Entry, addresses: Sequence[str]) -> Entry:
        """Decided, and on disk. Raises `Refused(timed_out)` while the accused may still answer."""
        if entry.plea is None and dispute.record.kind == Kind.DISOWNED:
            entry = await self._ask(dispute, addresses) or entry
        late = self.now_ms() >= entry.until_ms
        matter = await beside(lambda: _matter(dispute, entry))
        objection = await self._objection(matter) if matter.plea or late or _says_all(dispute) else None
        decision = decide(matter, objection, late=late)
        if decision is None:
            left_ms = entry.until_ms - self.now_ms()
            raise Refused(Code.TIMED_OUT, f"The accused has {left_ms // 1000 + 1} s left to answer.", max(1, left_ms))
        await self._at_desk(lambda: self.docket.decide(sign(decision, self.key)))
        decided = await self._at_desk(lambda: self.docket.entry(dispute.id))
        assert decided is not None
        return decided

    async def _charge(self, dispute: Signed[Dispute], envelope: bytes) -> None:
        """What the claimant owes for the decision that the docket holds is in the books, whichever of several came first, and
        wherever a process before this one ended."""
        decision = verify_untrusted(Decision, envelope, signer=bytes(self.key.verify_key)).record
        if part_ucr := share_ucr(decision.fee_ucr):
            matter = matter_id(dispute.record)
            await self.accounts.book(matter, {dispute.signer: part_ucr})
            await self.owe(dispute.signer, reference_of(matter), part_ucr)

    async def _ask(self, dispute: Signed[Dispute], addresses: Sequence[str]) -> Entry | None:
        """What the accused node said, where the claimant says that it is, or it itself; None if it was not heard."""
        if heard := await self._ask_at(dispute, addresses):
            return heard
        return await self._ask_at(
            dispute, await published_addresses(self.network, dispute.record.accused, self.now_ms())
        )

    async def _ask_at(self, dispute: Signed[Dispute], addresses: Sequence[str]) -> Entry | None:
        request = encode_message(DisputeRequest(dispute.envelope, None, b"", ()))
        try:
            with trio.fail_after(ASK_S):
                frame = await self.network.request(dispute.record.accused, DISPUTE_PROTOCOL, request, addresses)
            reply = decode_message_untrusted(frame)
            if isinstance(reply, PleaReply):
                return await self._at_desk(lambda: self._hear(dispute, reply.plea, b""))
        except (FallowError, trio.TooSlowError):
            pass  # it may still bring its answer by itself
        return None

    async def _objection(self, matter: Matter) -> str | None:
        """Why the answer is not what this machine comes to; empty if it is; None if it is not to be run."""
        run = run_wanted(matter)
        if run is None:
            return None
        piece = await rerun(self.engine, matter.order.record.bundle, run, self.seal)
        return disowned(matter.part, piece, matter.tolerance) or ""


def _says_all(dispute: Signed[Dispute]) -> bool:
    """Whether the accused has no answer to give: what is shown decides."""
    return dispute.record.kind in (Kind.WRONG, Kind.TWO_FACED)


def _matter(dispute: Signed[Dispute], entry: Entry) -> Matter:
    claimed = _shown_untrusted(entry.claimed)
    answered = _shown_untrusted(entry.answered) if entry.answered else Shown()
    plea = verify_untrusted(Plea, entry.plea, signer=dispute.record.accused) if entry.plea else None
    return matter_of(dispute, claimed, plea, answered)


def _shown_untrusted(encoded: bytes) -> Shown:
    records, openings = open_proof_untrusted(encoded)
    return Shown(list(records.values()), openings)

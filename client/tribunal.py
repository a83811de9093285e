"""A verifier's service, `/fallow/dispute/1`: either side of an order brings its claim or its answer, and is told the decision.

The accused is asked where the claimant says it was; a payer, which nobody may be able to dial, asks by itself what there is to
answer. What it answers is told to the claimant, who brings what all judges have heard before any of them decides. Nothing of a
request is believed: see `arbiter`.
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
    Hearing,
    Kind,
    Plea,
    check_dispute,
    judges,
    matter_id,
    plea_untrusted,
    pleas_untrusted,
    reference_of,
    share_ucr,
)
from ..protocol.envelope import Signed, sign, verify_any_signer_untrusted, verify_untrusted
from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.identity import Mandate, content_hash
from ..protocol.messages.assurance import DecisionReply, DisputeRequest, DisputesReply, DisputesRequest, PleaReply
from ..protocol.messages.codec import Message, decode_message_untrusted, encode_message
from ..protocol.messages.refusals import refusal
from ..protocol.streams import DISPUTE_PROTOCOL
from ..verifier.disputes import RULES, Matter, Shown, decide, matter_of, run_wanted
from ..verifier.rerun import disowned
from .addresses import published_addresses
from .arbiter import AT_ONCE, REQUEST_S, RETRY_MS, WAIT_S, open_proof_untrusted
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
            reply = refusal(error)
        await stream.send(encode_message(reply))

    async def answer_untrusted(self, frame: bytes) -> Message:
        """The decision; what was heard of the accused, where an answer is owed and no hearing is brought; or what there is to
        answer. Raises `FallowError`: `timed_out` while the accused may still answer, with the time that it has; `unpaid` for a
        claimant that owes a fee here, or offers too small a one."""
        request = decode_message_untrusted(frame)
        if isinstance(request, DisputesRequest):
            accused = request.accused
            return DisputesReply(await self._at_desk(lambda: self.docket.against(accused)))
        if not isinstance(request, DisputeRequest):
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That cannot be asked on this stream.")
        dispute = verify_any_signer_untrusted(Dispute, request.dispute)
        entry, now_ms = await self._at_desk(lambda: self.docket.entry(dispute.id)), self.now_ms()
        # A thread has no simulated clock: the time is this task's.
        if entry is None and request.plea is None and request.hearing is None:
            if await self.accounts.fees_open_ucr(dispute.signer) > 0:
                raise Refused(Code.UNPAID, "The claimant owes its judge's part of a fee.")
            stranger = not await self.accounts.settled_ucr(dispute.signer)
            entry = await self._at_desk(lambda: self._open(dispute, request.proof, stranger, now_ms))
        if entry is None:
            raise RemoteProtocolError(Code.BAD_RECORD, "The dispute was not brought here.")
        if request.plea is not None and entry.decision is None:
            plea = request.plea
            entry = await self._at_desk(lambda: self._hear(dispute, plea, request.proof, now_ms))
        if entry.decision is None and request.hearing is None and RULES[Kind(dispute.record.kind)].hears:
            return PleaReply((await self._heard(dispute, entry, request.addresses)).plea)
        if entry.decision is None:
            entry = await self._decided(dispute, _elsewhere_untrusted(dispute, request.hearing))
        assert entry.decision is not None
        await self._charge(dispute, entry.decision)
        return DecisionReply(entry.decision, self.mandate.envelope, entry.plea)

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

    def _hear(self, dispute: Signed[Dispute], envelope: bytes, answered: bytes, now_ms: int) -> Entry:
        """The first answer in time is on the docket: who asks has been told of none after it."""
        plea = plea_untrusted(envelope, dispute)
        if content_hash(answered) != plea.record.shown:
            raise RemoteProtocolError(Code.BAD_RECORD, "What is shown is not what the plea names.")
        if answered:
            open_proof_untrusted(answered)
        entry = self._entry(dispute)
        if now_ms < entry.until_ms:
            self.docket.answer(plea, answered)
            entry = self._entry(dispute)
        if entry.plea is None and entry.decision is None:
            raise Refused(Code.EXPIRED, "The time to answer is over.")
        return entry

    def _entry(self, dispute: Signed[Dispute]) -> Entry:
        """Of one that was brought here. Raises `Refused(expired)` if it is kept no longer."""
        if entry := self.docket.entry(dispute.id):
            return entry
        raise Refused(Code.EXPIRED, "The dispute was open for too long: it can be brought again.")

    async def _heard(self, dispute: Signed[Dispute], entry: Entry, addresses: Sequence[str]) -> Entry:
        """The accused has answered, or can no more. Raises `Refused(timed_out)` while it may still answer."""
        late = self.now_ms() >= entry.until_ms
        if entry.plea is None and not late and dispute.record.kind == Kind.DISOWNED:
            entry = await self._ask(dispute, addresses) or entry
        if entry.plea is None and not late:
            raise self._waits(entry)
        if entry.plea is None:
            await self._at_desk(lambda: self.docket.close_hearing(dispute.id))
            entry = await self._at_desk(lambda: self._entry(dispute))
        return entry

    def _waits(self, entry: Entry) -> Refused:
        left_ms = entry.until_ms - self.now_ms()
        return Refused(Code.TIMED_OUT, f"The accused has {left_ms // 1000 + 1} s left to answer.", max(1, left_ms))

    async def _decided(self, dispute: Signed[Dispute], elsewhere: Sequence[Signed[Plea]]) -> Entry:
        """In its turn."""
        with trio.move_on_after(WAIT_S) as waiting:
            await self._turns.acquire()
        if waiting.cancelled_caught:
            raise Refused(Code.BUSY, "Other disputes are being looked at.", RETRY_MS)
        try:
            return await self._decide(dispute, elsewhere)
        finally:
            self._turns.release()

    async def _decide(self, dispute: Signed[Dispute], elsewhere: Sequence[Signed[Plea]] = ()) -> Entry:
        """Decided, and on disk, by what the accused has answered. Raises `Refused(timed_out)` while it may still answer."""
        entry = await self._at_desk(lambda: self._entry(dispute))
        if entry.decision is not None:
            return entry
        late = self.now_ms() >= entry.until_ms
        matter = await beside(lambda: _matter(dispute, entry, elsewhere))
        objection = await self._objection(matter) if matter.plea or late or _says_all(dispute) else None
        decision = decide(matter, objection, late=late)
        if decision is None:
            raise self._waits(entry)
        await self._at_desk(lambda: self.docket.decide(sign(decision, self.key), entry.plea))
        return await self._decide(dispute, elsewhere)  # what stands; or once more, if the one plea came in between

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
        request = encode_message(DisputeRequest(dispute.envelope, None, b"", (), None))
        try:
            with trio.fail_after(ASK_S):
                frame = await self.network.request(dispute.record.accused, DISPUTE_PROTOCOL, request, addresses)
            reply = decode_message_untrusted(frame)
            if isinstance(reply, PleaReply) and (plea := reply.plea):
                now_ms = self.now_ms()
                return await self._at_desk(lambda: self._hear(dispute, plea, b"", now_ms))
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


def _elsewhere_untrusted(dispute: Signed[Dispute], hearing: bytes | None) -> tuple[Signed[Plea], ...]:
    """What the claimant says that the judges have heard: by nobody else's word a matter is decided, and so not too early."""
    if hearing is None:
        return ()
    return pleas_untrusted(verify_untrusted(Hearing, hearing, signer=dispute.signer), dispute)


def _matter(dispute: Signed[Dispute], entry: Entry, elsewhere: Sequence[Signed[Plea]]) -> Matter:
    claimed = _shown_untrusted(entry.claimed)
    answered = _shown_untrusted(entry.answered) if entry.answered else Shown()
    plea = plea_untrusted(entry.plea, dispute) if entry.plea else None
    return matter_of(dispute, claimed, plea, answered, elsewhere)


def _shown_untrusted(encoded: bytes) -> Shown:
    records, openings = open_proof_untrusted(encoded)
    return Shown(list(records.values()), openings)

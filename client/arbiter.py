"""A verifier's service, `/fallow/verdict/1`: verdicts are recomputed, the work is run again, and what holds is signed.

Nothing of a request is believed: records have their signatures, plaintext has to fit the salted digests that were signed, and
the figures have to be what this machine's own engine comes to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio
from nacl.signing import SigningKey

from ..node.engine.engine import Engine
from ..node.engine.sealing import seal_input
from ..node.machine import beside
from ..node.network.seam import Stream
from ..protocol.checks import Standing, Verdict
from ..protocol.envelope import Signed, sign
from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.grounds import committee
from ..protocol.identity import EXECUTOR, Mandate, content_hash
from ..protocol.messages.assurance import VerdictReply, VerdictRequest
from ..protocol.messages.codec import Message, decode_message_untrusted, encode_message
from ..protocol.messages.refusals import refusal
from ..protocol.opening import Opening, decode_opening_untrusted
from ..protocol.policy import Policy
from ..protocol.proofs import decode_proof_untrusted
from ..protocol.records import contradiction, identify_untrusted
from ..verifier.case import Part, Question, gather
from ..verifier.rerun import disowned, run_of
from ..verifier.verdict import recompute, same
from .rerunning import Seal, rerun

REQUEST_S: Final = 30.0
"""For a request to arrive: a frame of 4 MiB over a bad mobile link."""
AT_ONCE: Final = 2
"""Requests that are looked at side by side; another one waits, and is told to come again if it waits too long."""
WAIT_S: Final = 10.0
RETRY_MS: Final = 10_000
KEPT_MAX: Final = 256
"""Signed verdicts, of a kilobyte or two each: who has left before the answer, and asks again, costs no second run."""


@dataclass
class Arbiter:
    """One owner's verifier."""

    key: SigningKey
    mandate: Signed[Mandate]
    engine: Engine
    bundles: frozenset[bytes]
    """That this machine can run."""
    seal: Seal = seal_input

    def __post_init__(self) -> None:
        self._turns = trio.CapacityLimiter(AT_ONCE)
        self._kept: dict[bytes, Signed[Verdict]] = {}
        """By request, the oldest first."""
        self.signed = 0
        self.refused = 0

    async def serve(self, stream: Stream) -> None:
        """One request, and what came of it."""
        with trio.fail_after(REQUEST_S):
            frame = await stream.receive()
        try:
            reply: Message = await self.answer_untrusted(frame)
            self.signed += 1
        except FallowError as error:
            self.refused += 1
            reply = refusal(error)
        await stream.send(encode_message(reply))

    async def answer_untrusted(self, frame: bytes) -> VerdictReply:
        """The verdict, signed. Raises `FallowError` unless it follows from its evidence, and from running that again.

        `unsatisfiable_assurance` if this owner was not drawn to judge it, `unknown_bundle` if it cannot be run here,
        `input_mismatch` if the plaintext is not what was ordered, `rejected` if this machine comes to something else.
        """
        request = decode_message_untrusted(frame)
        if not isinstance(request, VerdictRequest):
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That cannot be asked on this stream.")
        asked = content_hash(frame)
        signed = self._kept[asked] = self._kept.get(asked) or await self._judge(request)
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return VerdictReply(signed.envelope, self.mandate.envelope)

    async def _judge(self, request: VerdictRequest) -> Signed[Verdict]:
        """The verdict, signed, once there is time for it. Raises as `answer_untrusted`."""
        with trio.move_on_after(WAIT_S) as waiting:
            await self._turns.acquire()
        if waiting.cancelled_caught:
            raise Refused(Code.BUSY, "Other verdicts are being looked at.", RETRY_MS)
        try:
            records, openings = await beside(lambda: open_proof_untrusted(request.proof))
            verdict = records.get(request.verdict)
            if verdict is None or not isinstance(verdict.record, Verdict):
                raise RemoteProtocolError(Code.BAD_RECORD, "The verdict is not among the records.")
            await self._check(verdict.record, records, openings)
        finally:
            self._turns.release()
        return sign(verdict.record, self.key)

    async def _check(self, verdict: Verdict, records: dict[bytes, Signed[Any]], openings: Sequence[Opening]) -> None:
        if verdict.bundle not in self.bundles:
            raise RemoteProtocolError(Code.UNKNOWN_BUNDLE, "This verifier does not run the bundle.")
        found = await beside(lambda: recompute(verdict, records.values(), openings))
        if not same(found, verdict):
            raise RemoteProtocolError(Code.REJECTED, "The evidence supports another verdict.")
        policy, subject = Policy.parse(verdict.policy), records[verdict.subject]
        question = Question(
            subject.signer, verdict.bundle, policy, verdict.commitment_nonce, frozenset(verdict.anchors)
        )
        case = gather(question, records.values(), openings)
        refuted = {f.node for f in verdict.findings if (f.role, f.standing) == (EXECUTOR, Standing.REFUTED)}
        judged = [part for part in case.parts if part.member.node in refuted and part.order.record.checks is None]
        if not judged:
            raise RemoteProtocolError(Code.BAD_RECORD, "The verdict refutes no executor: there is nothing to settle.")
        for part in judged:
            self._check_drawn(verdict, part)
            run = run_of(part)
            if run is None:
                raise RemoteProtocolError(
                    Code.INPUT_MISMATCH, "What was ordered and answered is not opened, or not that."
                )
            piece = await rerun(self.engine, verdict.bundle, run, self.seal)
            if disowned(part, piece, case.tolerance) is None:
                message = (
                    "Run again here, the executor's figures are what the model gives: the accusation does not hold."
                )
                raise RemoteProtocolError(Code.REJECTED, message)

    def _check_drawn(self, verdict: Verdict, part: Part) -> None:
        owner = part.member.owner or part.member.node
        if not any(
            self.mandate.record.owner in committee(verdict, part.order, receipt.id, owner) for receipt in part.receipts
        ):
            raise RemoteProtocolError(Code.UNSATISFIABLE_ASSURANCE, "This owner was not drawn to judge any of it.")


def open_proof_untrusted(encoded: bytes) -> tuple[dict[bytes, Signed[Any]], list[Opening]]:
    """The signed records of a proof by their ids, and its openings. Raises `RemoteProtocolError` for what cannot be."""
    proof = decode_proof_untrusted(encoded)
    signed = [identify_untrusted(envelope) for envelope in proof.records]
    known: dict[bytes, Signed[Any]] = {one.id: one for one in signed}
    for one in signed:
        if why := contradiction(one, known):
            raise RemoteProtocolError(Code.BAD_RECORD, f"The records contradict one another: {why}.")
    return known, [decode_opening_untrusted(each) for each in proof.openings]

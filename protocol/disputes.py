"""Disputes between the two sides of one order: the claim, the answer to it, and what each judge decides.

    claimant                        judges (three drawn, two are enough)                 accused
       |-- dispute, what it shows --------->|-- is asked, or looks by itself ------------->|
       |<------------------------ plea -----|<------------------ plea, what it shows ------|
       |-- hearing: the pleas of all ------>|                                              |
       |<------ decision, counter-signed ---|                                              |

Who judges follows from the order alone, so nobody can choose once it knows what there is to hide. What
the judges hold against the plaintext is signed: a side that shows something has signed the hash of it. So is what it answers:
the claimant carries each judge's plea to the others, and who has signed two that differ has lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from .codec import encode
from .envelope import Signed, verify_any_signer_untrusted, verify_untrusted
from .errors import Code, RemoteProtocolError
from .grounds import DRAWN, ENOUGH, could_judge, was_verifier
from .identity import Mandate, content_hash
from .limits import HOLD_MS_MAX, PLEA_BYTES_MAX, SKEW_MS
from .messages.assurance import DecidedRequest
from .orders import JobOrder
from .payment import Channel
from .policy import draw
from .prices import Ucr
from .receipts import Receipt
from .schema import Between, Hash, Key, Size, Text, Uint, Word, to_map

ANSWER_MS_MIN: Final = 1_000
"""What a record may say. Judges take nothing below their own least, a day unless their owner says otherwise."""


class Kind(StrEnum):
    """What one side says of the other."""

    WRONG = "wrong"
    """The payee's answer is not what the model gives."""
    TWO_FACED = "two-faced"
    """The payee, a checker, has signed two findings about the same work that contradict each other."""
    DISOWNED = "disowned"
    """The payee does not stand by its receipt."""
    UNPAID = "unpaid"
    """The payer does not pay for a result that is good."""
    MISMATCHED = "mismatched"
    """The payer opens another input than it has ordered."""
    UNOPENED = "unopened"
    """The payer does not open how the work was to be checked."""


BY_PAYER: Final = frozenset({Kind.WRONG, Kind.TWO_FACED, Kind.DISOWNED})
"""Claims of the payer against the payee; the others are the payee's against the payer."""


@dataclass(frozen=True, slots=True)
class Dispute:
    """One side of an order says that the other has not kept to it, and lets those judge whom both have agreed to."""

    RECORD: ClassVar[str] = "dispute"

    kind: Word
    """`wrong`, `two-faced`, `disowned`, `unpaid`, `mismatched` or `unopened`."""
    accused: Key
    """The order's signer, or its executor; the other one signs this."""
    order: Hash
    """The order, which names the candidates."""
    receipt: Hash
    """The executor's receipt under it, up to which its answer is judged."""
    fee_ucr: Ucr
    """For three judges, a third each: at most what the receipt says. The loser bears it."""
    answer_ms: Annotated[int, Between(ANSWER_MS_MIN, HOLD_MS_MAX)]
    """For so long after a judge has got this, the accused may answer."""
    opened_ms: Uint
    """When it was signed, in milliseconds since 1970."""
    shown: Hash
    """Hash of what the claimant shows: an encoded `ProofFile`."""

    def __post_init__(self) -> None:
        if self.kind not in Kind.__members__.values():
            raise ValueError(f"no dispute is about {self.kind!r}")
        if self.fee_ucr % DRAWN:
            raise ValueError("a fee is three equal parts")


@dataclass(frozen=True, slots=True)
class Plea:
    """The accused answers."""

    RECORD: ClassVar[str] = "plea"

    dispute: Hash
    """Id of the dispute."""
    says: Word
    """`owns` or `denies` the receipt; `answers`, where that is not the question."""
    shown: Hash
    """Hash of what the accused shows: an encoded `ProofFile`, or of nothing."""
    commitment_nonce: Hash | None
    """With the policy, opens the order's `check_commitment`: of a payer."""
    policy: Word | None

    def __post_init__(self) -> None:
        if self.says not in (OWNS, DENIES, ANSWERS):
            raise ValueError(f"nobody pleads {self.says!r}")


@dataclass(frozen=True, slots=True)
class Hearing:
    """The claimant has heard from the judges what the accused answers, shows all of it to each, and asks for the decision."""

    RECORD: ClassVar[str] = "hearing"

    dispute: Hash
    """Id of the dispute."""
    pleas: Annotated[tuple[Annotated[bytes, Size(1, PLEA_BYTES_MAX)], ...], Size(0, DRAWN)]
    """Each a `plea`, as a judge has it; none where nobody has heard one in time."""


OWNS, DENIES, ANSWERS = "owns", "denies", "answers"
UPHELD, DISMISSED = "upheld", "dismissed"


@dataclass(frozen=True, slots=True)
class Decision:
    """A judge says: the claim holds or does not, who is due what, and who bears the fee."""

    RECORD: ClassVar[str] = "decision"

    dispute: Hash
    """Id of the dispute."""
    outcome: Word
    """`upheld` or `dismissed`."""
    loser: Key
    """The accused if it is upheld, else the claimant: bears the fee."""
    due_ucr: Ucr
    """What the order's receipts, up to the disputed one, add to what is owed for good: nothing may forfeit it."""
    withheld_ucr: Ucr
    """What they claim and is not owed: of what is held, as much may be forfeited. Either this or what is due is 0."""
    fee_ucr: Ucr
    """As in the dispute; 0 where neither side can be shown to be wrong."""
    reason: Text
    """For a person."""

    def __post_init__(self) -> None:
        if self.outcome not in (UPHELD, DISMISSED):
            raise ValueError(f"no decision comes out {self.outcome!r}")
        if self.due_ucr and self.withheld_ucr:
            raise ValueError("the same receipts are both due and withheld")


def judges(order: Signed[JobOrder], payout_owner: bytes) -> frozenset[bytes]:
    """Owners who are to judge. Raises `Refused(unsatisfiable_assurance)` if too few were agreed on.

    By the order alone: of what comes after it, an executor could try many until it likes the draw. The payer has its part in
    choosing anyhow, as it names the candidates; each of them is one whom the payee has agreed to.
    """
    parties = {order.signer, order.record.executor, payout_owner}
    return frozenset(draw(order.record.check_commitment, order.id, order.record.candidates, parties, DRAWN))


def check_dispute(dispute: Signed[Dispute], order: Signed[JobOrder], receipt: Receipt, now_ms: int) -> None:
    """Raises `RemoteProtocolError` unless it is one side's claim against the other, in time, for a fee in proportion."""
    record, sides = dispute.record, (order.signer, order.record.executor)
    payer, payee = sides
    wanted = (payer, payee) if record.kind in BY_PAYER else (payee, payer)
    if order.id != record.order or (dispute.signer, record.accused) != wanted:
        raise RemoteProtocolError(Code.BAD_RECORD, "The dispute is not between the two sides of its order.")
    if record.fee_ucr > receipt.amount_ucr:
        raise RemoteProtocolError(Code.BAD_RECORD, "The fee is larger than what the receipt says.")
    if order.record.created_ms < now_ms - HOLD_MS_MAX - SKEW_MS:
        raise RemoteProtocolError(Code.EXPIRED, "The order is too old: nobody has to keep what would answer for it.")
    if not order.record.created_ms - SKEW_MS <= record.opened_ms <= now_ms + SKEW_MS:
        raise RemoteProtocolError(Code.EXPIRED, "The dispute was opened before its order, or in time to come.")


def pleas_untrusted(hearing: Signed[Hearing], dispute: Signed[Dispute]) -> tuple[Signed[Plea], ...]:
    """What the accused has told whichever judge. Raises `RemoteProtocolError` if the hearing is of another dispute, or any of
    it is not the accused's answer to this one."""
    if hearing.record.dispute != dispute.id:
        raise RemoteProtocolError(Code.BAD_RECORD, "The hearing is of another dispute.")
    return tuple(plea_untrusted(envelope, dispute) for envelope in hearing.record.pleas)


def plea_untrusted(envelope: bytes, dispute: Signed[Dispute]) -> Signed[Plea]:
    """The accused's answer to this dispute, which a hearing has room for. Raises `RemoteProtocolError` for anything else."""
    plea = verify_untrusted(Plea, envelope, signer=dispute.record.accused, bytes_max=PLEA_BYTES_MAX)
    if plea.record.dispute != dispute.id:
        raise RemoteProtocolError(Code.BAD_RECORD, "The plea is of another dispute.")
    return plea


def contradict(pleas: Iterable[Signed[Plea]]) -> bool:
    """Whether two of them say something else: to one dispute there is one answer."""
    return len({plea.record for plea in pleas}) > 1


def matter_id(dispute: Dispute) -> bytes:
    """By which both sides and every judge know what it is about: an order is taken before judges once for each kind."""
    return content_hash(dispute.order + dispute.kind.encode())


def reference_of(matter: bytes) -> str:
    """By which a fee is known in ledgers and in payments."""
    return f"decision {matter.hex()}"


def share_ucr(fee_ucr: int) -> int:
    """One judge's part, which the claimant owes it once it has decided."""
    return fee_ucr // DRAWN


def decision_id(decision: Decision) -> bytes:
    """By which both sides know it, whoever's signatures they have: reasons are worded as each likes."""
    return content_hash(encode(to_map(replace(decision, reason=""))))


@dataclass(frozen=True, slots=True)
class Decided:
    """What enough judges have decided, with all that it takes to see that they were to judge."""

    channel: Signed[Channel]
    order: Signed[JobOrder]
    receipt: Signed[Receipt]
    dispute: Signed[Dispute]
    decisions: Sequence[Signed[Decision]]
    mandates: Sequence[Signed[Mandate]]


def check_decided(decided: Decided, now_ms: int) -> bytes:
    """The decision's id. Raises `FallowError` unless it binds both sides of the channel; the signatures are checked."""
    channel, order, dispute = decided.channel.record, decided.order, decided.dispute
    if (order.signer, order.record.channel, order.record.executor) != (
        channel.payer,
        decided.channel.id,
        channel.payee,
    ):
        raise RemoteProtocolError(Code.BAD_RECORD, "The order is not the payer's to this node on this channel.")
    receipt = decided.receipt
    check_dispute(dispute, order, receipt.record, dispute.record.opened_ms)
    if (receipt.id, receipt.signer, receipt.record.order) != (dispute.record.receipt, channel.payee, order.id):
        raise RemoteProtocolError(Code.BAD_RECORD, "The receipt is not the one in dispute.")
    if len({decision_id(signed.record) for signed in decided.decisions}) != 1:
        raise RemoteProtocolError(Code.BAD_RECORD, "Those who signed do not say the same.")
    decision = decided.decisions[0].record
    loser = dispute.record.accused if decision.outcome == UPHELD else dispute.signer
    sums = {decision.due_ucr, decision.withheld_ucr}
    follows = (decision.dispute, decision.loser) == (dispute.id, loser)
    if not follows or decision.fee_ucr not in (0, dispute.record.fee_ucr) or not sums <= {0, receipt.record.amount_ucr}:
        raise RemoteProtocolError(Code.BAD_RECORD, "The decision does not follow from the dispute.")
    signed_by = _judged(decided, now_ms)
    if len(signed_by) < ENOUGH:
        raise RemoteProtocolError(Code.UNSATISFIABLE_ASSURANCE, f"{len(signed_by)} of the judges drawn have signed it.")
    return decision_id(decision)


def still_counted(decided: Decided, now_ms: int) -> Decided:
    """The same, less those whose mandate lapsed too long ago, if enough are left: one judge's spoils nobody else's word."""
    drawn = judges(decided.order, decided.channel.record.payout_owner)
    held = [
        one for one in decided.mandates if one.record.owner in drawn and _binds(decided, one, one.record.node, now_ms)
    ]
    nodes = {one.record.node for one in held}
    left = tuple(one for one in decided.decisions if one.signer in nodes)
    return replace(decided, decisions=left, mandates=tuple(held)) if len(left) >= ENOUGH else decided


def reimbursed_ucr(dispute: Dispute, decision: Decision) -> int:
    """What the accused owes the claimant, who owes the judges their fee: all of it, if the accused has lost."""
    return decision.fee_ucr if decision.loser == dispute.accused else 0


def forfeited_ucr_max(dispute: Dispute, decision: Decision) -> int:
    """What the payer may take off what it holds of the payee's pay: what is not owed, and its fee if it was right."""
    return decision.withheld_ucr + (reimbursed_ucr(dispute, decision) if dispute.kind in BY_PAYER else 0)


def due_of(decided: Decided, side: bytes, taken_ucr: int) -> int:
    """What the other side of the dispute owes this one, or, less than nothing, is owed by it.

    `taken_ucr`: what the payer takes off what it holds; first what is not owed, then its fee.
    """
    dispute, decision = decided.dispute.record, decided.decisions[0].record
    open_ucr = reimbursed_ucr(dispute, decision) - max(0, taken_ucr - decision.withheld_ucr)
    return -open_ucr if side == dispute.accused else open_ucr


def dues_of(decided: Decided, side: bytes, taken_ucr: int, now_ms: int | None) -> dict[bytes, int]:
    """What each party, the judges too, owes this side of the dispute, or, less than nothing, is owed by it.

    `now_ms` is None where it was looked at before by whose mandates the judges are that: what has lapsed since is owed as well.
    Raises `RemoteProtocolError(bad_record)` if anybody else has signed.
    """
    claimant, accused = decided.dispute.signer, decided.dispute.record.accused
    due_ucr = due_of(decided, side, taken_ucr)
    if side == accused:
        return {claimant: due_ucr}
    part_ucr = -share_ucr(decided.decisions[0].record.fee_ucr)
    return {accused: due_ucr, **dict.fromkeys(_judged(decided, now_ms).values(), part_ucr)}


def _judged(decided: Decided, now_ms: int | None) -> dict[bytes, bytes]:
    """Whose verifiers, of the judges drawn, have signed: a key for each owner, an owner for each key.

    Raises `RemoteProtocolError(bad_record)` if anybody else has signed, too: each signature is a debt to its signer.
    """
    drawn = judges(decided.order, decided.channel.record.payout_owner)
    found: dict[bytes, bytes] = {}
    for signed in decided.decisions:
        owner = next(
            (
                mandate.record.owner
                for mandate in decided.mandates
                if mandate.record.owner in drawn - found.keys() and _binds(decided, mandate, signed.signer, now_ms)
            ),
            None,
        )
        if owner is None or signed.signer in found.values():
            raise RemoteProtocolError(Code.BAD_RECORD, "Somebody has signed who was not drawn to judge it, or twice.")
        found[owner] = signed.signer
    return found


def _binds(decided: Decided, mandate: Signed[Mandate], node: bytes, now_ms: int | None) -> bool:
    """Whether what the node has signed counts by this mandate; `now_ms` as in `dues_of`."""
    if now_ms is None:
        return was_verifier(mandate, node)
    return could_judge(mandate, node, decided.order.record.created_ms, now_ms)


def read_decided_untrusted(request: DecidedRequest) -> Decided:
    """What the message holds, with its signatures checked and nothing else. Raises `RemoteProtocolError`."""
    channel = verify_any_signer_untrusted(Channel, request.channel)
    return Decided(
        channel,
        verify_untrusted(JobOrder, request.order, signer=channel.record.payer),
        verify_untrusted(Receipt, request.receipt, signer=channel.record.payee),
        verify_any_signer_untrusted(Dispute, request.dispute),
        tuple(verify_any_signer_untrusted(Decision, one) for one in request.decisions),
        tuple(verify_any_signer_untrusted(Mandate, one) for one in request.mandates),
    )

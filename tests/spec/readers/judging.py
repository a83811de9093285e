"""Judgements, verdicts and settlements from their evidence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from nacl.signing import SigningKey

from fallow.protocol.bundle import Tolerance
from fallow.protocol.disputes import Dispute, check_dispute, plea_untrusted
from fallow.protocol.distance import distance
from fallow.protocol.envelope import sign, verify_any_signer_untrusted
from fallow.protocol.errors import RemoteProtocolError
from fallow.protocol.opening import decode_opening_untrusted, open_untrusted
from fallow.protocol.policy import Policy
from fallow.protocol.receipts import Receipt
from fallow.protocol.records import identify_untrusted
from fallow.protocol.schema import from_map_untrusted, to_map
from fallow.protocol.work import Piece
from fallow.verifier.case import Question, gather
from fallow.verifier.compare import rows_of
from fallow.verifier.disputes import Shown, decide, matter_of
from fallow.verifier.quorum import Check, Member, Result, Standings, Window, judge_results, judge_window
from fallow.verifier.settlement import settle
from fallow.verifier.verdict import judge
from tests.spec.readers.records import Fields, signed

T = TypeVar("T")
NOW_MS = 1_790_000_000_000
"""Of the vectors' records."""

_FINAL = sign(Receipt(bytes(32), 0, None, 0, 0, bytes(32), (), "", 0, "final"), SigningKey(bytes(32)))
"""A result counts if there is a final receipt: for the vectors, there is one for each."""


def agreement(**given: Any) -> Fields:
    if "one" in given:
        one, other = (rows_of(from_map_untrusted(Piece, given[name])) for name in ("one", "other"))
        return {"distance_ppm": distance(one, other) if one and other else None}
    policy, tolerance = Policy.parse(given["policy"]), from_map_untrusted(Tolerance, given["tolerance"])
    who = Standings(frozenset(given["parties"]), frozenset(given["anchors"]))
    if "results" in given:
        return _function(given["results"], policy, tolerance, who)
    carried = given.get("carried_values")
    window = Window(
        signed("receipt", given["receipt"]),
        Member(**given["executor"]),
        tuple(map(_check, given["checks"])),
        given["top_p_ppm"],
        None if carried is None else tuple(carried),
    )
    judged = judge_window(window, policy, tolerance, who)
    return {"outcome": str(judged.outcome), "against": sorted(judged.reasons), "carried_good": judged.carried_good}


def _check(check: Fields) -> Check:
    attestation = signed("attestation", check["attestation"]) if "attestation" in check else None
    return Check(Member(check["node"], check["owner"]), check["claimed"], attestation)


def _function(results: list[Fields], policy: Policy, tolerance: Tolerance, who: Standings) -> Fields:
    read = [
        Result(
            Member(result["node"], result["owner"]),
            _FINAL if "piece" in result else None,
            from_map_untrusted(Piece, result["piece"]) if "piece" in result else None,
        )
        for result in results
    ]
    judged = judge_results(read, policy, tolerance, who)
    against = {one.member.node for one, objection in zip(read, judged.objections, strict=True) if objection}
    verdict: Fields = {"outcome": str(judged.outcome), "against": sorted(against)}
    if judged.medoid is None:
        return verdict
    return {**verdict, "use": next(result.member.node for result in read if result.piece is judged.medoid)}


def verdict(client: bytes, bundle: bytes, policy: str, nonce: bytes, **given: Any) -> Fields:
    """Without reasons, which are for people."""
    question = Question(client, bundle, Policy.parse(policy), nonce, frozenset(given["anchors"]))
    records = _read(identify_untrusted, given["records"])
    openings = _read(decode_opening_untrusted, given["openings"])
    fields: Any = to_map(judge(gather(question, records, openings)))
    for finding in fields["findings"]:
        del finding["reason"]
    return {"fields": fields}


def _read(read: Callable[[bytes], T], encoded: list[bytes]) -> list[T]:
    """What is not what it should be is left out."""
    found: list[T] = []
    for one in encoded:
        with suppress(RemoteProtocolError):
            found.append(read(one))
    return found


def dispute(dispute: bytes, claimed: list[bytes], answered: list[bytes], openings: list[bytes], **given: Any) -> Fields:
    """Without reasons, as of the time at which the order was signed."""
    claim = verify_any_signer_untrusted(Dispute, dispute)
    shown = [Shown([identify_untrusted(one) for one in each], _read(decode_opening_untrusted, openings))
             for each in (claimed, answered)]  # fmt: skip
    plea = plea_untrusted(given["plea"], claim) if "plea" in given else None
    elsewhere = [plea_untrusted(one, claim) for one in given.get("elsewhere", ())]
    matter = matter_of(claim, shown[0], plea, shown[1], elsewhere)
    check_dispute(claim, matter.order, matter.receipt.record, NOW_MS)
    decision = decide(matter, given.get("objection"), late=given["late"])
    if decision is None:
        return {"open": True}
    names = ("outcome", "loser", "due_ucr", "withheld_ucr", "fee_ucr")
    return {name: getattr(decision, name) for name in names}


def opening(order: bytes, receipts: list[bytes], opening: bytes) -> Fields:
    ordered = signed("job-order", order)
    read = [signed("receipt", envelope, ordered.record.executor) for envelope in receipts]
    opened = open_untrusted(decode_opening_untrusted(opening), ordered, read)
    return {"work": to_map(opened.work), "pieces": [to_map(piece) for piece in opened.pieces]}


def settlement(verdict: bytes, receipts: list[bytes]) -> Fields:
    settled = settle(signed("verdict", verdict).record, [signed("receipt", envelope) for envelope in receipts])
    credits = [
        {
            "owner": credit.owner,
            "node": credit.node,
            "receipt": credit.receipt,
            "due_ucr": credit.due_ucr,
            "withheld_ucr": credit.withheld_ucr,
        }
        for credit in settled.credits
    ]
    sums = {"due_ucr": settled.due_ucr, "withheld_ucr": settled.withheld_ucr, "fee_ucr": settled.fee_ucr}
    bearer = {} if settled.fee_bearer is None else {"fee_bearer": settled.fee_bearer}
    return {"credits": credits, **sums, **bearer}

"""One kept result, looked at again: others are asked what they come to, and each of them is believed or not by that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..protocol.bundle import GENERATE
from ..protocol.checks import Outcome
from ..protocol.envelope import verify_untrusted
from ..protocol.identity import CHECKER
from ..protocol.limits import MESSAGE_BYTES_MAX, PRICE_MAX_UCR
from ..protocol.policy import Policy, check_commitment
from ..protocol.reading import read_untrusted
from ..protocol.receipts import Receipt
from ..protocol.work import Parameters, decode_piece_untrusted, decode_work_untrusted
from ..verifier.quorum import Judgement, Member, Result
from .bundles import ClientBundle
from .checking import Claim, check_window
from .functions import CheckedCall, check_call
from .history import Kept
from .panel import Panel
from .team import Team


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it."""

    outcome: Outcome
    panel: Panel
    faults: Mapping[bytes, str]
    """Checkers against whom it speaks, by node, and why."""


async def look_again(team: Team, bundle: ClientBundle, kept: Kept) -> Found:
    """It was checked, by orders that belong to the same work as its receipt. Raises `FallowError` where nobody can be asked."""
    subject, policy = kept.subject, Policy.parse(kept.policy)
    receipt = verify_untrusted(Receipt, kept.receipt, signer=subject.node)
    work, member = decode_work_untrusted(kept.work), Member(subject.node, subject.owner)
    commitment = check_commitment(kept.nonce, kept.policy)
    if kept.entry == GENERATE:
        parameters = read_untrusted(Parameters, kept.parameters, bytes_max=MESSAGE_BYTES_MAX)
        claim = Claim(
            bundle.hash, bundle.manifest, parameters, work.sequences[0], work.claimed, receipt, member, "", (), policy,
            kept.nonce, commitment, PRICE_MAX_UCR,
        )  # fmt: skip
        judgement, panel = await check_window(team, claim)
        return Found(judgement.outcome, panel, _faults(judgement, panel))
    own = Result(member, receipt, decode_piece_untrusted(kept.piece))
    checked = CheckedCall(bundle.hash, bundle.manifest, work, policy, kept.nonce, commitment, PRICE_MAX_UCR, "", ())
    found, panel = await check_call(team, checked, own)
    if found.outcome is not Outcome.ACCEPTED:
        return Found(Outcome.INCONCLUSIVE, panel, {})
    outcome = Outcome.REJECTED if found.objections[0] else Outcome.ACCEPTED
    objections = zip(panel.places, found.objections[1:], strict=True)
    return Found(outcome, panel, {place.node.key: why for place, why in objections if why})


async def count(team: Team, bundle: bytes, found: Found) -> list[bytes]:
    """The checkers' own part is in their records; comes to the owners of those who are at fault."""
    doubted = []
    for place in found.panel.places:
        if (why := found.faults.get(place.node.key)) and place.final is not None:
            await team.auditor.failed(place.node.key, place.node.owner, why)
            doubted.append(place.node.owner)
        elif place.believed and place.final is not None:
            team.auditor.passed(place.node, bundle, place.final, CHECKER)
    return doubted


def _faults(judgement: Judgement, panel: Panel) -> dict[bytes, str]:
    nodes = [place.node.key for place in panel.places if place.attestation is not None]
    return {node: why for node in nodes if (why := judgement.fault(node))}

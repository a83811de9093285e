"""Held pay is forfeited: a verdict that refutes an executor is brought before its judges, and what they sign to the node.

A case lies on disk from the moment of its verdict. Judges who cannot be had are asked again, by this process or a later one,
for as long as anything is held.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..node.machine import beside
from ..protocol.channel import ChannelState, Ground
from ..protocol.checks import Finding, Standing, Verdict
from ..protocol.envelope import Signed, verify_untrusted
from ..protocol.grounds import Judged, ground_id
from ..protocol.identity import EXECUTOR, content_hash
from ..protocol.messages.assurance import VerdictRequest
from ..protocol.messages.codec import encode_message
from ..protocol.messages.payment import GroundRequest
from ..protocol.orders import JobOrder
from ..protocol.proofs import decode_proof_untrusted
from ..protocol.records import identify_untrusted
from .countersigning import ask_judges, refuted_by
from .desk import Desk
from .telling import tell
from .wallet_cases import Case
from .wallet_tellings import Telling

FIRST_MS: Final = 60_000
MOST_MS: Final = 6 * 3_600_000
"""Between two tries, if judges could not be had: twice as long each time."""
LAST_MS: Final = 600_000
"""Before the last of what is held falls due, there is another try."""


@dataclass(frozen=True, slots=True)
class Forfeited:
    """What came of one dispute."""

    node: bytes
    ucr: int
    judges: int
    told: bool
    """The node has it on its disk, too; else it is told again."""


async def settle_case(desk: Desk, verifiers: Mapping[bytes, str], case: Case) -> list[Forfeited]:
    """For every executor that the verdict refutes and of whose pay something is held, a committee was asked.

    What enough of its judges sign is forfeited, on disk, and the node was told, or will be. The case is over, or it is on disk
    when it is tried again; that is noted first, for whoever is interrupted. `verifiers` says where each owner's can be asked.
    Raises `StoreError`, and `RemoteProtocolError` if the case cannot be read.
    """
    found, later = [], False
    verdict, records = await beside(lambda: _read(case, desk.wallet.payer))
    disputed = await _disputed(desk, verdict, records)
    if disputed:
        await _note(desk, case, disputed)
    request = encode_message(VerdictRequest(case.id, case.proof))
    for finding, channel in disputed:
        refuted = refuted_by(finding, channel, records)
        judged, again = await ask_judges(desk, verifiers, verdict, request, channel, refuted)
        later |= again
        if judged is not None:
            met = desk.book.get(finding.node)
            found.append(await forfeit(desk, met.addresses if met else (), channel, judged))
    if not later:
        await desk.wallet.end_case(case.id)
        return found
    await _note(desk, case, disputed)  # from now on: judges have taken their time
    if not case.tries:
        message = (
            "verdict %s waits for its judges: too few could be had. They are asked again while any of its pay is held."
        )
        logging.getLogger(__name__).warning(message, case.id.hex()[:8])
    return found


def _read(case: Case, payer: bytes) -> tuple[Verdict, list[Signed[Any]]]:
    verdict = verify_untrusted(Verdict, case.verdict, signer=payer)
    return verdict.record, [identify_untrusted(envelope) for envelope in decode_proof_untrusted(case.proof).records]


async def _disputed(desk: Desk, verdict: Verdict, records: Sequence[Signed[Any]]) -> list[tuple[Finding, ChannelState]]:
    """Findings that refute an executor, each with a channel on which pay for the work is held, and nothing forfeited for it."""
    found = []
    for finding in verdict.findings:
        if (finding.role, finding.standing) != (EXECUTOR, Standing.REFUTED):
            continue
        for id in _channels(finding, records):
            channel = await desk.wallet.state_of(id, desk.now_ms())
            if channel and channel.held_ucr(desk.now_ms()) and _ground(verdict) not in channel.grounds:
                found.append((finding, channel))
    return found


def _channels(finding: Finding, records: Iterable[Signed[Any]]) -> list[bytes]:
    """Those on which the node's work was ordered: by now there may be a new one to it."""
    orders = [signed.record for signed in records if isinstance(signed.record, JobOrder)]
    return sorted({order.channel for order in orders if order.executor == finding.node})


async def _note(desk: Desk, case: Case, disputed: Sequence[tuple[Finding, ChannelState]]) -> None:
    """It was tried once more; when the judges are asked again, and that once more shortly before the last of what is held falls
    due."""
    now_ms = desk.now_ms()
    next_ms = now_ms + min(MOST_MS, FIRST_MS << min(case.tries, 16))
    last_ms = max((part.release_at_ms for _, channel in disputed for part in channel.held(now_ms)), default=0) - LAST_MS
    if now_ms + FIRST_MS <= last_ms:
        next_ms = min(next_ms, last_ms)
    await desk.wallet.note_case(replace(case, tries=case.tries + 1), next_ms)


def _ground(verdict: Verdict) -> Ground:
    return Ground("verdict", ground_id(verdict))


async def forfeit(desk: Desk, where: Sequence[str], channel: ChannelState, judged: Judged) -> Forfeited:
    """What is held on the channel is forfeited, on disk, and the node was told, or will be; it was at these addresses. Raises
    `StoreError`."""
    ground = _ground(judged.verdicts[0].record)
    request = GroundRequest(
        judged.channel.envelope,
        judged.order.envelope,
        judged.receipt.envelope,
        0,
        tuple(signed.envelope for signed in judged.verdicts),
        tuple(mandate.envelope for mandate in judged.mandates),
    )
    most_ucr = channel.held_ucr(desk.now_ms())
    matter = content_hash(ground.id + channel.channel.id)  # one verdict may refute several nodes
    telling = Telling(matter, ground, channel.channel.id, most_ucr, encode_message(request), tuple(where))
    told = await tell(desk, telling)
    return Forfeited(channel.channel.record.payee, told.ucr, len(judged.verdicts), told.arrived)

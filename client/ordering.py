"""What a client orders of a node, and on which terms: the same under every policy."""

from __future__ import annotations

from dataclasses import dataclass

from ..node.machine import chance
from ..protocol.bundle import GENERATE, Manifest
from ..protocol.channel import ChannelState
from ..protocol.limits import CANDIDATES_MAX, HOLD_MS_MAX
from ..protocol.orders import Continuation, JobOrder
from ..protocol.prices import amount_ucr_max, find_price
from ..protocol.work import Parameters, Work
from .desk import Desk
from .nodes import Node

FIRST_CHUNK_MS_MAX = 60_000
"""A long prompt on a slow, shared processor; a node that is gone is noticed by its silence, long before."""
RESULT_MS_MAX = 15_000
"""For a check or a call: a text's executor waits for its voucher meanwhile, and gives up after 20 s."""
GAP_MS_MAX = 15_000
HELD_PPM = 500_000
"""Of each receipt's pay, half is held back where a committee could forfeit it and the node agrees: enough to deter within some
hundred windows, and the owner sees half at once."""
HOLD_MS = HOLD_MS_MAX
"""For a week, if the node agrees: held work can be looked at as long (`client.history`)."""
COMMITTEE_MIN = 3
"""Candidates below whom there is no committee: two of three decide, and a third breaks a tie."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be computed, whoever does it."""

    bundle: bytes
    manifest: Manifest
    entry: str
    work: Work
    parameters: Parameters
    planned_tokens: int
    check_commitment: bytes
    continues: Continuation | None = None
    checks: bytes | None = None
    opens: tuple[bytes, str] | None = None
    """Nonce and policy that open `check_commitment` before judges."""

    @property
    def calls(self) -> int:
        return self.work.calls

    @property
    def bounds_ms(self) -> tuple[int, int]:
        """For the first chunk, and between two."""
        return (FIRST_CHUNK_MS_MAX if self.entry == GENERATE else RESULT_MS_MAX), GAP_MS_MAX


def order_of(desk: Desk, node: Node, request: Request, channel: ChannelState, digest: bytes) -> JobOrder:
    """The order, to be signed: this node's, under the price that it shows, on this channel."""
    price = find_price(node.capability.prices, request.bundle, request.entry)
    first_chunk_ms_max, gap_ms_max = request.bounds_ms
    assert node.worker_key is not None
    # The same under every policy: an executor learns nothing from it. What no committee could forfeit is not held either.
    candidates = tuple(sorted(desk.judges & set(node.capability.arbiters) - {node.key, node.owner}))[:CANDIDATES_MAX]
    holds = len(candidates) >= COMMITTEE_MIN
    return JobOrder(
        bundle=request.bundle,
        entry=request.entry,
        parameters=request.parameters,
        calls=request.calls,
        input_tokens=request.work.input_tokens,
        planned_tokens=request.planned_tokens,
        input_digest=digest,
        executor=node.key,
        worker_key=node.worker_key.id,
        price=price,
        channel=channel.channel.id,
        amount_ucr_max=amount_ucr_max(price, request.calls, request.work.input_tokens, request.planned_tokens),
        created_ms=desk.now_ms(),
        nonce=chance().randbytes(16),
        first_chunk_ms_max=first_chunk_ms_max,
        gap_ms_max=gap_ms_max,
        check_commitment=request.check_commitment,
        held_ppm=min(HELD_PPM, node.capability.held_ppm_max) if holds else 0,
        hold_ms=min(HOLD_MS, node.capability.hold_ms_max) if holds else 0,
        candidates=candidates,
        continues=request.continues,
        checks=request.checks,
    )

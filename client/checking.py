"""Having one window of a text checked: distinct owners teacher-force it, and are paid if the verdict bears them out."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from ..protocol.bundle import SCORE
from ..protocol.checks import Attestation, Outcome
from ..protocol.envelope import Signed
from ..protocol.errors import Code, FallowError, Refused
from ..protocol.identity import CHECKER
from ..protocol.orders import JobOrder
from ..protocol.receipts import FINAL, Receipt
from ..protocol.work import Parameters, Work
from ..verifier.quorum import Judgement, Member, Policy, Window, judge_window
from .bundles import ClientBundle
from .discovery import Node
from .execution import Attested, Broken, Execution, Receipted, Request, execute
from .scheduler import Need
from .team import Team

SECOND_OPINIONS = 2
"""Checkers drawn in addition when the first ones leave it open."""
REPLACEMENTS_MAX = 3
"""For one checker's place, nodes tried before it counts as given no finding."""
FIND_CHECKER_S = 1.0


@dataclass
class Claim:
    """A window to be checked: the tokens from `start` on are claimed, after all the others."""

    bundle: ClientBundle
    tokens: tuple[int, ...]
    claimed: int
    parameters: Parameters
    receipt: Signed[Receipt]
    executor: Member
    carried_values: tuple[int, ...]
    amount_ucr_max: int
    check_commitment: bytes


@dataclass
class Check:
    """One checker's work on a window, kept open until it is decided whether it is paid."""

    node: Node
    attestation: Signed[Attestation] | None = None
    receipt: Signed[Receipt] | None = None
    amount_ucr: int = 0
    paid_ucr: int = 0
    order: Signed[JobOrder] | None = None

    @property
    def member(self) -> Member:
        return Member(self.node.key, self.node.owner)


@dataclass
class WindowCheck:
    """What came of checking one window."""

    judgement: Judgement
    checks: list[Check]


@dataclass
class _Round:
    checks: list[Check] = field(default_factory=list)
    busy_nodes: set[bytes] = field(default_factory=set)
    owners: set[bytes] = field(default_factory=set)


async def check_window(team: Team, claim: Claim, policy: Policy) -> WindowCheck:
    """The window was checked by `policy.n - 1` other owners, by two more if those left it open, and they were paid."""
    state = _Round(busy_nodes={claim.executor.node}, owners={claim.executor.owner})
    decided = trio.Event()
    judgement = Judgement(Outcome.INCONCLUSIVE, {})
    async with trio.open_nursery() as paying:
        for count in (policy.n - 1, SECOND_OPINIONS):
            async with trio.open_nursery() as asking:
                for _ in range(count):
                    asking.start_soon(_fill_place, team, claim, state, decided, paying)
            judgement = _judge(claim, state.checks, policy)
            if judgement.outcome is not Outcome.INCONCLUSIVE:
                break
        for check in state.checks:
            agrees = judgement.outcome is not Outcome.INCONCLUSIVE and check.node.key not in judgement.reasons
            check.paid_ucr = check.amount_ucr if agrees else 0
        decided.set()
    return WindowCheck(judgement, state.checks)


def _judge(claim: Claim, checks: list[Check], policy: Policy) -> Judgement:
    window = Window(
        claim.receipt,
        claim.executor,
        tuple((check.member, check.attestation) for check in checks),
        claim.carried_values,
        claim.parameters.top_p_ppm,
    )
    return judge_window(window, policy, claim.bundle.manifest.tolerance)


async def _fill_place(team: Team, claim: Claim, state: _Round, decided: trio.Event, paying: trio.Nursery) -> None:
    """One checker more has given its finding, unless nobody could be had."""
    request = Request(
        claim.bundle.hash,
        claim.bundle.manifest,
        SCORE,
        Work((claim.tokens,), claim.claimed),
        claim.parameters,
        claim.claimed,
        claim.check_commitment,
        checks=claim.receipt.id,
    )
    for _ in range(REPLACEMENTS_MAX):
        need = Need(
            claim.bundle.hash, SCORE, 1, request.work.input_tokens, claim.claimed, claim.amount_ucr_max, CHECKER,
            frozenset(state.busy_nodes), frozenset(state.owners),
        )  # fmt: skip
        try:
            node = await team.pick(need, wait_s=FIND_CHECKER_S)
        except Refused:
            return
        if node.owner in state.owners:
            continue  # another place took this owner while we looked
        state.busy_nodes.add(node.key)
        state.owners.add(node.owner)
        check = Check(node)
        error: FallowError | None = await paying.start(_run_check, team, request, check, decided)
        if error is None:
            state.checks.append(check)
            return
        team.failed(node, error)
        state.owners.discard(node.owner)


async def _run_check(
    team: Team,
    request: Request,
    check: Check,
    decided: trio.Event,
    task_status: trio.TaskStatus[FallowError | None],
) -> None:
    """Started once the finding is there (None) or cannot be had (why). Then waits for the decision, and pays or not."""
    try:
        async with execute(team.desk, check.node, request) as execution:
            check.order = execution.order
            final = await _collect(execution, check)
            task_status.started(None)
            await decided.wait()
            if check.paid_ucr:
                await execution.pay(final)
            else:
                await execution.stop("the quorum did not bear out this finding")
    except FallowError as error:
        if check.receipt is None:
            task_status.started(error)


async def _collect(execution: Execution, check: Check) -> Receipted:
    """The checker's attestation and final receipt. Raises the `FallowError` that ended the execution before them."""
    async for event in execution.events:
        match event:
            case Attested(attestation):
                check.attestation = attestation
            case Receipted(receipt, added_ucr) if receipt.record.end == FINAL and check.attestation:
                check.receipt, check.amount_ucr = receipt, added_ucr
                return event
            case Receipted(_, _, reason):
                raise Refused(Code.OWNER_NEEDS_MACHINE, f"The checker left: {reason}.")
            case Broken(error):
                raise error
            case _:
                pass
    raise AssertionError("an execution's events end with a final receipt or with what broke it")

"""A function call: several nodes of distinct owners compute it, and what enough of them agree on is the result."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from ..protocol.bundle import CALL
from ..protocol.checks import Outcome, Verdict
from ..protocol.envelope import Signed
from ..protocol.errors import Code, FallowError, Refused
from ..protocol.orders import JobOrder
from ..protocol.receipts import FINAL
from ..protocol.work import Parameters, Piece, Work
from ..verifier.quorum import EXECUTOR, FunctionJudgement, Member, Policy, Result, judge_results
from .answers import Rejected
from .bundles import ClientBundle
from .discovery import Node
from .evidence import Evidence
from .execution import Broken, Delivered, Execution, Receipted, Request, execute
from .scheduler import Need
from .team import Team

REPLACEMENTS_MAX = 4
"""For one executor's place, nodes tried before it counts as having given nothing."""


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What the caller asked for, in tokens."""

    bundle: ClientBundle
    sequences: tuple[tuple[int, ...], ...]
    policy: Policy
    amount_ucr_max: int
    preferred: tuple[bytes, ...]


@dataclass
class _Place:
    """One executor's part, kept open until it is decided whether it is paid."""

    node: Node
    order: Signed[JobOrder] | None = None
    piece: Piece | None = None
    final: Receipted | None = None
    agrees: bool = False

    @property
    def result(self) -> Result:
        member = Member(self.node.key, self.node.owner)
        return Result(member, self.final.receipt if self.final else None, self.piece)


class CallJob:
    """One call under way."""

    def __init__(self, team: Team, request: CallRequest) -> None:
        self._team = team
        self._request = request
        self._places: list[_Place] = []
        self._nodes: set[bytes] = set()
        self._owners: set[bytes] = set()
        self._decided = trio.Event()
        self.evidence = Evidence(request.bundle.hash, request.policy)

    async def run(self) -> tuple[Piece, Verdict | None]:
        """The majority's result and the verdict (None if nothing was to be checked).

        Raises `Refused(rejected)` if no k owners agree, `Refused(unsatisfiable_assurance)` if there are not so many.
        """
        policy = self._request.policy
        owners = await self._team.owners(self._need(), policy.k)
        if owners < policy.k:
            raise Refused(
                Code.UNSATISFIABLE_ASSURANCE if policy.checked else Code.NO_EXECUTOR,
                f"{policy} needs {policy.k} distinct owners, and {owners} can take this work now.",
            )
        async with trio.open_nursery() as paying:
            async with trio.open_nursery() as asking:
                for index in range(policy.n):
                    asking.start_soon(self._fill_place, index, paying)
            judgement = self._judge()
            self._decided.set()
        return await self._conclude(judgement)

    def _judge(self) -> FunctionJudgement:
        request = self._request
        results = [place.result for place in self._places]
        judgement = judge_results(results, request.policy, request.bundle.manifest.tolerance)
        for place in self._places:
            accepted = judgement.outcome is Outcome.ACCEPTED
            place.agrees = accepted and place.node.key not in judgement.reasons
            self._note(place, judgement.reasons.get(place.node.key) if accepted else "nothing was decided", accepted)
        return judgement

    def _note(self, place: _Place, objection: str | None, accepted: bool) -> None:
        amount = place.final.added_ucr if place.final else 0
        paid = amount if place.agrees else 0
        if place.order is not None:
            self.evidence.ordered(place.order, place.node)
        receipt = place.final.receipt if place.final else None
        self.evidence.find(EXECUTOR, place.node, receipt if accepted else None, objection, paid)
        if receipt is not None:
            self.evidence.paid(receipt, place.node, EXECUTOR, CALL, amount, paid)

    async def _conclude(self, judgement: FunctionJudgement) -> tuple[Piece, Verdict | None]:
        desk = self._team.desk
        verdict = await self.evidence.close(desk.wallet, judgement.outcome, desk.now_ms())
        if judgement.outcome is not Outcome.ACCEPTED or judgement.medoid is None:
            why = f"Of {self._request.policy.n} executors no {self._request.policy.k} gave the same result."
            raise (
                Rejected(why, verdict) if verdict else Refused(Code.NO_EXECUTOR, "The executor gave no usable result.")
            )
        return judgement.medoid, verdict

    async def _fill_place(self, index: int, paying: trio.Nursery) -> None:
        """One more executor has delivered, unless nobody could be had."""
        preferred = self._request.preferred[index : index + 1]
        for _ in range(REPLACEMENTS_MAX):
            try:
                node = await self._team.pick(self._need(), preferred)
            except Refused:
                return
            if node.owner in self._owners:
                continue  # another place took this owner while we looked
            self._nodes.add(node.key)
            self._owners.add(node.owner)
            place = _Place(node)
            error: FallowError | None = await paying.start(self._run_place, place)
            if error is None:
                self._places.append(place)
                return
            self._team.failed(node, error)
            self._owners.discard(node.owner)

    async def _run_place(self, place: _Place, task_status: trio.TaskStatus[FallowError | None]) -> None:
        """Started once the result is there (None) or cannot be had (why). Then waits for the verdict, and pays or not."""
        request = Request(
            self._request.bundle.hash,
            self._request.bundle.manifest,
            CALL,
            Work(self._request.sequences),
            Parameters(),
            0,
            self.evidence.commitment,
        )
        try:
            async with execute(self._team.desk, place.node, request) as execution:
                place.order = execution.order
                final = await _collect(execution, place)
                task_status.started(None)
                await self._decided.wait()
                if place.agrees:
                    await execution.pay(final)
                else:
                    await execution.stop("the quorum came to another result")
        except FallowError as error:
            if place.final is None:
                task_status.started(error)

    def _need(self) -> Need:
        return Need(
            self._request.bundle.hash,
            CALL,
            len(self._request.sequences),
            sum(map(len, self._request.sequences)),
            0,
            self._request.amount_ucr_max,
            avoid_nodes=frozenset(self._nodes),
            avoid_owners=frozenset(self._owners),
        )


async def _collect(execution: Execution, place: _Place) -> Receipted:
    """The result and its receipt. Raises the `FallowError` that ended the execution before them."""
    async for event in execution.events:
        match event:
            case Delivered(piece):
                place.piece = piece
            case Receipted(receipt) if receipt.record.end == FINAL:
                place.final = event
                return event
            case Receipted(_, _, reason):
                raise Refused(Code.OWNER_NEEDS_MACHINE, f"The executor left: {reason}.")
            case Broken(error):
                raise error
            case _:
                pass
    raise AssertionError("an execution's events end with a final receipt or with what broke it")

"""Audits backwards: once an owner is found at fault, what rests on its word alone is looked at, the newest first: what its
nodes wrote and was taken unchecked, and what one of them alone confirmed. Then judges are asked for what is held of it.

It goes on in the background, and after a restart where it was broken off: what is still to be looked at, or brought before
judges, lies on disk. A result that is found wrong counts as a fault at once, and once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from ..protocol.checks import Outcome, Standing, Verdict
from ..protocol.envelope import Signed, verify_untrusted
from ..protocol.errors import FallowError, RemoteProtocolError, StoreError
from ..protocol.identity import EXECUTOR, cid
from ..protocol.policy import Policy
from ..protocol.receipts import Receipt
from .bundles import Bundles, ClientBundle
from .desk import Desk
from .disputing import Forfeited, settle_case
from .history import History, Kept
from .panel import Panel
from .relooking import count, look_again
from .reopening import reopen
from .team import Team
from .wallet_cases import Case

LOOK_S = 30.0
"""Between two looks at which cases are due for another try."""
WHY = "work of it that had been taken unchecked, or on one checker's word, is wrong"


@dataclass(slots=True)
class _Wrong:
    """What was found wrong of one order's work: the receipts, of which one is enough for judges."""

    bundle: ClientBundle
    kept: Kept
    receipt: Signed[Receipt]
    panel: Panel
    rows: list[bytes]


@dataclass
class Late:
    """What is still to be looked at, and what came of it in this process."""

    history: History

    def __post_init__(self) -> None:
        self._news = trio.Event()
        self._owners: list[bytes] = []
        self._waiting: set[bytes] = set()
        """Owners of whose work some is still under way: looked at once it has ended."""
        self._idle = _done()
        self._cases = trio.Event()
        """There is a new one."""
        self._brought = _done()
        """Every new one has been before its judges, or on the way to them in vain."""
        self.wrong: list[bytes] = []
        """Ids of receipts, taken unchecked once, for work that turned out wrong."""
        self.looked_at = 0
        self.forfeited: list[Forfeited] = []

    def ended(self, verdict: Signed[Verdict]) -> None:
        """Some work has ended with this verdict, which is on disk: what has waited for that goes on, and whom it refutes
        forfeits what is held of its pay, if a committee comes to the same."""
        for owner in self._waiting:
            self.suspect(owner)
        self._waiting.clear()
        if any(f.standing == Standing.REFUTED and f.role == EXECUTOR for f in verdict.record.findings):
            self._new_case()

    def suspect(self, owner: bytes) -> None:
        """A fault of this owner's was proven."""
        self._owners.append(owner)
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._news.set()

    async def idle(self) -> None:
        """Whoever was suspected has been looked at, as far as it could be done now, and what came of it was brought before
        judges. What an earlier process left for judges is not waited for."""
        await self._idle.wait()
        await self._brought.wait()

    async def run(self, team: Team, bundles: Bundles, verifiers: Mapping[bytes, str]) -> None:
        """Looks until cancelled; first at what a process before this one left."""
        with _going_on("nobody is looked back at for now"):
            for owner in self.history.owners_at_fault(team.desk.now_ms()):
                self.suspect(owner)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bring_cases, team.desk, verifiers)
            while True:
                await self._news.wait()
                self._news = trio.Event()
                while self._owners:
                    with _going_on("a look back was broken off"):
                        await self._look_at(team, bundles, self._owners.pop(0))
                self._idle.set()

    def _new_case(self) -> None:
        self._brought = trio.Event() if self._brought.is_set() else self._brought
        self._cases.set()

    async def _bring_cases(self, desk: Desk, verifiers: Mapping[bytes, str]) -> None:
        while True:
            with _going_on("no verdict is brought before judges for now"):
                while (case := await self._due_case(desk)) is not None:
                    if case.tries and not self._cases.is_set():
                        self._brought.set()  # those that were never tried come first
                    await self._bring(desk, verifiers, case)
            if not self._cases.is_set():
                self._brought.set()
            with trio.move_on_after(LOOK_S):
                await self._cases.wait()

    async def _due_case(self, desk: Desk) -> Case | None:
        self._cases = trio.Event()  # what comes from now on may not be among those that are read
        return await desk.wallet.due_case(desk.now_ms())

    async def _bring(self, desk: Desk, verifiers: Mapping[bytes, str], case: Case) -> None:
        try:
            self.forfeited += await settle_case(desk, verifiers, case)
        except RemoteProtocolError as error:
            await desk.wallet.end_case(case.id)
            message = "verdict %s is brought before no judges: what was kept of it cannot be read (%s)"
            logging.getLogger(__name__).warning(message, case.id.hex()[:8], error)

    async def _look_at(self, team: Team, bundles: Bundles, owner: bytes) -> None:
        wrong: dict[bytes, _Wrong] = {}
        for row, kept in self.history.kept(owner, team.desk.now_ms()):
            with _going_on("work taken unchecked cannot be looked at now", logging.INFO):
                await self._look(team, bundles, owner, row, kept, wrong)
        for each in wrong.values():
            await self._reopen(team, each)

    async def _look(
        self, team: Team, bundles: Bundles, owner: bytes, row: bytes, kept: Kept, wrong: dict[bytes, _Wrong]
    ) -> None:
        """The result was looked at, if that could be done now; else it stays on the disk, for the next time. If it is wrong, it
        is among those of its order."""
        receipt = verify_untrusted(Receipt, kept.receipt, signer=kept.subject.node)
        if receipt.record.order in team.desk.under_way:
            self._waiting.add(owner)
            return
        bundle = await bundles.open(cid(kept.subject.bundle), team.discovery.known(kept.subject.bundle))
        found = await look_again(team, bundle, kept)
        self.looked_at += 1
        for other in await count(team, kept.subject.bundle, found):
            self.suspect(other)
        if found.outcome is Outcome.INCONCLUSIVE:
            return
        if found.outcome is Outcome.ACCEPTED and found.panel.alone is not None:
            self.history.keep(kept, row, found.panel.alone)
        elif found.outcome is Outcome.ACCEPTED:
            self.history.looked_at(row)
        else:
            await self._condemn(team, owner, row, kept)
            order = wrong.setdefault(receipt.record.order, _Wrong(bundle, kept, receipt, found.panel, []))
            order.rows.append(row)

    async def _condemn(self, team: Team, owner: bytes, row: bytes, kept: Kept) -> None:
        """The fault is counted, and what rests on its owner's word is looked at, too."""
        subject = kept.subject
        if row not in self.wrong:
            self.wrong.append(row)
        if not self.history.is_wrong(row):
            await team.auditor.failed(subject.node, subject.owner, WHY, row)
        if subject.owner != owner:
            self.suspect(subject.owner)
        logging.getLogger(__name__).warning("receipt %s of node %s: %s", row.hex()[:8], subject.node.hex()[:8], WHY)

    async def _reopen(self, team: Team, wrong: _Wrong) -> None:
        """What judges can be asked about the order, if any of its pay is held, is on disk: its results have been looked at."""
        kept, done = wrong.kept, True
        try:
            policy = Policy.parse(kept.policy)
            done = await reopen(team, wrong.bundle, wrong.receipt, policy, kept.nonce, wrong.panel)
        except FallowError as error:
            done = not isinstance(error, StoreError)
            logging.getLogger(__name__).warning("no judges can be asked about node %s: %s",
                                                kept.subject.node.hex()[:8], error)  # fmt: skip
        self._new_case()
        for row in wrong.rows if done else ():
            self.history.looked_at(row)


def _done() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


@contextmanager
def _going_on(what: str, level: int = logging.WARNING) -> Iterator[None]:
    """What cannot be done, read or written now ends nothing: it stays on disk, and is gone on with later."""
    try:
        yield
    except* FallowError as group:
        for each in group.exceptions:
            of_a_file = isinstance(each, StoreError)
            logging.getLogger(__name__).log(logging.WARNING if of_a_file else level, "%s: %s", what, each)

"""Page 05, "Griefing", on real nodes: who is not waited for is paid for what it has done, and has not failed."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from fallow.client import Answer, Embeddings, Mesh, PaidReceipt, Rejected
from fallow.node.earnings import Earning, earnings
from fallow.node.log import LOG
from fallow.protocol.envelope import Signed
from fallow.protocol.identity import CHECKER, EXECUTOR, peer_key_untrusted
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.prices import CANCELLED, Usage, amount_ucr, find_price
from fallow.protocol.receipts import Receipt
from fallow.testnet.record import LocalNode
from fallow.verifier.verdict import recompute, same

from .test_policies import CHAT, EMBED, EVEN, ODD, nodes

LOOK_S = 0.02
TRIES = 6
Result = TypeVar("Result", Answer, Embeddings)
TEXTS = ["one text of two", "and then the other of them"]


def behind(gate: Path) -> dict[str, Any]:
    """A node that delivers nothing until the gate is there."""
    worker = Path(__file__).with_name("gated.py")
    return {"worker_command": [sys.executable, "-P", str(worker), str(gate)], "sandbox": "off"}


def accepted(node: LocalNode) -> int:
    """Orders that the node has taken so far."""
    log = node.folder / LOG
    return log.read_text("utf-8").count('"job_accepted"') if log.exists() else 0


async def once_begun(work: Callable[[], Awaitable[Any]], loser: LocalNode, gate: trio.Path) -> Any:
    """What comes of the work if nobody may deliver before the loser has taken its order; None if too few delivered."""
    await gate.unlink(missing_ok=True)
    before, results = accepted(loser), []

    async def run() -> None:
        try:
            results.append(await work())
        except Rejected:  # two of three, and one of the two has fallen silent
            results.append(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while accepted(loser) == before:  # noqa: ASYNC110 - in another process, which writes a log
            await trio.sleep(LOOK_S)
        await gate.touch()
    return results[0]


def least_ucr(mesh: Mesh, receipt: Signed[Receipt], entry: str, calls: int, given: int) -> int:
    """One call and one window of what it was given, by the price of whoever signed the receipt."""
    node = next(node for node in mesh._team.discovery.nodes.values() if node.key == receipt.signer)
    bundle = next(served.bundle for served in node.capability.served if entry in served.entries)
    price = find_price(node.capability.prices, bundle, entry)
    return amount_ucr(price, Usage(calls, given), planned_tokens=1, end=CANCELLED)


@dataclass
class Lender:
    """Who never delivers, and what a client's work with others has brought it."""

    mesh: Mesh
    node: LocalNode
    gate: trio.Path
    paid: int = 0
    broke: int = 0
    """Jobs that fell silent: a machine that is too busy breaks some, and such a job says nothing of how a loser is left."""

    async def loses(self, work: Callable[[], Awaitable[Result]], role: str) -> tuple[Result, PaidReceipt]:
        """What came of the work, and the one receipt of the loser: both sides say that it was paid for it."""
        for _ in range(TRIES):
            owed_ucr = self.mesh.owed_by_owner().get(self.node.owner, 0)
            result = await once_begun(work, self.node, self.gate)
            ours = [each for each in result.receipts if each.executor == self.node.peer_id] if result else []
            if ours:
                break
            self.broke += 1
        assert [(each.role, each.signed.record.end) for each in ours] == [(role, CANCELLED)]
        self.paid += 1
        assert ours[0].paid_ucr == ours[0].amount_ucr > 0
        assert self.mesh.owed_by_owner()[self.node.owner] - owed_ucr == ours[0].paid_ucr

        def at_node() -> list[Earning]:
            return [row for row in earnings(self.node.folder) if row.receipt == ours[0].signed.id and row.paid_ucr]

        while not (theirs := at_node()):  # noqa: ASYNC110 - in another process, for which the client does not wait long
            await trio.sleep(LOOK_S)
        assert [(row.owed_ucr, row.paid_ucr) for row in theirs] == [(ours[0].paid_ucr, ours[0].paid_ucr)]
        return result, ours[0]


@pytest.mark.timeout(300)  # three nodes, and four jobs of up to six tries each
@pytest.mark.spec("J-35", "J-5")
async def test_who_is_not_waited_for_is_paid_and_has_not_failed(tmp_path: Path, home: Path) -> None:
    gate = trio.Path(tmp_path / "open")
    async with nodes(tmp_path, home, behind(tmp_path / "never"), behind(Path(gate)), {}, within_s=280) as (all_, mesh):
        stuck, gated, plain = all_
        loser, pair = peer_key_untrusted(stuck.peer_id), [stuck.peer_id, gated.peer_id]
        lender = Lender(mesh, stuck, gate)

        # A function: two race, and the one that delivers nothing is left with one call and one window of input.
        def race_to_call() -> Awaitable[Embeddings]:
            return mesh.embed(EMBED, TEXTS, assurance="none+hedge:2", executors=pair)

        vectors, lost = await lender.loses(race_to_call, EXECUTOR)
        assert (given := vectors.usage.prompt_tokens) > WINDOW_TOKENS
        assert lost.paid_ucr == least_ucr(mesh, lost.signed, "call", len(TEXTS), given)

        # A text.
        def race_to_write() -> Awaitable[Answer]:
            return mesh.generate(CHAT, ODD, max_tokens=8, assurance="none+hedge:2", executors=pair)

        answer, lost = await lender.loses(race_to_write, EXECUTOR)
        assert lost.paid_ucr == least_ucr(mesh, lost.signed, "generate", 1, answer.usage.prompt_tokens)

        # A quorum's third, after the others have decided: its finding is that it gave none.
        vectors, _ = await lender.loses(lambda: mesh.embed(EMBED, TEXTS, assurance="quorum:2/3"), EXECUTOR)
        assert vectors.verdict is not None
        standings = {finding.node: (finding.standing, finding.withheld_ucr) for finding in vectors.verdict.findings}
        assert standings.pop(loser) == ("silent", 0)
        assert set(standings.values()) == {("upheld", 0)}
        assert same(recompute(vectors.verdict, vectors.proof.records, vectors.proof.openings), vectors.verdict)

        # A window's second checker.
        def checked() -> Awaitable[Answer]:
            return mesh.generate(CHAT, EVEN, max_tokens=8, assurance="quorum:2/3", executors=[plain.peer_id])

        answer, _ = await lender.loses(checked, CHECKER)
        assert answer.verdict is not None and answer.verdict.outcome == "accepted"

        met = mesh._team.desk.book.get(loser)
        assert met is not None
        assert met.jobs_done >= lender.paid
        assert met.jobs_failed <= lender.broke
        assert loser not in mesh._team.desk.wallet.distrusted

"""Disputes between the two sides of an order, before verifiers that are real processes: each kind, both ways."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from fallow.client import Answer, Mesh
from fallow.client.answering import answer_at
from fallow.client.contesting import Contested, answer, bring, claim, shown, take_off, tell, to_answer
from fallow.node.keys import load_or_create
from fallow.node.store import JOURNAL, debts, earnings
from fallow.protocol.disputes import BY_PAYER, DISMISSED, UPHELD, Decided, Decision, Dispute, Kind
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, Refused
from fallow.protocol.identity import peer_key_untrusted
from fallow.protocol.opening import Opening
from fallow.testnet.record import LocalNode

from .test_disputes import verifiers
from .test_policies import EVEN, MOODY, NEVER, ODD, ask, nodes

ANSWER_MS = 3_000
FEE = 9


@dataclass
class Court:
    """A client, nodes, and the judges that both trust."""

    mesh: Mesh
    nodes: list[LocalNode]
    judges: dict[bytes, str]
    home: Path

    @property
    def payer(self) -> SigningKey:
        return self.mesh._team.desk.key

    def records(self, given: Answer, node: LocalNode, role: str = "executor") -> tuple[Contested, list[Signed[Any]]]:
        """The last receipt of a node under an answer, and all the records of it, with the channel."""
        channel = self.mesh._team.desk.wallet.channel_to(peer_key_untrusted(node.peer_id))
        assert channel is not None
        known = {one.id: one for one in given.proof.records}
        receipt = [paid.signed for paid in given.receipts if (paid.executor, paid.role) == (node.peer_id, role)][-1]
        return Contested(channel.channel, known[receipt.record.order], receipt), [*known.values(), channel.channel]

    async def claim(
        self, kind: Kind, at: Contested, proof: bytes, node: LocalNode, fee: int = FEE
    ) -> tuple[Signed[Dispute], Callable[[], Any]]:
        """The dispute, and how to bring it (again)."""
        desk = self.mesh._team.desk
        key = self.payer if kind in BY_PAYER else load_or_create(Path(node.state) / "node.key")
        dispute = claim(kind, at, proof, key, desk.now_ms(), fee_ucr=fee, answer_ms=ANSWER_MS)

        async def again() -> Decided:
            return await bring(desk.network, self.judges, at, dispute, proof, desk.now_ms(), addresses=node.addresses)

        return dispute, again

    async def plead(self, at: Contested, dispute: Signed[Dispute], proof: bytes) -> Decided:
        """The payer finds the dispute at a judge, and answers."""
        desk = self.mesh._team.desk
        found = await to_answer(desk.network, next(iter(self.judges.values())), bytes(self.payer.verify_key))
        assert [one.id for one in found] == [dispute.id]
        plea = answer(dispute.id, proof, self.payer)
        return await bring(desk.network, self.judges, at, dispute, proof, desk.now_ms(), plea=plea)


@asynccontextmanager
async def court(tmp_path: Path, home: Path, *more: dict[str, Any]) -> AsyncIterator[Court]:
    words = ("--answer-s", str(ANSWER_MS // 1000), "--fee", "3")
    with verifiers(tmp_path, home, *words) as judges:
        with (home / "trust.toml").open("a") as stream:
            for number, (owner, address) in enumerate(judges):
                stream.write(f'\n[[owner]]\nname = "judge {number}"\nkey = "{owner}"\nverifier = "{address}"\n')
        agreed = {"arbiters": [owner for owner, _ in judges]}
        async with nodes(tmp_path / "net", home, *({**agreed, **each} for each in more), within_s=600) as (
            running,
            mesh,
        ):
            yield Court(mesh, running, {bytes.fromhex(owner): address for owner, address in judges}, home)


async def eventually(again: Callable[[], Any]) -> Decided:
    """What is decided once the time to answer is over."""
    while True:
        try:
            return await again()  # type: ignore[no-any-return]
        except Refused as refused:
            if refused.code is not Code.TIMED_OUT:
                raise
            await trio.sleep(refused.retry_after_ms / 1000)


def said(decided: Decided) -> Decision:
    assert len(decided.decisions) >= 2
    assert len({one.signer for one in decided.decisions}) == len(decided.decisions)
    return decided.decisions[0].record


@pytest.mark.timeout(600)  # verifiers and nodes, each with its worker
@pytest.mark.spec("A-28", "A-30", "A-31", "A-32", "P-29", "P-30")
async def test_what_the_payer_says_of_the_payee(tmp_path: Path, new_home: Callable[[], Path]) -> None:
    bad = {"worker_command": MOODY, "sandbox": "off"}
    async with court(tmp_path, new_home(), {}, bad) as at:
        honest, liar = at.nodes
        desk = at.mesh._team.desk

        # The answer is wrong: run again by the judges, and what is held is forfeited at once.
        lie = await ask(at.mesh, EVEN, [liar], NEVER)
        contested, records = at.records(lie, liar)
        proof = shown(records, lie.proof.openings)
        _, again = await at.claim(Kind.WRONG, contested, proof, liar)
        decided = await again()
        decision = said(decided)
        assert (decision.outcome, decision.loser) == (UPHELD, contested.order.record.executor)
        assert decision.withheld_ucr == contested.receipt.record.amount_ucr
        channel = desk.wallet.channel_to(contested.order.record.executor)
        assert channel is not None
        held = channel.held_ucr(desk.now_ms())
        assert held > 0
        assert await take_off(desk, liar.addresses, channel, decided) == min(held, decision.withheld_ucr + FEE)
        assert sum(row.forfeited_ucr for row in earnings(Path(liar.state))) == min(held, decision.withheld_ucr + FEE)

        # A checker that signs both ways: two findings under one order.
        checked = await ask(at.mesh, ODD, [honest], "quorum:2/2", 20)
        contested, records = at.records(checked, liar, "checker")
        finding = next(
            one for one in records if one.record.RECORD == "attestation" and one.record.order == contested.order.id
        )
        key = load_or_create(Path(liar.state) / "node.key")
        other = sign(replace(finding.record, gaps_micro=tuple(g + 1 for g in finding.record.gaps_micro)), key)
        _, again = await at.claim(Kind.TWO_FACED, contested, shown([*records, other]), liar, 3)
        decision = said(await again())
        assert (decision.outcome, decision.withheld_ucr) == (UPHELD, contested.receipt.record.amount_ucr)

        # A node that does not find its receipt in its books denies it: but it has signed it.
        with sqlite3.connect(Path(liar.state) / JOURNAL) as books:
            books.execute("DELETE FROM receipts WHERE id = ?", (contested.receipt.id,))
        _, again = await at.claim(Kind.DISOWNED, contested, shown(records), liar)
        decision = said(await again())
        assert (decision.outcome, decision.reason) == (UPHELD, "the payee denies what it has signed")
        assert decision.due_ucr == contested.receipt.record.amount_ucr

        # A false accusation: the payee has it on disk that the payer owes the fee, once.
        contested, records = at.records(checked, honest)
        kept = tmp_path / "answer.proof"
        kept.write_bytes(checked.proof.file(openings=True))
        for _ in range(2):
            told = await say(at, "wrong", contested, "--proof", str(kept), "--at", honest.addresses[0])
            assert (told["outcome"], told["loser"]) == (DISMISSED, bytes(at.payer.verify_key).hex())
            assert (told["due_ucr"], told["fee_ucr"], told["told"]) == (contested.receipt.record.amount_ucr, FEE, True)
        assert [row.owed_ucr for row in debts(Path(honest.state))] == [earned(honest) + FEE]

        # Whoever owes a judge a fee is not heard again before it is paid: not even where the node stands by its receipt.
        _, again = await at.claim(Kind.DISOWNED, contested, shown(records), honest)
        with pytest.raises(Refused) as caught:
            await again()
        assert caught.value.code is Code.UNPAID


def earned(node: LocalNode) -> int:
    return sum(row.owed_ucr for row in earnings(Path(node.state)))


@pytest.mark.timeout(600)  # verifiers and nodes, each with its worker
@pytest.mark.spec("A-28", "A-29", "A-32", "P-30")
async def test_what_the_payee_says_of_the_payer(tmp_path: Path, new_home: Callable[[], Path]) -> None:
    async with court(tmp_path, new_home(), {}, {}) as at:
        node, second = at.nodes
        desk = at.mesh._team.desk
        payer = bytes(at.payer.verify_key)
        good = await ask(at.mesh, ODD, [node, second], "quorum:2/2", 20)
        contested, records = at.records(good, node)
        own = [one for one in records if one.record.RECORD not in ("verdict", "attestation")]
        proof, openings = shown(own), good.proof.openings
        false = tuple(replace(opening, work=opening.work[:-1] + b"\x01") for opening in openings)

        # The payer opens what it has ordered: nothing was wrong, and the payee bears the fee.
        dispute, again = await at.claim(Kind.MISMATCHED, contested, proof, node)
        await waiting(again)
        assert [await answer_at(desk, address) for address in at.judges.values()] == [1, 1, 1]
        decision = said(await again())
        assert (decision.outcome, decision.loser) == (DISMISSED, contested.order.record.executor)

        # The other node's claims are another key's: it owes nobody a fee.
        checked, records = at.records(good, second, "checker")
        theirs = [one for one in records if one.record.RECORD not in ("verdict", "attestation")]
        finding = [one for one in records if one.record.RECORD == "attestation"]
        claims: list[tuple[Kind, list[Signed[Any]], tuple[Opening, ...], str]] = [
            (Kind.MISMATCHED, theirs, false, UPHELD),
            (Kind.UNPAID, [*theirs, *finding], openings, UPHELD),
            (Kind.UNOPENED, theirs, (), UPHELD),
        ]
        for kind, mine, shows, outcome in claims:
            dispute, again = await at.claim(kind, checked, shown(mine), second)
            await waiting(again)
            decision = said(await at.plead(checked, dispute, shown(mine, shows)))
            assert (kind, decision.outcome, decision.loser) == (kind, outcome, payer)
            assert decision.due_ucr == checked.receipt.record.amount_ucr

        # Who never answers has lost, and owes the fee beside what it has ordered.
        dispute, again = await at.claim(Kind.UNOPENED, checked, shown(theirs), second)
        decided = await eventually(again)
        assert said(decided).reason == "the accused has not answered in time"
        before = earned(second)
        assert await tell(desk.network, second.addresses, decided, 0)
        assert [row.owed_ucr for row in debts(Path(second.state))] == [before + FEE]

        # From its wallet the payer opens what the order was committed to.
        words = ("unopened", checked, "--state", second.state, "--at", second.addresses[0])
        assert "left to answer" in (await say(at, *words))["error"]["code"]
        assert [await answer_at(desk, address) for address in at.judges.values()] == [1, 1, 1]
        told = await say(at, *words)
        assert (told["outcome"], told["loser"]) == (DISMISSED, checked.order.record.executor.hex())


async def say(at: Court, kind: str, contested: Contested, *more: str) -> dict[str, Any]:
    """What `fallow dispute` prints, or its error."""
    terms = ("--fee", str(FEE), "--answer-s", str(ANSWER_MS // 1000), "--json")
    words = [sys.executable, "-P", "-m", "fallow.cli", "dispute", kind, contested.receipt.id.hex(), *more, *terms]
    env = {**os.environ, "FALLOW_HOME": str(at.home)}
    done = await trio.run_process(words, env=env, capture_stdout=True, capture_stderr=True, check=False)
    text = done.stdout or done.stderr
    return json.loads(text) if text.lstrip().startswith(b"{") else {"error": {"code": text.decode()}}


async def waiting(again: Callable[[], Any]) -> None:
    """The accused is heard first."""
    with pytest.raises(Refused) as caught:
        await again()
    assert caught.value.code is Code.TIMED_OUT

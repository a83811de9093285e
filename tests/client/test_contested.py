"""What two sides of an order take before judges, all real processes: each kind, both ways, and what comes of it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fallow.client.answering import answer_at
from fallow.client.auditing import Auditor
from fallow.client.contesting import shown, tell
from fallow.client.countersigning import read_reply
from fallow.client.joining import connect
from fallow.node.books import period_of, statement
from fallow.node.debts import debts
from fallow.node.earnings import earnings
from fallow.node.journal_file import JOURNAL
from fallow.node.keys import load_or_create
from fallow.node.paid import fees, payments
from fallow.node.rails.ledger import Ledger
from fallow.protocol.checks import Verdict
from fallow.protocol.disputes import DISMISSED, UPHELD, Kind, dues_of, share_ucr
from fallow.protocol.envelope import Signed, sign, verify_untrusted
from fallow.protocol.errors import Code, Refused
from fallow.protocol.identity import peer_key_untrusted
from fallow.protocol.messages.assurance import VerdictRequest
from fallow.protocol.messages.codec import encode_message
from fallow.protocol.opening import Opening
from fallow.protocol.streams import VERDICT_PROTOCOL
from fallow.testnet.adversaries.false_accuser import FEE_UCR
from fallow.verifier.disputes import TWO_ANSWERS

from .court import FEE, SILENT_MS, Court, court, earned, eventually, said, waiting
from .test_looking_back import UNDRAWN
from .test_policies import EVEN, MOODY, NEVER, ODD, ask

NOWHERE = "/ip4/127.0.0.1/tcp/1/p2p/"


@pytest.mark.timeout(600)  # three verifiers and six nodes, each with its worker, started once for all of it
@pytest.mark.spec("A-27", "A-28", "A-29", "A-30", "A-31", "A-32", "P-28", "P-29", "P-30")
async def test_disputes_of_a_client_and_its_nodes(tmp_path: Path, new_home: Callable[[], Path]) -> None:
    bad = {"worker_command": MOODY, "sandbox": "off"}
    async with court(tmp_path, new_home(), {}, {}, {}, bad, bad, bad) as at:
        await a_liar_loses_what_is_held_and_owes_the_fee(at, tmp_path)
        await a_false_accusation_costs_its_accuser(at, tmp_path)
        await what_the_payer_says_of_the_payee(at)
        await what_the_payee_says_of_the_payer(at)
        await a_payer_that_has_lost_owes_the_fee(at)
        await a_verdict_forfeits_what_is_held(at)
        await what_a_later_look_finds_wrong_is_forfeited(at)
        await who_does_nothing_but_accuse_pays_for_it(at, new_home())


async def a_liar_loses_what_is_held_and_owes_the_fee(at: Court, tmp_path: Path) -> None:
    """By the command, while this process has the channel: it forfeits, and tells the node once that can be had."""
    liar, desk = at.nodes[3], at.desk
    lie = await ask(at.mesh, EVEN, [liar], NEVER)
    contested, _ = at.records(lie, liar)
    payee, amount = contested.order.record.executor, contested.receipt.record.amount_ucr
    channel = desk.wallet.channel_to(payee)
    assert channel is not None
    held = channel.held_ucr(desk.now_ms())
    assert 0 < held < amount
    kept = tmp_path / "lie.proof"
    kept.write_bytes(lie.proof.file(openings=True))

    os.kill(liar.pid, signal.SIGSTOP)
    try:
        found = await at.say("wrong", contested, "--proof", str(kept), "--bootstrap", at.nodes[0].addresses[0])
        assert (found["outcome"], found["loser"], found["withheld_ucr"]) == (UPHELD, payee.hex(), amount)
        assert (found["told"], found["forfeited_ucr"]) == (False, 0)
        assert [(one.ucr, one.arrived) for one in await at.told()] == [(held, False)]
    finally:
        os.kill(liar.pid, signal.SIGCONT)
    assert [(one.ucr, one.arrived) for one in await at.told()] == [(held, True)]
    assert await at.told() == []

    # Held pay covers nothing of the fee: the node owes it, and that was set off against what it is owed.
    state = Path(liar.state)
    assert sum(row.forfeited_ucr for row in earnings(state)) == held
    payer = bytes(at.payer.verify_key)
    assert [(fee.party, fee.ucr) for fee in fees(state)] == [(payer, -FEE)]
    assert [(paid.payer, paid.rail, paid.ucr) for paid in payments(state)] == [(payer, "ledger", FEE)]
    totals = statement(state, period_of(now_year())).totals
    assert (totals.fee_ucr, totals.settled_ucr, totals.forfeited_ucr) == (FEE, FEE, held)
    assert [row.open_ucr for row in debts(state)] == [earned(liar) - held - FEE]
    with closing(Ledger(at.home / "rails" / "ledger.sqlite", at.payer)) as books:
        assert books.owed_ucr(payee) == (0, earned(liar) - held - FEE)  # what its vouchers have made due, less the fee
    # Who has asked the judges owes each of them its part, though it was right; and is not heard again before it has paid.
    await owes_the_judges(at, found["judges"])
    _, again = await at.claim(Kind.DISOWNED, contested, shown([*lie.proof.records, channel.channel]), liar)
    with pytest.raises(Refused) as caught:
        await again()
    assert caught.value.code is Code.UNPAID
    at.paid()


async def owes_the_judges(at: Court, judges: int) -> None:
    part = share_ucr(FEE)
    assert sorted(at.owed()) == sorted([part] * judges + [0] * (3 - judges))


async def a_false_accusation_costs_its_accuser(at: Court, tmp_path: Path) -> None:
    honest = at.nodes[0]
    good = await ask(at.mesh, ODD, [honest], NEVER, 20)
    contested, _ = at.records(good, honest)
    kept = tmp_path / "answer.proof"
    kept.write_bytes(good.proof.file(openings=True))
    for told in (False, True):
        found = await at.say("wrong", contested, "--proof", str(kept), "--at", honest.addresses[0])
        assert (found["outcome"], found["loser"]) == (DISMISSED, bytes(at.payer.verify_key).hex())
        assert (found["due_ucr"], found["fee_ucr"], found["told"]) == (contested.receipt.record.amount_ucr, FEE, told)
        await at.told()
    await owes_the_judges(at, found["judges"])
    assert [row.owed_ucr for row in debts(Path(honest.state))] == [earned(honest)]
    at.paid()


async def what_the_payer_says_of_the_payee(at: Court) -> None:
    honest, second, third, liar, *_ = at.nodes
    # A checker that signs both ways: two findings under one order.
    checked = await ask(at.mesh, ODD, [honest, liar], "quorum:2/2", 20)
    checker = next(one for one in at.nodes[1:] if any(r.executor == one.peer_id for r in checked.receipts))
    contested, records = at.records(checked, checker, "checker")
    finding = next(
        one for one in records if one.record.RECORD == "attestation" and one.record.order == contested.order.id
    )
    key = load_or_create(Path(checker.state) / "node.key")
    other = sign(replace(finding.record, gaps_micro=tuple(g + 1 for g in finding.record.gaps_micro)), key)
    _, again = await at.claim(Kind.TWO_FACED, contested, shown([*records, other]), checker)
    decision = said(await again())
    assert (decision.outcome, decision.withheld_ucr) == (UPHELD, contested.receipt.record.amount_ucr)

    # The same again, by a fresh claim, is heard by nobody: an order is brought once for each kind.
    _, again = await at.claim(Kind.TWO_FACED, contested, shown([*records, other]), checker, 3)
    with pytest.raises(Refused) as caught:
        await again()
    assert caught.value.code is Code.REPLAYED

    # A node that does not find its receipt in its books denies it: but it has signed it.
    with closing(sqlite3.connect(Path(checker.state) / JOURNAL, isolation_level=None)) as books:
        row = books.execute("SELECT * FROM receipts WHERE id = ?", (contested.receipt.id,)).fetchone()
        books.execute("DELETE FROM receipts WHERE id = ?", (contested.receipt.id,))
        _, again = await at.claim(Kind.DISOWNED, contested, shown(records), checker)
        decision = said(await again())
        books.execute(f"INSERT INTO receipts VALUES ({', '.join('?' * len(row))})", row)
    assert (decision.outcome, decision.reason) == (UPHELD, "the payee denies what it has signed")
    assert decision.due_ucr == contested.receipt.record.amount_ucr

    # One that stands by it is believed, and one of which nobody hears has lost nothing.
    contested, records = at.records(checked, honest)
    _, again = await at.claim(Kind.DISOWNED, contested, shown(records), honest)
    assert said(await again()).outcome == DISMISSED
    away = third if checker is second else second
    given = await ask(at.mesh, ODD, [away], NEVER, 20)
    contested, records = at.records(given, away)
    nowhere = (NOWHERE + away.peer_id,)
    _, again = await at.claim(Kind.DISOWNED, contested, shown(records), away, FEE, nowhere, answer_ms=SILENT_MS)
    decision = said(await eventually(again))
    assert (decision.outcome, decision.fee_ucr, decision.due_ucr) == (DISMISSED, 0, 0)


async def what_the_payee_says_of_the_payer(at: Court) -> None:
    node, desk, payer = at.nodes[1], at.desk, bytes(at.payer.verify_key)

    async def ordered() -> tuple[Any, list[Signed[Any]], tuple[Opening, ...]]:
        """A good answer, and what its executor has of it."""
        good = await ask(at.mesh, ODD, [node], NEVER, 20)
        contested, records = at.records(good, node)
        return contested, [one for one in records if one.record.RECORD != "verdict"], good.proof.openings

    # The payer opens what it has ordered: nothing was wrong.
    contested, own, openings = await ordered()
    dispute, again = await at.claim(Kind.MISMATCHED, contested, shown(own), node)
    await waiting(again)
    assert [await answer_at(desk, *judge) for judge in at.judges.items()] == [1, 1, 1]
    decision = said(await again())
    assert (decision.outcome, decision.loser) == (DISMISSED, contested.order.record.executor)

    # A receipt for pieces that were never sent: the payer opens what it has ordered, and what came, and nobody can show more.
    key = load_or_create(Path(node.state) / "node.key")
    never = sign(replace(contested.receipt.record, transcript=bytes(32)), key)
    others = [one for one in own if one.record.RECORD != "receipt" or one.record.order != contested.order.id]
    _, again = await at.claim(Kind.UNPAID, replace(contested, receipt=never), shown([*others, never]), node, FEE)
    await waiting(again)
    assert [await answer_at(desk, *judge) for judge in at.judges.items()] == [1, 1, 1]
    decision = said(await again())
    assert (decision.outcome, decision.due_ucr, decision.withheld_ucr, decision.fee_ucr) == (DISMISSED, 0, 0, 0)

    # What it opens falsely, it has lost; and what it has and does not pay, it owes.
    contested, own, openings = await ordered()
    false = tuple(replace(opening, work=opening.work[:-1] + b"\x01") for opening in openings)
    for kind, shows in ((Kind.MISMATCHED, false), (Kind.UNPAID, openings), (Kind.UNOPENED, ())):
        dispute, again = await at.claim(kind, contested, shown(own), node)
        await waiting(again)
        await at.plead(dispute, shown(own, shows))
        decision = said(await again())
        assert (kind, decision.outcome, decision.loser) == (kind, UPHELD, payer)
        assert decision.due_ucr == contested.receipt.record.amount_ucr

    # Who opens it to one judge, half of it to the next and nothing to the third has not kept them from deciding.
    contested, own, openings = await ordered()
    dispute, again = await at.claim(Kind.UNPAID, contested, shown(own), node, FEE)
    await waiting(again)
    half = tuple(replace(opening, pieces=opening.pieces[:-1]) for opening in openings)
    await at.plead(dispute, shown(own, openings), shown(own, half), shown(own))
    decided = await again()
    decision = said(decided)
    assert (decision.outcome, decision.loser, decision.fee_ucr) == (UPHELD, payer, FEE)
    assert (decision.reason, len(decided.decisions)) == (TWO_ANSWERS, 3)
    assert sorted(at.owed()) == [share_ucr(FEE)] * 3
    assert dues_of(decided, contested.order.record.executor, 0, desk.now_ms())[payer] == FEE
    at.paid()


async def a_payer_that_has_lost_owes_the_fee(at: Court) -> None:
    node, desk, payer = at.nodes[2], at.desk, bytes(at.payer.verify_key)
    given = await ask(at.mesh, ODD, [node], NEVER, 20)
    contested, records = at.records(given, node)
    own = [one for one in records if one.record.RECORD != "verdict"]

    # From its wallet the payer opens what the order was committed to.
    words = ("unopened", contested, "--state", node.state, "--at", node.addresses[0])
    assert "left to answer" in (await at.say(*words, fee=0))["error"]["code"]
    assert [await answer_at(desk, *judge) for judge in at.judges.items()] == [1, 1, 1]
    found = await at.say(*words, fee=0)
    assert (found["outcome"], found["loser"]) == (DISMISSED, contested.order.record.executor.hex())

    # Who never answers has lost, and owes the node its fee; the node owes it to the judges.
    _, again = await at.claim(Kind.MISMATCHED, contested, shown(own), node, FEE, answer_ms=SILENT_MS)
    decided = await eventually(again)
    assert said(decided).reason == "the accused has not answered in time"
    for _ in range(2):
        assert await tell(desk.network, node.addresses, decided)
    state, part = Path(node.state), share_ucr(FEE)
    parts = {signed.signer: -part for signed in decided.decisions}
    assert {fee.party: fee.ucr for fee in fees(state) if fee.ucr} == {payer: FEE, **parts}
    assert [(row.owed_ucr, row.promised_ucr) for row in debts(state)] == [(earned(node) + FEE, earned(node) + FEE)]
    totals = statement(state, period_of(now_year())).totals
    assert totals.fee_ucr == len(parts) * part - FEE
    await owes_the_judges(at, len(parts))


async def a_verdict_forfeits_what_is_held(at: Court) -> None:
    first, second, _, _, liar, _ = at.nodes
    wallet, key, mesh = at.desk.wallet, peer_key_untrusted(liar.peer_id), at.mesh
    await ask(mesh, ODD, [liar], "none")  # honest, and half of it is held
    held = wallet.held_ucr(key, at.desk.now_ms())
    channel = wallet.channel_to(key)
    assert channel is not None
    assert held > 0

    caught = await ask(mesh, EVEN, [liar, second], "adaptive")
    assert caught.verdict is not None
    assert caught.verdict.outcome == "accepted"
    await mesh.looked_back()
    (forfeited,) = mesh._team.late.forfeited
    assert (forfeited.node, forfeited.ucr, forfeited.told) == (key, held, True)
    assert forfeited.judges >= 2
    assert wallet.held_ucr(key, at.desk.now_ms()) == 0
    assert mesh.owed_by_owner()[liar.owner] == channel.promised_ucr - held
    assert sum(row.forfeited_ucr for row in earnings(Path(liar.state))) == held

    # Who left before the answer and asks again costs a judge no second run: its worker could not do one now.
    lie = next(one for one in caught.proof.records if one.record.RECORD == "verdict")
    again = VerdictRequest(lie.id, caught.proof.file(openings=True))
    for address, state in zip(at.judges.values(), at.states, strict=True):
        with frozen(workers_of(state)):
            assert (await _signed(mesh, address, again)).record == lie.record

    # Whoever accuses an honest node gets no signature: the verdict does not refute it.
    honest = await ask(mesh, EVEN, [first], "adaptive", 20)
    verdict = next(one for one in honest.proof.records if one.record.RECORD == "verdict")
    address = next(iter(at.judges.values()))
    assert (
        await _refused(mesh, address, VerdictRequest(verdict.id, honest.proof.file(openings=True))) is Code.BAD_RECORD
    )
    await _refused(mesh, address, VerdictRequest(verdict.id, honest.proof.file()))


async def what_a_later_look_finds_wrong_is_forfeited(at: Court) -> None:
    """The fault may have been another node's of the same owner: what this one holds was never in a verdict."""
    liar, wallet, mesh, late = at.nodes[5], at.desk.wallet, at.mesh, at.mesh._team.late
    key, before, wrong = peer_key_untrusted(liar.peer_id), len(late.forfeited), len(late.wrong)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Auditor, "wants", lambda *_: False)
        patched.setattr("fallow.client.late.LOOK_S", 0.2)
        async with connect(liar.addresses, home=at.home) as beside:  # with channels of its own
            held = []
            for each in (mesh, beside):
                lied = await ask(each, EVEN, [liar], UNDRAWN)
                assert (lied.checked, lied.windows) == (0, 3)
                held.append(each._team.desk.wallet.held_ucr(key, at.desk.now_ms()))
            assert all(held)
            late.suspect(bytes.fromhex(liar.owner))
            assert await mesh.looked_back() == wrong + 6, "all windows were taken as they were"
            (forfeited,) = late.forfeited[before:]  # all that is held goes with the first of them
            assert (forfeited.node, forfeited.ucr, forfeited.told) == (key, held[0], True)
            assert forfeited.judges >= 2
            with trio.fail_after(120):
                while not beside._team.late.forfeited:
                    await trio.testing.wait_all_tasks_blocked(0.05)
            (forfeited,) = beside._team.late.forfeited
            assert (forfeited.node, forfeited.ucr, forfeited.told) == (key, held[1], True)
            assert not beside._team.desk.wallet.held_ucr(key, at.desk.now_ms())
    assert wallet.held_ucr(key, at.desk.now_ms()) == 0
    assert key in wallet.distrusted


async def who_does_nothing_but_accuse_pays_for_it(at: Court, home: Path) -> None:
    """The adversary's own process and key: good work is bought, accused, and accused again."""
    honest, before = at.nodes[0], at.owed()
    (home / "trust.toml").write_text((at.home / "trust.toml").read_text())
    words = [sys.executable, "-P", "-m", "fallow.testnet.adversaries.false_accuser", "--home", str(home)]
    words += ["--bootstrap", ",".join(honest.addresses), "--bundle", "tiny-chat", "--node", honest.peer_id]
    done = await trio.run_process(words, capture_stdout=True)
    first, again = map(json.loads, done.stdout.decode().splitlines())
    assert (first["trick"], first["stopped_by"], first["node"]) == ("accuses", DISMISSED, honest.peer_id)
    assert (again["trick"], again["stopped_by"]) == ("accuses-again", Code.UNPAID)
    assert first["paid_ucr"] == first["owed_ucr"] > 0, "it has nothing back of what it has paid"
    accuser = bytes(load_or_create(home / "keys" / "client").verify_key)
    for state, ucr in zip(at.states, before, strict=True):
        owes = {row.payer: row.open_ucr for row in debts(state)}
        assert owes[accuser] == share_ucr(FEE_UCR) and sum(owes.values()) == ucr + share_ucr(FEE_UCR)
    paid = next(row for row in debts(Path(honest.state)) if row.payer == accuser)
    assert (paid.owed_ucr, paid.promised_ucr) == (first["owed_ucr"], first["owed_ucr"]), "and its victim loses nothing"


async def _refused(mesh: Any, address: str, request: VerdictRequest) -> Code:
    with pytest.raises(Refused) as caught:
        await _signed(mesh, address, request)
    return caught.value.code


async def _signed(mesh: Any, address: str, request: VerdictRequest) -> Signed[Any]:
    key = peer_key_untrusted(address.rpartition("/")[2])
    with trio.fail_after(60):
        stream = await mesh._team.desk.network.open(key, VERDICT_PROTOCOL, (address,))
        await stream.send(encode_message(request))
        return verify_untrusted(Verdict, (await read_reply(stream)).verdict, signer=key)


def workers_of(judge: Path) -> list[int]:
    """Processes that the judge with this state has begun."""
    config = str(judge / "verifier.toml").encode()
    every = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]
    own = [pid for pid in every if config in _words(pid)]
    return [pid for pid in every if _parent(pid) in own]


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def now_year() -> str:
    return str(datetime.now(UTC).year)

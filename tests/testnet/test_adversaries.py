"""Each adversary against a small real mesh: it is caught by the rule that is said to stop it, nobody is paid wrongly, and
the job still ends. One mesh for all: starting a node takes longer than an attack.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
import trio

from fallow.cli.verify import verify
from fallow.client import Answer, Rejected, connect
from fallow.client.mesh import Mesh
from fallow.node.earnings import earnings
from fallow.node.gossip import FAULTS
from fallow.node.journal_file import JOURNAL
from fallow.protocol.bundle import GENERATE
from fallow.protocol.checks import Attestation
from fallow.protocol.envelope import verify_untrusted
from fallow.protocol.errors import Code, ConfigError
from fallow.protocol.evidence import Fault, prove
from fallow.protocol.identity import peer_id, peer_key_untrusted
from fallow.protocol.job import UNPAID_RECEIPTS_MAX
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.orders import JobOrder
from fallow.protocol.payment import Voucher
from fallow.protocol.prices import Usage, amount_ucr
from fallow.protocol.receipts import YIELDED
from fallow.testnet.adversaries import ADVERSARIES, Seat, find
from fallow.testnet.adversaries.customer import customer
from fallow.testnet.adversaries.deserter import SOON
from fallow.testnet.adversaries.double_spender import spend
from fallow.testnet.adversaries.non_payer import take
from fallow.testnet.adversaries.staller import STOPS_AFTER

from .many_faces import seed_of
from .small_mesh import BUNDLE, SmallMesh

pytestmark = pytest.mark.timeout(400)  # more than the bounds within one test

PROMPT = "Go on."


@pytest.fixture(scope="module")
def honest_text(small_mesh: SmallMesh, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the model gives, by the honest two."""

    async def ask() -> Answer:
        home = small_mesh.stranger(tmp_path_factory.mktemp("reader") / "home")
        async with connect(small_mesh.bootstrap, home=home) as mesh:
            first = [small_mesh.nodes["honest"].peer_id]
            return await mesh.generate(BUNDLE, PROMPT, max_tokens=80, assurance="none", executors=first)

    return trio.run(ask).text


async def ask(
    mesh: Mesh, small: SmallMesh, name: str, node: str = "faces", assurance: str = "quorum:2/3", tokens: int = 80
) -> Answer:
    """A text of the node while it is that adversary."""
    seed = seed_of(name) if name else 0
    first = [small.nodes[node].peer_id]
    return await mesh.generate(BUNDLE, PROMPT, max_tokens=tokens, seed=seed, assurance=assurance, executors=first)


def paid(answer: Answer | Rejected, node: str) -> int:
    return sum(receipt.paid_ucr for receipt in answer.receipts if receipt.executor == node)


def found_out(answer: Answer, node: str, role: str) -> None:
    """The verdict names it, it is due nothing for any token, and was paid nothing. (A job that its client cancels costs a
    least for its start, which a verdict leaves due; a client that was lied to does not pay it.)"""
    assert answer.verdict is not None and answer.verdict.outcome == "accepted"
    (finding,) = [finding for finding in answer.verdict.findings if peer_id(finding.node) == node]
    assert (finding.role, finding.agrees) == (role, False)
    assert all(receipt.tokens == 0 for receipt in answer.receipts if receipt.signed.id in finding.due_for)
    assert paid(answer, node) == 0


LIES = ["liar", "liar-drift", "liar-truncates", "free-rider", "sybil"]


@pytest.mark.parametrize("name", LIES)
async def test_who_lies_as_the_executor_is_named_and_unpaid_and_the_text_is_true(
    small_mesh: SmallMesh, honest_text: str, tmp_path: Path, name: str
) -> None:
    faces = small_mesh.nodes["faces"].peer_id
    with trio.fail_after(150):
        async with connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh:
            answer = await ask(mesh, small_mesh, name, tokens=60)  # who ends half-way ends its first window
            again = await ask(mesh, small_mesh, name, tokens=60)
    assert answer.text == again.text and honest_text.startswith(answer.text) and len(answer.tokens) == 60
    found_out(answer, faces, "executor")
    assert faces not in [receipt.executor for receipt in again.receipts]  # it is not dealt with any more
    if name == "sybil":  # the other node of its owner would have confirmed it, and was not asked about it
        claims = {receipt.signed.id for receipt in answer.receipts if receipt.executor == faces}
        attested = [signed for signed in answer.proof.records if isinstance(signed.record, Attestation)]
        about_it = [signed for signed in attested if signed.record.subject in claims]
        assert about_it
        assert small_mesh.nodes["quantiser"].peer_id not in [peer_id(signed.signer) for signed in about_it]


async def test_a_copied_answer_is_worth_nothing_to_the_next(
    small_mesh: SmallMesh, honest_text: str, tmp_path: Path
) -> None:
    faces = small_mesh.nodes["faces"].peer_id
    seed = seed_of("free-rider-copies")
    with trio.fail_after(150):
        async with connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh:
            first = await mesh.generate(BUNDLE, "Another one.", max_tokens=33, seed=seed, executors=[faces])
            answer = await ask(mesh, small_mesh, "free-rider-copies")
    assert paid(first, faces) > 0  # it computed that one
    assert answer.text == honest_text
    found_out(answer, faces, "executor")


async def test_rounded_weights_are_found_out(small_mesh: SmallMesh, honest_text: str, tmp_path: Path) -> None:
    with trio.fail_after(150):
        async with connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh:
            answer = await ask(mesh, small_mesh, "", "quantiser")
    assert answer.text == honest_text
    found_out(answer, small_mesh.nodes["quantiser"].peer_id, "executor")


async def test_who_checks_without_computing_is_named_and_unpaid(
    small_mesh: SmallMesh, honest_text: str, tmp_path: Path
) -> None:
    """Of all other owners one is asked each: of the hostile one, the free-rider or the quantiser."""
    hostile = {small_mesh.nodes[name].peer_id for name in ("faces", "quantiser")}
    with trio.fail_after(150):
        async with connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh:
            answer = await ask(mesh, small_mesh, "free-rider", "honest", "quorum:3/4", tokens=32)
    assert honest_text.startswith(answer.text)
    (checker,) = {receipt.executor for receipt in answer.receipts} & hostile
    found_out(answer, checker, "checker")
    assert paid(answer, small_mesh.nodes["honest"].peer_id) > 0


async def test_colluders_are_not_believed_where_they_are_no_majority(small_mesh: SmallMesh, tmp_path: Path) -> None:
    """Two owners of four confirm each other, and three have to agree: nothing is accepted, and nobody paid for the text.

    Where their number is enough (2 of 3 with both drawn), they win: quorums without anchors promise no more.
    """
    with trio.fail_after(150):
        async with connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh:
            with pytest.raises(Rejected) as caught:
                await ask(mesh, small_mesh, "colluder", assurance="quorum:3/4", tokens=32)
    assert caught.value.verdict.outcome != "accepted"
    assert paid(caught.value, small_mesh.nodes["faces"].peer_id) == 0
    stood_by_it = [finding for finding in caught.value.verdict.findings if finding.agrees]
    assert len({finding.owner for finding in stood_by_it}) < 3


async def test_who_breaks_off_costs_a_reader_time_and_no_word_and_takers_get_two_windows(
    small_mesh: SmallMesh, honest_text: str, tmp_path: Path
) -> None:
    """All at once: most of it is waiting for bounds of the protocol to pass."""
    faces, victim = small_mesh.nodes["faces"].peer_id, small_mesh.nodes["honest-too"]
    answers: dict[str, Answer] = {}

    async def suffer(mesh: Mesh, name: str) -> None:
        answers[name] = await ask(mesh, small_mesh, name)

    with trio.fail_after(150):
        async with (
            connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh,
            customer(mesh, BUNDLE) as taker,
            trio.open_nursery() as nursery,
        ):
            for name in ("denier", "denier-disowns", "staller"):
                nursery.start_soon(suffer, mesh, name)
            (taken,) = await take(taker, peer_key_untrusted(victim.peer_id))
    for name, answer in answers.items():
        assert answer.text == honest_text, name
        assert answer.verdict is not None and answer.verdict.outcome == "accepted"
        assert answer.handovers[0].from_node == faces, name
        assert paid(answer, faces) == 0
    assert "within the order's bound" in answers["staller"].handovers[0].reason
    assert taken.tokens == (UNPAID_RECEIPTS_MAX + 1) * WINDOW_TOKENS
    assert taken.stopped_by == Code.STREAM_CLOSED
    # A client that is kept from running for 750 ms beside all this has fallen silent before its voucher is due.
    why = " ".join(str(event.get("why")) for event in victim.log())
    assert "voucher for a receipt did not come" in why or "fell silent" in why


async def test_a_reader_of_an_unchecked_text_is_told_what_nobody_signed_for(
    small_mesh: SmallMesh, honest_text: str, tmp_path: Path
) -> None:
    """Another node goes on after the words of one that stopped: nobody vouches for these, and nobody is paid for them."""
    faces = small_mesh.nodes["faces"].peer_id
    with trio.fail_after(150):
        async with connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh:
            # Unchecked: the quantiser would go on with another text.
            mesh._team.desk.wallet.distrusted.add(peer_key_untrusted(small_mesh.nodes["quantiser"].peer_id))
            answer = await ask(mesh, small_mesh, "staller", assurance="none")
    (notice,) = answer.notices
    assert (answer.text, notice.code, notice.node, notice.tokens) == (honest_text, Code.UNSIGNED, faces, STOPS_AFTER)
    assert "within the order's bound" in notice.message
    assert 0 < answer.unpaid_ucr == notice.unpaid_ucr
    assert paid(answer, faces) == 0 and sum(receipt.tokens for receipt in answer.receipts) == 80 - STOPS_AFTER


async def test_who_sells_the_beginning_of_a_text_as_all_of_it_is_paid_for_that_alone(
    small_mesh: SmallMesh, honest_text: str, tmp_path: Path
) -> None:
    """By an end token that is not the model's: refuted. By its receipt alone: no text ends so."""
    faces = small_mesh.nodes["faces"].peer_id
    answers: dict[str, Answer] = {}
    with trio.fail_after(150):
        for name in ("closer", "liar-stops"):
            home = small_mesh.stranger(tmp_path / name)
            async with connect(small_mesh.bootstrap, home=home) as mesh:
                answers[name] = await ask(mesh, small_mesh, name, assurance="adaptive")
                again = await mesh.generate(BUNDLE, PROMPT, max_tokens=80, executors=[faces])  # it would be honest now
                fault = peer_key_untrusted(faces) in mesh._team.desk.wallet.distrusted
            assert answers[name].text == again.text == honest_text
            assert fault is (name == "liar-stops") is (faces not in [r.executor for r in again.receipts])
    handover = answers["closer"].handovers[0]
    assert (handover.from_node, handover.position) == (faces, WINDOW_TOKENS) and "before its end" in handover.reason
    for name, answer in answers.items():
        assert answer.verdict is not None and answer.verdict.outcome == "accepted"
        first, *last = [receipt for receipt in answer.receipts if receipt.executor == faces]
        assert (first.tokens, first.paid_ucr) == (WINDOW_TOKENS, first.amount_ucr), name
        assert [(each.tokens, each.paid_ucr) for each in last] == ([(1, 0)] if name == "liar-stops" else [])


@pytest.mark.parametrize(("name", "tokens"), [("deserter", SOON), ("deserter-at-once", 0)])
async def test_who_gives_work_back_at_will_is_paid_for_what_it_did_and_comes_last_from_then_on(
    small_mesh: SmallMesh, honest_text: str, tmp_path: Path, name: str, tokens: int
) -> None:
    faces = small_mesh.nodes["faces"]
    key = peer_key_untrusted(faces.peer_id)
    with trio.fail_after(150):
        async with connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh:
            answer = await ask(mesh, small_mesh, name)
            team = mesh._team
            met = team.desk.book.get(key)
            weight, _ = team.experience.failures[key]  # of when it left: it is halved every five minutes
    assert answer.text == honest_text and key not in team.desk.wallet.distrusted
    left = [each.position for each in answer.handovers if each.from_node == faces.peer_id]  # others may fall silent
    assert left == [tokens]
    (order,) = [
        signed.record
        for signed in answer.proof.records
        if isinstance(signed.record, JobOrder) and (signed.record.executor, signed.record.entry) == (key, GENERATE)
    ]
    used = Usage(1, order.input_tokens, output_tokens=tokens)
    due_ucr = amount_ucr(order.price, used, planned_tokens=80, end=YIELDED)
    assert paid(answer, faces.peer_id) == due_ucr and (due_ucr > 0) is (tokens > 0)
    assert met is not None and met.jobs_failed
    assert weight >= 1 - tokens / 80


async def test_a_promise_is_spent_once(small_mesh: SmallMesh, tmp_path: Path) -> None:
    victim = small_mesh.nodes["honest-too"]
    home = small_mesh.stranger(tmp_path / "home")
    with trio.fail_after(150):
        async with connect(small_mesh.bootstrap, home=home) as mesh, customer(mesh, BUNDLE) as spender:
            outcomes = await spend(spender, peer_key_untrusted(victim.peer_id))
            payer = spender.desk.wallet.payer
    assert {outcome.trick: outcome.stopped_by for outcome in outcomes} == {
        "again": Code.STREAM_CLOSED, "takes-back": Code.STREAM_CLOSED, "elsewhere": Code.WRONG_EXECUTOR,
    }  # fmt: skip
    why = " ".join(str(event.get("why")) for event in victim.log())
    assert "does not cover the receipt" in why and "contradicts another one" in why
    earned = [row for row in earnings(victim.state) if row.payer == payer]
    assert sum(row.paid_ucr for row in earned) == sum(outcome.paid_ucr for outcome in outcomes)
    with closing(sqlite3.connect(f"file:{victim.state / JOURNAL}?mode=ro", uri=True)) as journal:
        kept = journal.execute(
            "SELECT c.envelope, v.envelope FROM contradictions c JOIN vouchers v USING (channel)"
        ).fetchall()
    proven = [prove([verify_untrusted(Voucher, each, signer=payer) for each in pair]) for pair in kept]
    assert any(each is not None and (each.fault, each.accused) == (Fault.RETRACTION, payer) for each in proven)


async def distrusts(mesh: Mesh, node: str) -> bool:
    return any(seen.distrusted for seen in await mesh.nodes(BUNDLE) if seen.peer_id == node)


async def test_two_receipts_for_one_window_are_shown_to_all_and_nobody_deals_with_their_author(
    small_mesh: SmallMesh, honest_text: str, tmp_path: Path
) -> None:
    """Neither who got them, nor who only heard of them: by way of a node, as the two have never met."""
    faces, home, heard = small_mesh.nodes["faces"].peer_id, tmp_path / "home", tmp_path / "heard"
    name = f"equivocation-{peer_key_untrusted(faces).hex()}.cose"
    files = [each / FAULTS / name for each in (home, heard, small_mesh.nodes["honest"].state)]
    with trio.fail_after(150):
        async with (
            connect(small_mesh.bootstrap, home=small_mesh.stranger(home)) as mesh,
            connect(small_mesh.bootstrap, home=small_mesh.stranger(heard)) as other,
        ):
            assert faces in [node.peer_id for node in await other.nodes(BUNDLE)]
            answer = await ask(mesh, small_mesh, "equivocator")
            while not (all(map(Path.exists, files)) and await distrusts(other, faces)):  # noqa: ASYNC110 - in its own time
                await trio.sleep(0.05)
            other_answer = await ask(other, small_mesh, "")
    assert answer.text == honest_text == other_answer.text
    assert answer.handovers[0].from_node == faces and "may sign one" in answer.handovers[0].reason
    windows = [receipt for receipt in answer.receipts if receipt.executor == faces]
    assert [window.tokens for window in windows] == [WINDOW_TOKENS]  # what it did, once
    assert faces not in [receipt.executor for receipt in other_answer.receipts]
    assert all(verify([file]) == 0 for file in files)
    with trio.fail_after(150):
        async with connect(small_mesh.bootstrap, home=heard) as later:  # it has not forgotten
            assert faces not in [receipt.executor for receipt in (await ask(later, small_mesh, "")).receipts]


def test_each_adversary_is_there_by_its_name() -> None:
    for name, adversary in ADVERSARIES.items():
        module = import_module(f"fallow.testnet.adversaries.{adversary.module}")
        modes = getattr(module, "MODES", None) or getattr(module, "ROUNDINGS", {"": None})
        assert adversary.mode in modes, name
        assert find(name) is adversary
        assert ("worker_command" in adversary.settings()) is (adversary.seat is Seat.WORKER)
        assert adversary.command()[:3] == [sys.executable, "-P", "-m"]
    with pytest.raises(ConfigError, match="non-payer"):
        find("nobody")

"""Each adversary against a small real mesh: it is caught by the rule that is said to stop it, nobody is paid wrongly, and
the job still ends. One mesh for all: starting a node takes longer than an attack.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import trio

from fallow.client import Answer, Rejected, connect
from fallow.client.execution import Broken, execute
from fallow.client.mesh import Mesh
from fallow.node import store
from fallow.protocol.checks import Attestation
from fallow.protocol.envelope import Signed, verify_untrusted
from fallow.protocol.errors import Code, ConfigError
from fallow.protocol.evidence import Fault, prove
from fallow.protocol.identity import peer_id, peer_key_untrusted
from fallow.protocol.job import UNPAID_RECEIPTS_MAX
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.messages import ReceiptMessage, decode_message_untrusted
from fallow.protocol.payment import Voucher
from fallow.protocol.receipts import Receipt
from fallow.testnet.adversaries import ADVERSARIES, Seat, find
from fallow.testnet.adversaries.customer import customer
from fallow.testnet.adversaries.double_spender import spend
from fallow.testnet.adversaries.non_payer import take

from .many_faces import seed_of
from .small_mesh import BUNDLE, SmallMesh

pytestmark = pytest.mark.timeout(400)  # the first one starts five nodes, perhaps beside other tests

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
    with trio.fail_after(60):
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
    with trio.fail_after(60):
        async with connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh:
            first = await mesh.generate(BUNDLE, "Another one.", max_tokens=33, seed=seed, executors=[faces])
            answer = await ask(mesh, small_mesh, "free-rider-copies")
    assert paid(first, faces) > 0  # it computed that one
    assert answer.text == honest_text
    found_out(answer, faces, "executor")


async def test_rounded_weights_are_found_out(small_mesh: SmallMesh, honest_text: str, tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh:
            answer = await ask(mesh, small_mesh, "", "quantiser")
    assert answer.text == honest_text
    found_out(answer, small_mesh.nodes["quantiser"].peer_id, "executor")


async def test_who_checks_without_computing_is_named_and_unpaid(
    small_mesh: SmallMesh, honest_text: str, tmp_path: Path
) -> None:
    """Of all other owners one is asked each: of the hostile one, the free-rider or the quantiser."""
    hostile = {small_mesh.nodes[name].peer_id for name in ("faces", "quantiser")}
    with trio.fail_after(60):
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
    with trio.fail_after(60):
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

    with trio.fail_after(90):
        async with (
            connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh,
            customer(mesh, BUNDLE) as taker,
            trio.open_nursery() as nursery,
        ):
            for name in ("equivocator", "denier", "denier-disowns", "staller"):
                nursery.start_soon(suffer, mesh, name)
            (taken,) = await take(taker, peer_key_untrusted(victim.peer_id))
    for name, answer in answers.items():
        assert answer.text == honest_text, name
        assert answer.verdict is not None and answer.verdict.outcome == "accepted"
        assert answer.handovers[0].from_node == faces, name
        assert paid(answer, faces) == 0 or name == "equivocator"
    windows = [r for r in answers["equivocator"].receipts if r.executor == faces]
    assert [w.tokens for w in windows] == [WINDOW_TOKENS]  # what it did, once
    assert "within the order's bound" in answers["staller"].handovers[0].reason
    assert taken.tokens == (UNPAID_RECEIPTS_MAX + 1) * WINDOW_TOKENS
    assert taken.stopped_by == Code.STREAM_CLOSED
    # A client that is kept from running for 750 ms beside all this has fallen silent before its voucher is due.
    why = " ".join(str(event.get("why")) for event in victim.log())
    assert "voucher for a receipt did not come" in why or "fell silent" in why


async def test_a_promise_is_spent_once(small_mesh: SmallMesh, tmp_path: Path) -> None:
    victim = small_mesh.nodes["honest-too"]
    home = small_mesh.stranger(tmp_path / "home")
    with trio.fail_after(60):
        async with connect(small_mesh.bootstrap, home=home) as mesh, customer(mesh, BUNDLE) as spender:
            outcomes = await spend(spender, peer_key_untrusted(victim.peer_id))
            payer = spender.desk.wallet.payer
    assert {outcome.trick: outcome.stopped_by for outcome in outcomes} == {
        "again": Code.STREAM_CLOSED, "takes-back": Code.STREAM_CLOSED, "elsewhere": Code.WRONG_EXECUTOR,
    }  # fmt: skip
    why = " ".join(str(event.get("why")) for event in victim.log())
    assert "does not cover the receipt" in why and "contradicts another one" in why
    earned = [row for row in store.earnings(victim.state) if row.payer == payer]
    assert sum(row.paid_ucr for row in earned) == sum(outcome.paid_ucr for outcome in outcomes)
    with closing(sqlite3.connect(f"file:{victim.state / store.JOURNAL}?mode=ro", uri=True)) as journal:
        kept = journal.execute(
            "SELECT c.envelope, v.envelope FROM contradictions c JOIN vouchers v USING (channel)"
        ).fetchall()
    proven = [prove([verify_untrusted(Voucher, each, signer=payer) for each in pair]) for pair in kept]
    assert any(each is not None and (each.fault, each.accused) == (Fault.RETRACTION, payer) for each in proven)


async def test_two_receipts_for_one_window_prove_it_to_anybody(small_mesh: SmallMesh, tmp_path: Path) -> None:
    node = peer_key_untrusted(small_mesh.nodes["faces"].peer_id)
    heard: list[Signed[Receipt]] = []
    with trio.fail_after(30):
        async with (
            connect(small_mesh.bootstrap, home=small_mesh.stranger(tmp_path / "home")) as mesh,
            customer(mesh, BUNDLE) as buyer,
        ):
            seller, request = await buyer.node(wanted=node), buyer.request(40)
            request = replace(request, parameters=replace(request.parameters, seed=seed_of("equivocator")))
            async with execute(buyer.desk, seller, request) as execution:
                receive = execution.stream.receive

                async def hear() -> bytes:
                    frame: bytes = await receive()
                    if isinstance(message := decode_message_untrusted(frame), ReceiptMessage):
                        heard.append(verify_untrusted(Receipt, message.receipt, signer=node))
                    return frame

                execution.stream.receive = hear  # type: ignore[method-assign]  # it listens, and changes nothing
                async for event in execution.events:
                    if isinstance(event, Broken):
                        break
    proven = prove(heard[:2])
    assert proven is not None and (proven.fault, proven.accused) == (Fault.EQUIVOCATION, node)


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

"""The five points of the demonstration. Each shows something, checks that it is so, and returns what it found."""

from __future__ import annotations

import json
import math
import sys
from itertools import pairwise

import trio

from ..client import Answer, Embeddings
from ..node.earnings import earnings
from ..protocol.bundle import GENERATE
from ..protocol.checks import Outcome, Standing, Verdict
from ..protocol.identity import peer_id, peer_key_untrusted
from ..protocol.orders import JobOrder
from .demo_money import Payouts, balanced
from .demo_stage import Stage

QUORUM = "quorum:2/3"
MARGIN_NATS = 0.01
"""Honest machines differ by less than 1e-4 in a logit, so no word with this margin can come out differently."""
SAME_COSINE = 0.9999
LIAR_ASKED_MAX = 3
SETTLE_S = 10.0
"""For the last voucher to be in the journal of the node that it was sent to."""


async def chat(stage: Stage) -> tuple[str, str]:
    """1: text and outcome of an answer that streams in while others check it."""
    script, screen = stage.script, stage.screen
    screen.point(1, f"A chat answer from {script.chat}, checked by two other owners while it streams ({QUORUM})")
    screen.question(script.question)
    stream = stage.reader.stream(script.chat, script.question, max_tokens=script.question_tokens, assurance=QUORUM)
    with screen.text(stage.testnet.nodes) as show:
        async for chunk in stream:
            show(chunk)
    answer = stream.answer
    answer.save(stage.receipts, openings=True)
    outcome = _outcome(answer)
    screen.verdict(answer.verdict, stage.testnet.nodes)
    screen.receipts(answer.receipts, stage.testnet.nodes)
    stage.note(answer.receipts)
    stage.check("the verdict on the answer is: accepted", outcome == Outcome.ACCEPTED)
    return answer.text, outcome


async def embeddings(stage: Stage) -> bool:
    """2: the liar, put among the executors, was caught and not paid, and the right vectors came out."""
    script, screen, liar = stage.script, stage.screen, stage.liar.peer_id
    screen.point(2, f"Embeddings from {script.embed} under {QUORUM}, a liar among the three executors")
    vectors = await _with_the_liars(stage)
    alone = await stage.reader.embed(
        script.embed, script.texts, assurance="none", executors=[stage.testnet.nodes[0].peer_id]
    )
    vectors.save(stage.receipts, openings=True)
    screen.verdict(vectors.verdict, stage.testnet.nodes)
    screen.similarities(script.texts, [_cosine(vectors[0], vector) for vector in vectors])
    distrusted = {node.peer_id for node in await stage.stranger.nodes(script.embed) if node.distrusted}
    caught = stage.check(
        "the liar is outvoted, named in the verdict, not paid and not asked again",
        _named(vectors, liar) and liar in distrusted and not await _asked_again(stage),
    )
    right = stage.check(
        "the vectors are those that an honest node computes alone",
        all(_cosine(one, other) >= SAME_COSINE for one, other in zip(vectors, alone, strict=True)),
    )
    return caught and right


async def handover(stage: Stage) -> tuple[int, bool]:
    """3: (the gap that the reader saw in ms, whether the text is that of an uninterrupted run)."""
    script, screen, testnet = stage.script, stage.screen, stage.testnet
    screen.point(3, "The vehicle that is answering drives off in mid-sentence")
    stayed = await stage.reader.generate(
        script.chat,
        script.steady,
        max_tokens=script.steady_tokens,
        assurance=QUORUM,
        executors=[testnet.nodes[0].peer_id],
    )
    stage.note(stayed.receipts)
    margin = least_margin(_values(stayed))
    stage.check(f"no word of this answer hangs by less than {MARGIN_NATS} nats", margin >= MARGIN_NATS)

    screen.question(script.steady[-1].content)
    # Unchecked, so that nothing competes with the one who goes on, and compared with the checked text afterwards.
    stream = stage.reader.stream(
        script.chat,
        script.steady,
        max_tokens=script.steady_tokens,
        assurance="none",
        executors=[node.peer_id for node in stage.vehicles],
    )
    arrivals: list[tuple[float, str]] = []
    with screen.text(testnet.nodes) as show:
        async with trio.open_nursery() as nursery:
            async for chunk in stream:
                arrivals.append((trio.current_time(), chunk.executor))
                show(chunk)
                if len(arrivals) == script.drive_after:
                    nursery.start_soon(testnet.drive, testnet.node(chunk.executor))
    stream.answer.save(stage.receipts, openings=True)
    gap_ms = _gap_ms(arrivals)
    screen.handovers(stream.answer.handovers, testnet.nodes, gap_ms)
    began = testnet.node(arrivals[0][1])
    stage.check("a vehicle began, another node went on", began.kind == "vehicle" and arrivals[-1][1] != began.peer_id)
    equal = stage.check("the text equals that of an uninterrupted run", stream.answer.text == stayed.text)
    return gap_ms, equal


async def bootstrap_loss(stage: Stage) -> bool:
    """4: a job completed after the node by which all others had joined was killed."""
    script, screen, testnet = stage.script, stage.screen, stage.testnet
    screen.point(4, "The bootstrap node is killed")
    # A node that is killed loses what it had not yet written down: that is its loss, but point 5 compares the books.
    await balanced(testnet, SETTLE_S, stage.reader, stage.stranger)
    await testnet.kill(testnet.nodes[0])
    screen.question(script.later)
    stream = stage.reader.stream(script.chat, script.later, max_tokens=script.later_tokens, assurance=QUORUM)
    with screen.text(testnet.nodes) as show:
        async for chunk in stream:
            show(chunk)
    stage.note(stream.answer.receipts)
    stream.answer.save(stage.receipts, openings=True)
    return stage.check(
        "a further job is done, and its answer accepted",
        not testnet.nodes[0].process.running and _outcome(stream.answer) == Outcome.ACCEPTED,
    )


async def payouts(stage: Stage) -> Payouts:
    """5: what each owner earned, against the vouchers; a receipt checked offline, whole and with one bit flipped."""
    screen = stage.screen
    screen.point(5, "Who earned what, by the nodes' journals and by the vouchers that were signed")
    books = await balanced(stage.testnet, SETTLE_S, stage.reader, stage.stranger)
    screen.payouts(stage.testnet.nodes, books)
    stage.check("the payouts add up to the vouchers, owner by owner", books.balanced and books.total_ucr > 0)
    earned_ucr = books.earned_ucr.get(stage.liar.owner, 0)
    stage.check("the liar's owner got nothing for its lies", earned_ucr == stage.unheard_ucr)

    receipt = next(iter(sorted(stage.receipts.glob("*-receipt-*.cose"))))
    flipped = stage.receipts.parent / "one-bit-flipped.cose"
    envelope = bytearray(receipt.read_bytes())
    envelope[len(envelope) // 2] ^= 1
    flipped.write_bytes(envelope)
    whole, broken = await _verifies(stage, str(receipt)), await _verifies(stage, str(flipped))
    stage.check("offline, the receipt is valid, and a copy with one bit flipped is not", whole and not broken)
    stage.check("every verdict, recomputed from the records beside it, is the same", await _recomputed(stage))
    return books


def least_margin(values_micro: list[int]) -> float:
    """Nats by which each token's logit lies above any other's, at least: with probability p, ln(p / (1 - p)).

    All others together have 1 - p, so the next one has no more. Where p is below one half this is negative, and says
    nothing.
    """
    likelihoods = [min(math.exp(value / 1e6), 1 - 1e-9) for value in values_micro]
    return min((math.log(p) - math.log1p(-p) for p in likelihoods), default=-math.inf)


async def _verifies(stage: Stage, path: str) -> bool:
    command = [sys.executable, "-P", "-m", "fallow.cli", "verify", path]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    stage.screen.said(f"fallow verify {path}", (done.stdout or done.stderr).decode())
    return done.returncode == 0


async def _recomputed(stage: Stage) -> bool:
    """Whether anybody who has the folder comes to the verdicts in it."""
    command = [sys.executable, "-P", "-m", "fallow.cli", "verify", "--json", str(stage.receipts)]
    done = await trio.run_process(command, capture_stdout=True, check=False)
    files = json.loads(done.stdout)["files"]
    verdicts = [file["borne_out"] for file in files if file.get("record") == Verdict.RECORD]
    return done.returncode == 0 and bool(verdicts) and all(word.startswith("recomputed") for word in verdicts)


def _outcome(answer: Answer) -> str:
    return answer.verdict.outcome if answer.verdict else "none"


async def _with_the_liars(stage: Stage) -> Embeddings:
    """Vectors for which the liar gave its own: two who agree wait little for a third, and where one machine runs them all
    it may come too late. Then it has neither lied nor earned, and is asked once more.
    """
    liar = peer_key_untrusted(stage.liar.peer_id)
    for _ in range(LIAR_ASKED_MAX):
        vectors = await stage.stranger.embed(
            stage.script.embed, stage.script.texts, assurance=QUORUM, executors=[stage.liar.peer_id]
        )
        stage.note(vectors.receipts)
        findings = vectors.verdict.findings if vectors.verdict else ()
        if any(found.node == liar and found.standing != Standing.SILENT for found in findings):
            break
    return vectors


def _named(vectors: Embeddings, liar: str) -> bool:
    """The verdict stands, and finds the liar's result at fault and worth nothing; nor was it paid."""
    if vectors.verdict is None or vectors.verdict.outcome != Outcome.ACCEPTED:
        return False
    findings = [finding for finding in vectors.verdict.findings if peer_id(finding.node) == liar]
    paid = sum(receipt.paid_ucr for receipt in vectors.receipts if receipt.executor == liar)
    return bool(findings) and not any(finding.agrees or finding.due_ucr for finding in findings) and paid == 0


async def _asked_again(stage: Stage) -> bool:
    """Whether the liar gets work from the client that caught it, named first: by our orders, and by its own journal."""
    before = await trio.to_thread.run_sync(earnings, stage.liar.folder)
    vectors = await stage.stranger.embed(
        stage.script.embed, stage.script.texts, assurance=QUORUM, executors=[stage.liar.peer_id]
    )
    after = await trio.to_thread.run_sync(earnings, stage.liar.folder)
    orders = [signed.record for signed in vectors.proof.records if isinstance(signed.record, JobOrder)]
    return len(after) != len(before) or stage.liar.peer_id in {peer_id(order.executor) for order in orders}


def _values(answer: Answer) -> list[int]:
    """The proof value of each token, in micro-nats."""
    written = [receipt.signed.record for receipt in answer.receipts if receipt.entry == GENERATE]
    return [value for record in written for value in record.values_micro]


def _gap_ms(arrivals: list[tuple[float, str]]) -> int:
    """Between the last chunk of the first executor and the next one; 0 if there was only one."""
    changes = [after - before for (before, one), (after, other) in pairwise(arrivals) if one != other]
    return round(changes[0] * 1000) if changes else 0


def _cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    dot = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(math.fsum(a * a for a in one) * math.fsum(b * b for b in other))

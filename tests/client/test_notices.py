"""A text that nobody checks, of which no receipt covers a part: its user is told, and the node is not paid for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from fallow.client import Answer
from fallow.client.auditing import Auditor
from fallow.client.desk import Desk
from fallow.client.discovery import Discovery
from fallow.client.draft import TextRequest
from fallow.client.history import History
from fallow.client.late import Late
from fallow.client.nodes import Node
from fallow.client.scheduler import Experience
from fallow.client.spotting import Spots
from fallow.client.team import Team
from fallow.client.text import TextJob
from fallow.node.book import Book, Profile
from fallow.node.log import wall_ms
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Code
from fallow.protocol.identity import peer_id
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.messages.jobs import FailedMessage
from fallow.protocol.policy import Policy
from fallow.protocol.receipts import FINAL, OPEN
from fallow.protocol.work import Parameters, Piece

from .test_draft import END, Letters
from .test_hostile_executor import BUNDLE, MANIFEST, PLANNED, Crime, Executor, ordered

CALL_UCR, INPUT_UCR, TOKEN_UCR = 10, 1, 2
"""As `PRICES` has them; the prompt has one token."""


async def write(executor: Executor, count: int, start: int = 0, *, ends: bool = True) -> None:
    """So many tokens, the last of which ends the text."""
    for number in range(start, start + count):
        token = END if ends and number == start + count - 1 else 1
        await executor.deliver(Piece(tokens=(token,), values_micro=(-1,)), number)


async def honest(executor: Executor) -> None:
    await executor.accept()
    await write(executor, 5)
    await executor.receipt(FINAL)


async def signed_as_unfinished(executor: Executor) -> None:
    """The receipt is what was delivered, and is refused for its end."""
    await executor.accept()
    await write(executor, WINDOW_TOKENS)
    await executor.receipt(OPEN)


async def asks_for_more(executor: Executor) -> None:
    await executor.accept()
    await write(executor, 5)
    await executor.receipt(FINAL, amount_ucr=1_000)


async def asks_for_more_at_the_end(executor: Executor) -> None:
    """What it has signed for by then is paid."""
    await executor.accept()
    await write(executor, WINDOW_TOKENS, ends=False)
    await executor.receipt(OPEN)
    await write(executor, PLANNED - WINDOW_TOKENS, WINDOW_TOKENS, ends=False)
    await executor.receipt(FINAL, amount_ucr=1_000)


async def breaks_down(executor: Executor) -> None:
    await executor.accept()
    await write(executor, 5)
    await executor.say(FailedMessage(str(Code.WORKER_DIED), "it died"))


def started(tokens: int, end: str) -> int:
    """What so many tokens come to, by the price."""
    start = CALL_UCR + INPUT_UCR
    return (start if end == FINAL else start * tokens // PLANNED) + TOKEN_UCR * tokens


async def answer_of(desk: Desk, node: Node, policy: str = "none") -> Answer:
    """The text that this node alone can write."""
    manifest = replace(MANIFEST, end_tokens=(END,))
    bundle = SimpleNamespace(manifest=manifest, tokenizer=Letters(), signed=sign(manifest, desk.key), hash=BUNDLE)
    asked = TextRequest(cast(Any, bundle), (1,), Parameters(max_tokens=PLANNED), (), Policy.parse(policy), 10**6, ())
    async with trio.open_nursery() as nursery:
        discovery = Discovery(desk.network, wall_ms, nursery, desk.book)
        discovery.nodes[node.key] = replace(node, asked_at=trio.current_time())
        desk.book.answered(node.key, node.addresses, [BUNDLE], 1000, Profile(b"", b"", b""))
        auditor = Auditor(desk, History())
        late, spots = Late(auditor.history), Spots(auditor, Random(1))
        team = Team(desk, discovery, Experience(), Random(1), auditor, spots, late)
        answer = await TextJob(team, asked, lambda _: None).run()
        nursery.cancel_scope.cancel()
    return answer


def jobs(book: Book, node: Node) -> tuple[int, int]:
    met = book.get(node.key)
    assert met is not None
    return met.jobs_done, met.jobs_failed


async def test_of_an_honest_node_s_text_there_is_nothing_to_be_told(tmp_path: Path) -> None:
    async with ordered(tmp_path, honest) as (desk, node):
        answer = await answer_of(desk, node)
    assert (answer.notices, answer.unpaid_ucr) == ((), 0)
    assert [receipt.paid_ucr for receipt in answer.receipts] == [started(5, FINAL)]
    assert jobs(desk.book, node) == (1, 0)


@pytest.mark.parametrize(
    ("crime", "tokens", "why", "paid_ucr", "claimed_ucr"),
    [
        (signed_as_unfinished, WINDOW_TOKENS, "signed as unfinished", 0, started(WINDOW_TOKENS, OPEN)),
        (asks_for_more, 5, "amount_ucr does not match", 0, 0),
        (asks_for_more_at_the_end, 8, "amount_ucr does not match", started(WINDOW_TOKENS, OPEN), 0),
        (breaks_down, 5, "it died", 0, 0),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_what_no_receipt_covers_is_told_and_not_paid(
    tmp_path: Path, crime: Crime, tokens: int, why: str, paid_ucr: int, claimed_ucr: int
) -> None:
    async with ordered(tmp_path, crime) as (desk, node):
        answer = await answer_of(desk, node)
        owed = desk.wallet.owed_by_owner()
    (notice,) = answer.notices
    assert (notice.code, notice.node, notice.tokens) == (Code.UNSIGNED, peer_id(node.key), tokens)
    assert why in notice.message and f"{notice.unpaid_ucr} ucr" in notice.message
    assert answer.unpaid_ucr == notice.unpaid_ucr == started(len(answer.tokens), FINAL) - paid_ucr
    assert sum(receipt.paid_ucr for receipt in answer.receipts) == paid_ucr == owed.get(node.owner, 0)
    assert [r.amount_ucr for r in answer.receipts if not r.paid_ucr] == ([claimed_ucr] if claimed_ucr else [])
    assert jobs(desk.book, node) == (0, 1), "the node's history has it"

"""What may count as verified while a text goes on: what somebody signed for, and no more. And what is drawn at its end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from fallow.client.auditing import Auditor
from fallow.client.dossier import Dossier
from fallow.client.draft import TextRequest
from fallow.client.events import Delivered, Receipted
from fallow.client.execution import execute
from fallow.client.history import History
from fallow.client.judging import Attempt, Judge
from fallow.client.text import TextJob
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Code, Refused
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.policy import Policy
from fallow.protocol.receipts import FINAL, OPEN, YIELDED
from fallow.protocol.work import Parameters, Piece

from .test_draft import END, Letters, draft, write
from .test_hostile_executor import MANIFEST, PLANNED, Crime, Executor, ordered, request


async def nothing(executor: Executor) -> None:
    await executor.accept()
    await executor.receipt("yielded")


@pytest.mark.parametrize(("policy", "verified"), [("adaptive:20000", 2), ("quorum:2/3", 2), ("none", 5)])
async def test_who_writes_nothing_does_not_vouch_for_what_nobody_signed(
    tmp_path: Path, policy: str, verified: int
) -> None:
    text = draft()
    write(text, "abcde")
    text.verified = 2  # whoever wrote the rest left before it signed
    async with ordered(tmp_path, nothing) as (desk, node), trio.open_nursery() as nursery:
        dossier = Dossier(sign(MANIFEST, desk.key), Policy.parse(policy))
        judge = Judge(cast(Any, None), cast(Any, None), text, dossier, lambda _: None)
        nursery.start_soon(judge.run)
        attempt = Attempt(node, len(text.tokens), dossier)
        async with execute(desk, node, request("generate")) as execution:
            attempt.execution = execution
            async for event in execution.events:
                if isinstance(event, Receipted):
                    judge.submit(attempt, event)
                    break
            await judge.idle()
        nursery.cancel_scope.cancel()
    assert attempt.unjudged == 0
    assert text.verified == verified
    assert judge.last_receipt is None, "nobody goes on after what covers nothing"


def ending(after: int, *ends: str) -> Crime:
    """It writes so many tokens, the last of which ends the text, and signs for them with these receipts."""

    async def crime(executor: Executor) -> None:
        await executor.accept()
        for number in range(after):
            token = END if number == after - 1 else 1
            await executor.deliver(Piece(tokens=(token,), values_micro=(-1,)), number)
        for end in ends:
            await executor.receipt(end)

    return crime


@dataclass
class Told(Auditor):
    """It says what its rates were asked for."""

    asked: list[int] = field(default_factory=list)

    def rate_ppm(self, *asked: Any) -> int:
        self.asked.append(asked[-1])
        return super().rate_ppm(*asked)


@pytest.mark.parametrize("after", [1, 5, WINDOW_TOKENS])
@pytest.mark.parametrize("end", [FINAL, YIELDED])
async def test_a_text_that_ends_is_drawn_by_what_it_leaves_unwritten_whatever_its_receipt_calls_it(
    tmp_path: Path, after: int, end: str
) -> None:
    text = draft(PLANNED)
    async with ordered(tmp_path, ending(after, end)) as (desk, node):
        auditor = Told(desk, History())
        dossier = Dossier(sign(MANIFEST, desk.key), Policy.parse("adaptive:20000"))
        judge = Judge(cast(Any, SimpleNamespace(auditor=auditor)), cast(Any, None), text, dossier, lambda _: None)
        attempt = Attempt(node, 0, dossier)
        async with execute(desk, node, request("generate")) as execution:
            attempt.execution = execution
            async for event in execution.events:
                if isinstance(event, Delivered):
                    text.add(event.piece.tokens, event.piece.values_micro)
                if isinstance(event, Receipted):
                    judge._wanted(attempt, event)
                    break
    assert auditor.asked == [PLANNED - after]


@pytest.mark.spec("J-25")
async def test_a_text_that_has_ended_is_not_signed_as_unfinished(tmp_path: Path) -> None:
    """Else a receipt for no token would follow as the final one, which nobody looks at."""
    manifest = replace(MANIFEST, end_tokens=(END,))
    async with ordered(tmp_path, ending(WINDOW_TOKENS, OPEN, FINAL)) as (desk, node):
        bundle = SimpleNamespace(
            manifest=manifest, tokenizer=Letters(), signed=sign(manifest, desk.key), hash=bytes(32)
        )
        asked = TextRequest(
            cast(Any, bundle), (1,), Parameters(max_tokens=PLANNED), (), Policy.parse("none"), 10**6, ()
        )
        job = TextJob(cast(Any, SimpleNamespace(auditor=Auditor(desk, History()))), asked, lambda _: None)
        attempt = Attempt(node, 0, job._dossier)
        async with execute(desk, node, request("generate")) as execution:
            attempt.execution = execution
            with pytest.raises(Refused) as refused:
                await job._follow(attempt)
    assert refused.value.code is Code.ILLEGAL_MOVE
    assert attempt.unjudged == 0 and execution.paid_on_stream is None


class BreaksOff(Judge):
    """Nobody is there for a look back."""

    async def _look_back(self, owner: bytes) -> None:
        raise Refused(Code.NO_EXECUTOR, "Nobody is there.")


async def test_who_could_not_be_looked_back_at_now_is_looked_back_at_later() -> None:
    suspects: list[bytes] = []
    team = SimpleNamespace(late=SimpleNamespace(suspect=suspects.append))
    judge = BreaksOff(cast(Any, team), cast(Any, None), draft(), cast(Any, None), lambda _: None)
    judge._doubted = [bytes(32), b"\1" * 32]
    with pytest.raises(Refused):
        await judge._look_back_at_doubted(cast(Any, None))
    assert suspects == [bytes(32), b"\1" * 32]

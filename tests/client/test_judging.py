"""What may count as verified while a text goes on: what somebody signed for, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import trio

from fallow.client.dossier import Dossier
from fallow.client.execution import Receipted, execute
from fallow.client.judging import Attempt, Judge
from fallow.protocol.envelope import sign
from fallow.protocol.policy import Policy

from .test_draft import draft, write
from .test_hostile_executor import MANIFEST, Executor, ordered, request


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

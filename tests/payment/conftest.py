"""A client and a node in one process, on two ends of a stream in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from fallow.client.desk import Desk
from fallow.client.events import Broken, Receipted
from fallow.client.execution import execute
from fallow.client.wallet import Wallet
from fallow.protocol.errors import FallowError

from .pair import CLIENT, SEEN, House, Line, desk_of, request_of


@dataclass
class Town:
    """One node and one client, and the money between them."""

    house: House
    wallet: Wallet
    desk: Desk

    async def job(self, tokens: int = 40) -> int:
        """What a job came to that was paid to its end. Raises the `FallowError` that ended it before."""
        paid = 0
        async with execute(self.desk, SEEN, request_of(tokens)) as execution:
            async for event in execution.events:
                if isinstance(event, Receipted):
                    await execution.pay(event)
                    paid += event.added_ucr
                    if event.receipt.record.end != "open":
                        return paid
                if isinstance(event, Broken):
                    raise event.error
        raise AssertionError("a job ends by a final receipt, or by what broke it")

    async def refusal(self, tokens: int = 40) -> FallowError:
        """Why the job was not run."""
        with pytest.raises(FallowError) as caught:
            await self.job(tokens)
        return caught.value


@pytest.fixture
async def town(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Town]:
    house, wallet = House(tmp_path / "node"), Wallet(tmp_path / "wallet.db", CLIENT)

    async def dial() -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        nursery.start_soon(house.serve, theirs)
        await trio.lowlevel.checkpoint()
        return ours

    yield Town(house, wallet, desk_of(wallet, Line(dial)))
    wallet.close()
    house.journal.close()

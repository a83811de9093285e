"""A node stops work at the edge of what it lends, says so by a code, and goes on when it is paid."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fallow.node.debts import debts
from fallow.node.log import wall_ms
from fallow.node.paid import Payment
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.holding import Held

from .conftest import Town
from .pair import CLIENT, CLIENT_KEY, NODE_KEY, OWNER_KEY, SERVED, House

WHO = (NODE_KEY, OWNER_KEY)
JOB_UCR = 3 + 40 * 4


def narrow(house: House, jobs: int) -> None:
    """All strangers together get so many jobs a day."""
    assert house.executor.offer is not None
    day_ucr = house.executor.offer.strangers_ucr * 1_000_000 // house.executor.offer.strangers_ppm
    house.executor.offer = replace(house.executor.offer, strangers_ppm=-(-jobs * JOB_UCR * 1_000_000 // day_ucr))


def payment(number: int, ucr: int) -> Payment:
    return Payment(bytes([number]) * 32, CLIENT_KEY, "bank", ucr, 0, f"statement {number}", wall_ms())


@pytest.mark.spec("P-25", "P-26")
async def test_a_stranger_gets_its_share_and_what_it_pays_for(town: Town) -> None:
    narrow(town.house, 2)
    assert [await town.job() for _ in range(2)] == [JOB_UCR, JOB_UCR]
    refused = await town.refusal()
    assert refused.code is Code.PREPAY
    assert "settle 82 ucr" in refused.message
    assert await town.house.accounts.take(payment(1, 82))
    assert await town.job() == JOB_UCR
    assert (await town.refusal()).code is Code.PREPAY


@pytest.mark.spec("P-26")
async def test_a_payment_that_another_process_wrote_down_is_noticed(town: Town) -> None:
    narrow(town.house, 1)
    await town.job()
    assert (await town.refusal()).code is Code.PREPAY
    town.house.journal.add_payment(payment(1, JOB_UCR))
    assert await town.job() == JOB_UCR


@pytest.mark.spec("P-26")
async def test_the_same_payment_counts_once(town: Town) -> None:
    assert await town.house.accounts.take(payment(1, 100))
    assert not await town.house.accounts.take(payment(1, 100))
    assert town.house.journal.settled_ucr(CLIENT_KEY) == 100


@pytest.mark.spec("P-25")
async def test_a_restart_forgives_nobody(town: Town) -> None:
    narrow(town.house, 1)
    await town.job()
    before = town.house
    after = House(before.state)
    narrow(after, 1)
    before.executor, before.accounts = after.executor, after.accounts
    assert (await town.refusal()).code is Code.PREPAY
    after.journal.close()


@pytest.mark.spec("J-11")
async def test_jobs_side_by_side_reserve_what_they_may_come_to(town: Town) -> None:
    narrow(town.house, 1)
    account = await town.house.accounts.open((await town.wallet.channel(*WHO, 0, wall_ms())).channel)
    async with town.house.accounts.lent(account, JOB_UCR, JOB_UCR, 0):
        assert (await town.refusal()).code is Code.PREPAY
    assert await town.job() == JOB_UCR


async def test_work_that_brings_less_than_it_costs_is_not_taken(town: Town) -> None:
    hour_ucr = [0.0]
    town.house.executor._hour_ucr = lambda: hour_ucr[0]
    assert await town.job() == JOB_UCR
    # 40 tokens at the rate measured, and three that are read: an hour of such jobs brings so much.
    seconds = 40_000 / SERVED.output_tokens_per_s_milli + 3_000 / SERVED.input_tokens_per_s_milli
    earns = JOB_UCR * 3600 / seconds
    hour_ucr[0] = earns * 0.99
    assert await town.job() == JOB_UCR
    hour_ucr[0] = earns * 1.01
    refused = await town.refusal()
    assert refused.code is Code.BUSY
    assert "not worth" in refused.message
    assert town.house.availability.jobs == 0
    hour_ucr[0] = 0.0
    assert await town.job() == JOB_UCR


@pytest.mark.spec("A-34", "P-26")
async def test_a_payer_that_contradicts_itself_pays_ahead_and_is_heard_of(town: Town) -> None:
    told: list[bytes] = []
    town.house.accounts.contradicted = lambda one, other: told.append(one.signer)
    await town.job()
    channel = await town.wallet.channel(*WHO, 0, wall_ms())
    account = await town.house.accounts.open(channel.channel)
    latest = account.state.latest
    assert latest is not None
    less = replace(latest.record, due_ucr=latest.record.due_ucr - 1, held=(Held(2, wall_ms() + 1000),))
    with pytest.raises(RemoteProtocolError) as caught:
        await town.house.accounts.honour(account, sign(less, CLIENT))
    assert caught.value.code is Code.CONTRADICTION
    assert told == [CLIENT_KEY]
    town.house.accounts.at_fault = {CLIENT_KEY}.__contains__
    assert (await town.refusal()).code is Code.PREPAY
    assert await town.house.accounts.take(payment(1, JOB_UCR))
    assert await town.job() == JOB_UCR


@pytest.mark.spec("P-30")
async def test_the_fee_of_a_lost_dispute_is_owed_once_and_lent_no_more(town: Town) -> None:
    narrow(town.house, 2)
    await town.job()
    for _ in range(2):
        await town.house.accounts.book(bytes(32), {CLIENT_KEY: JOB_UCR})
    assert [row.owed_ucr for row in debts(town.house.state)] == [2 * JOB_UCR]
    assert (await town.refusal()).code is Code.PREPAY
    assert await town.house.accounts.take(payment(1, 2 * JOB_UCR))
    assert await town.job() == JOB_UCR
    after = House(town.house.state)
    assert after.journal.debtor(CLIENT_KEY, wall_ms()).owed_ucr == 3 * JOB_UCR
    after.journal.close()

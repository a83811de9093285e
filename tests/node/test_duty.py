"""A node that pauses says so: in its rates, in what it takes on, and in how long its worker may be silent."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, cast

import pytest
from nacl.signing import SigningKey

from fallow.node import config
from fallow.node.availability import Availability
from fallow.node.connection import Connection
from fallow.node.log import EventLog
from fallow.node.power.account import Account
from fallow.node.power.keeping import Power
from fallow.node.profiles import Offer, earns_ucr, make_profiles, told_duty
from fallow.node.rules.policy import Decision, Memory
from fallow.node.rules.worth import Draw
from fallow.node.serving import RETRY_MS, Executor, takes_ms
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Code, Refused
from fallow.protocol.identity import WorkerKey
from fallow.protocol.orders import JobOrder
from fallow.protocol.prices import Price
from fallow.protocol.profiles import ServedBundle
from tests.protocol.records import RECORDS

KEY = SigningKey(b"\x05" * 32)
NODE = bytes(KEY.verify_key)
SAMPLE = next(record for record in RECORDS if isinstance(record, JobOrder))
SERVED = ServedBundle(SAMPLE.bundle, ("generate", "score"), "float32/0/cpu/x/1x64", 400_000, 20_000, 0)
OFFER = Offer(
    NODE, {}, (SERVED,), (Price(SAMPLE.bundle, "generate", 0, 1, 4, 0),), sign(WorkerKey(NODE, bytes(32), 0, 1), KEY)
)
ORDER = replace(SAMPLE, input_tokens=400, planned_tokens=200, first_chunk_ms_max=30_000, gap_ms_max=5_000)
"""One second of reading and ten of writing, by the rates on offer."""


class Pauses:
    """The one word of an engine that power is kept by."""

    def __init__(self) -> None:
        self.duty = 1.0

    def pace(self, duty: float) -> None:
        self.duty = duty


def executor(duty: float, stays_ms: float = inf, jobs: int = 0) -> Executor:
    energy = Account([], Draw(0, 100), Draw(0, 100))
    energy.duty = duty
    availability, nothing = Availability(4, jobs=jobs), cast(Any, None)
    return Executor(
        KEY, NODE, nothing, nothing, availability, lambda: b"", nothing, energy=energy, stays_ms=lambda: stays_ms
    )


@pytest.mark.parametrize(
    ("duty", "told"), [(1.0, 1.0), (0.99, 0.9), (0.3, 0.3), (0.37, 0.3), (0.06, 0.05), (0.0, 0.05)]
)
def test_what_is_told_is_no_more_than_is_kept_and_coarse(duty: float, told: float) -> None:
    assert told_duty(duty) == told


def test_a_node_at_thirty_percent_advertises_thirty_percent_and_earns_by_what_it_measured(tmp_path: Path) -> None:
    settings = config.parse({"state": str(tmp_path)}, tmp_path)
    made = make_profiles(settings, KEY, bytes(32), OFFER, (), Connection(), 1, 1000, 0.3).capability.record.served[0]
    assert (made.input_tokens_per_s_milli, made.output_tokens_per_s_milli) == (120_000, 6_000)
    assert (made.calls_per_s_milli, OFFER.served) == (0, (SERVED,))
    assert earns_ucr(OFFER) == 3.6 * 4 * 20_000  # without pauses: the rules reckon with those themselves


def test_whoever_is_asked_hears_of_a_new_pace(tmp_path: Path) -> None:
    engine, heard = Pauses(), list[float]()
    account = Account([], Draw(0, 100), Draw(0, 100))
    power = Power(cast(Any, engine), account, "", EventLog(tmp_path))
    power.on_pace = lambda: heard.append(account.duty)
    for watts in (inf, 30.0, 30.0, 75.0):
        power.obey(Decision((), watts, inf, Memory()))
    assert heard == [0.3, 0.75] and engine.duty == 0.75


@pytest.mark.parametrize(
    ("duty", "stays_s", "jobs", "taken"),
    [
        (1.0, inf, 3, True), (1.0, 12, 0, True), (1.0, 10, 0, False), (1.0, 21, 1, False), (1.0, 23, 1, True),
        (0.5, 21, 0, False), (0.5, 23, 0, True), (0.0, 60, 0, False),
    ],
)  # fmt: skip
def test_work_that_would_not_be_done_before_the_owner_comes_is_declined_as_if_there_were_no_room(
    duty: float, stays_s: float, jobs: int, taken: bool
) -> None:
    assert takes_ms(ORDER, OFFER) == 11_000
    order = replace(ORDER, first_chunk_ms_max=60_000)
    if taken:
        return executor(duty, 1000 * stays_s, jobs)._check_time(order, OFFER)
    with pytest.raises(Refused) as caught:
        executor(duty, 1000 * stays_s, jobs)._check_time(order, OFFER)
    said = caught.value
    assert (said.code, said.message, said.retry_after_ms) == (Code.BUSY, "Every slot is taken.", RETRY_MS)


@pytest.mark.parametrize(
    ("duty", "changes", "taken"),
    [
        (1.0, {"first_chunk_ms_max": 500}, True),  # at full speed it may be quicker than it measured
        (0.5, {"first_chunk_ms_max": 2_000}, True), (0.5, {"first_chunk_ms_max": 1_999}, False),
        (0.1, {"gap_ms_max": 500}, True), (0.1, {"gap_ms_max": 499}, False),
        (0.05, {"input_tokens": 20_000, "first_chunk_ms_max": 2**31, "planned_tokens": 0}, False),  # longer than any job may
    ],
)  # fmt: skip
def test_an_order_whose_times_the_pauses_would_break_is_declined(
    duty: float, changes: dict[str, Any], taken: bool
) -> None:
    order = replace(ORDER, **changes)
    if taken:
        return executor(duty)._check_time(order, OFFER)
    with pytest.raises(Refused, match="works slowly now"):
        executor(duty)._check_time(order, OFFER)

"""What a node publishes of its connection, when, and what its link lets it do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node import config
from fallow.node.connection import Connection, Survey
from fallow.node.link import Link
from fallow.node.log import EventLog
from fallow.node.profiles import Offer, make_profiles
from fallow.node.vantage import Measured
from fallow.protocol.envelope import sign
from fallow.protocol.identity import WorkerKey
from tests.connection.conftest import hold, own_bus

KEY = SigningKey(bytes(32))
NODE = bytes(KEY.verify_key)


class Alone:
    """A network of one."""

    key = NODE

    def peers(self) -> list[bytes]:
        return []


def settings(tmp_path: Path, **changes: Any) -> config.Config:
    return config.parse({"state": str(tmp_path), **changes}, tmp_path)


@pytest.mark.parametrize(("kind", "said"), [("site", True), ("host", True), ("vehicle", False), ("robot", False)])
def test_what_moves_does_not_say_which_link_it_is_on(tmp_path: Path, kind: str, said: bool) -> None:
    connection = Connection(Measured(3, 1, 2, 3, 4), Link(("wifi",), True), 10, 20)
    offer = Offer(NODE, {}, (), (), sign(WorkerKey(NODE, bytes(32), 0, 1), KEY))
    profiles = make_profiles(settings(tmp_path, kind=kind), KEY, bytes(32), offer, (), connection, 1, 1000)
    made = profiles.connectivity.record
    assert (made.link_kinds, made.metered) == ((("wifi",), True) if said else ((), None))
    assert (made.vantage_peers, made.rtt_p95_us, made.up_kbit_per_s, made.down_kbit_per_s) == (3, 2, 10, 20)


@pytest.mark.spec("D-22")
@pytest.mark.parametrize(
    ("changes", "metered", "may"),
    [
        ({}, 2, True), ({}, 4, True), ({}, 1, False), ({}, 3, False), ({}, 0, True), ({"kind": "vehicle"}, 0, False),
        ({"kind": "vehicle"}, 2, True), ({"kind": "robot"}, 0, False), ({"unmetered_only": True}, 0, False),
    ],
)  # fmt: skip
async def test_nothing_is_measured_by_transfers_on_a_metered_link(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, changes: Any, metered: int, may: bool
) -> None:
    """`may` is asked of the survey as its rates ask it; the reading comes over a bus."""
    bus = await nursery.start(hold, own_bus(tmp_path))
    bus.manager.metered = metered
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    read, news, owner_lets = trio.Event(), [], [True]
    network: Any = Alone()
    survey = Survey(
        settings(tmp_path, **changes), KEY, NODE, network, bytes, lambda: owner_lets[0], lambda: news.append(None),
        lambda link: read.set(), EventLog(tmp_path),
    )  # fmt: skip
    nursery.start_soon(survey.run)
    with trio.fail_after(20):
        await read.wait()
    assert survey._may_transfer() is may
    assert len(news) == 1  # the link alone is news, once
    assert survey.now().link.kinds == ("ethernet",)
    owner_lets[0] = False
    assert not survey._may_transfer()

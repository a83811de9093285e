"""A node that takes longer to start than the schedule has it is not struck again before it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import trio
from trio.testing import MockClock

from fallow.testnet.chaos import Options, _befall, _Run
from fallow.testnet.crowd import Crowd
from fallow.testnet.faults import Fault
from fallow.testnet.local import Testnet
from fallow.testnet.plan import NodePlan, Plan

STARTS_S = 20.0
"""On a busy machine; the schedule leaves a killed node less."""


class Slow:
    """A network whose nodes take their time to start, and which can strike no node that does not run."""

    def __init__(self) -> None:
        self.directory = Path()
        self.whole = {"a", "b"}
        self.lasted: list[float] = []
        self._began_s: dict[str, float] = {}

    async def begin(self, fault: Fault) -> None:
        assert self.whole >= set(fault.nodes), f"{fault} befell a node that was not there"
        self.whole -= set(fault.nodes)
        self._began_s[fault.name] = trio.current_time()

    async def end(self, fault: Fault) -> None:
        self.lasted.append(trio.current_time() - self._began_s[fault.name])
        await trio.sleep(STARTS_S)
        self.whole |= set(fault.nodes)


async def test_a_node_has_one_fault_at_a_time_however_long_it_takes_to_start(autojump_clock: MockClock) -> None:
    network = Slow()
    options = Options(Plan((NodePlan("a", "host"), NodePlan("b", "host"))), 1.0, 1, 6.0, "none", 1, 1, 0)
    run = _Run(Path(), options, cast(Testnet, network), cast(Crowd, cast(Any, None)))
    faults = (
        Fault("kill", ("a",), at_ms=1_000, for_ms=3_000),
        Fault("freeze", ("b",), at_ms=2_000, for_ms=1_000),
        Fault("partition", ("b", "a"), at_ms=6_000, for_ms=2_000),
        Fault("restart", ("a",), at_ms=9_000),
    )
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for fault in faults:
            nursery.start_soon(_befall, run, fault, began)
    assert network.lasted == [1, 3, 2, 0]
    assert network.whole == {"a", "b"}
    assert (run.broken, run.down, run.befell.total()) == ([], set(), 4)

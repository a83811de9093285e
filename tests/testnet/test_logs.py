"""Many logs in one order of time, of clocks that were wrong among them."""

from __future__ import annotations

import json
from contextlib import aclosing
from pathlib import Path

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fallow.testnet import logs
from fallow.testnet.faults import Fault
from fallow.testnet.injecting import active


def write(path: Path, *lines: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def event(time_ms: int, name: str, **fields: object) -> dict[str, object]:
    return {"time_ms": time_ms, "event": name, **fields}


def fault(time_ms: int, act: str, name: str, node: str, amount: int = 0) -> dict[str, object]:
    return {"time_ms": time_ms, "act": act, "fault": name, "nodes": [node], "amount": amount}


def test_events_come_in_the_order_of_their_time(tmp_path: Path) -> None:
    write(tmp_path / "0-host" / "node.log", event(10, "a"), event(30, "c", pid=7))
    write(tmp_path / "1-site" / "node.log", event(20, "b"), event(40, "d"))
    write(tmp_path / "faults.jsonl", fault(25, "begin", "freeze", "1-site"))
    found = logs.merged(tmp_path)
    assert [(each.time_ms, each.node, each.event) for each in found] == [
        (10, "0-host", "a"), (20, "1-site", "b"), (25, "network", "begin"), (30, "0-host", "c"), (40, "1-site", "d"),
    ]  # fmt: skip
    assert found[3].fields == {"pid": 7}
    assert {each.node for each in logs.merged(tmp_path, ["1-site", "network"])} == {"1-site", "network"}


def test_a_log_that_began_anew_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "0-host" / "node.log.1", event(1, "a"))
    write(tmp_path / "0-host" / "node.log", event(2, "b"))
    assert [each.event for each in logs.merged(tmp_path)] == ["a", "b"]


def test_a_clock_that_was_wrong_is_set_right(tmp_path: Path) -> None:
    hour = 3_600_000
    written = event(1_000, "a"), event(2_500 + hour, "b"), event(4_000, "c"), event(5_500 - hour, "d")
    write(tmp_path / "0-host" / "node.log", *written)
    write(
        tmp_path / "faults.jsonl",
        fault(2_000, "begin", "clock-skew", "0-host", hour),
        fault(3_000, "end", "clock-skew", "0-host", hour),
        fault(5_000, "begin", "clock-skew", "0-host", -hour),
    )
    found = [(each.event, each.time_ms) for each in logs.merged(tmp_path, ["0-host"])]
    assert found == [("a", 1_000), ("b", 2_500), ("c", 4_000), ("d", 5_500)]


def test_lines_that_a_kill_cut_off_are_no_events(tmp_path: Path) -> None:
    write(tmp_path / "0-host" / "node.log", event(1, "a"))
    with (tmp_path / "0-host" / "node.log").open("a") as file:
        file.write('{"time_ms": 2, "ev\n{"time_ms": 3, "event": "b"}\n[]\n{"time_ms": 4, "event": "c"')
    assert [each.event for each in logs.merged(tmp_path)] == ["a", "b"]


async def test_following_gives_what_comes_and_nothing_twice(tmp_path: Path, autojump_clock: MockClock) -> None:
    log = tmp_path / "0-host" / "node.log"
    write(log, event(1, "before"))
    seen: list[str] = []
    async with aclosing(logs.follow(tmp_path)) as found, trio.open_nursery() as nursery:

        async def read(count: int) -> None:
            for _ in range(count):
                seen.append((await anext(found)).event)

        nursery.start_soon(read, 4)
        await wait_all_tasks_blocked()
        write(log, event(2, "a"))
        write(tmp_path / "1-site" / "node.log", event(3, "of a node that came later"))
        await trio.sleep(1)
        write(log, event(4, "b"))
        await trio.sleep(1)
        log.write_text("")
        await trio.sleep(1)
        write(log, event(5, "anew"))
    assert seen == ["a", "of a node that came later", "b", "anew"]


def test_what_began_and_has_not_ended_is_still_there(tmp_path: Path) -> None:
    assert active(tmp_path) == []
    write(
        tmp_path / "faults.jsonl",
        fault(1, "begin", "slow", "a", 64),
        fault(2, "begin", "freeze", "b"),
        fault(3, "end", "slow", "a", 64),
        fault(4, "begin", "restart", "a"),
    )
    assert active(tmp_path) == [Fault("freeze", ("b",))]

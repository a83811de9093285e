"""What NetworkManager says of the link, over a real bus; and that nothing is known where it says nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from fallow.node import link as links
from fallow.node.link import Link, watch


@pytest.fixture
def follow(nursery: trio.Nursery) -> Callable[[str], Callable[[], Awaitable[Link]]]:
    """Starts to watch the bus at an address, and gives the next reading that is news."""

    def follow(address: str) -> Callable[[], Awaitable[Link]]:
        send, receive = trio.open_memory_channel[Link](16)
        nursery.start_soon(watch, send.send_nowait, address)

        async def following() -> Link:
            with trio.fail_after(20):
                return await receive.receive()

        return following

    return follow


async def test_kind_and_metered_are_those_of_the_default_route(bus: Any, follow: Any) -> None:
    following = follow(bus.address)
    assert await following() == Link(("ethernet",), False)
    for number, metered in ((1, True), (4, False), (3, True), (0, None), (2, False)):
        bus.manager.metered = number
        await bus.signal()
        assert (await following()).metered is metered
    bus.manager.devices = {"wwan0": 8, "tun0": 16}
    await bus.signal()
    assert await following() == Link(("cellular", "vpn"), False)
    bus.manager.devices = {}
    await bus.signal()
    assert await following() == Link((), False)


async def test_a_manager_that_falls_silent_leaves_nothing_known(
    bus: Any, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "READ_S", 0.2)
    monkeypatch.setattr(links, "RETRY_S", 0.1)
    following = follow(bus.address)
    assert (await following()).metered is False
    bus.manager.answers = False
    await bus.signal()
    gone = await following()
    assert (gone.metered, gone.kinds) == (None, ()) and gone.why
    bus.manager.answers = True
    assert (await following()).metered is False


async def test_without_a_bus_nothing_is_known_and_why_is_said(tmp_path: Path, follow: Any) -> None:
    found = await follow(f"unix:path={tmp_path / 'nowhere'}")()
    assert (found.metered, found.kinds) == (None, ())
    assert "D-Bus" in found.why

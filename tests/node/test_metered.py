"""An owner who lends on unmetered links alone: a whole node, and a bus with NetworkManager on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.connection.conftest import hold, own_bus
from tests.node.conftest import Daemon, Start, client_network
from tests.node.raw_client import profile_of

SECONDS = 100


async def until(daemon: Daemon, state: str) -> dict[str, Any]:
    """The node's own words, once it is in the state."""
    with trio.fail_after(SECONDS):
        while True:
            status = await trio.to_thread.run_sync(daemon.command, "status")
            if status["state"] == state:
                return status
            await trio.sleep(0.05)


async def test_the_machine_is_lent_only_while_its_link_is_known_to_be_unmetered(
    start: Start, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
    bus = await nursery.start(hold, own_bus(tmp_path))
    bus.manager.metered = 0
    node = await trio.to_thread.run_sync(partial(start, bundles=["tiny-embed"], unmetered_only=True))
    status = await until(node, "not-eligible")
    assert any("it is not known whether the link is metered" in reason for reason in status["reasons"])

    bus.manager.metered = 2
    await bus.signal()
    assert (await until(node, "ready"))["link"] == "ethernet; not metered"

    bus.manager.metered, bus.manager.devices = 1, {"wwan0": 8}
    await bus.signal()
    status = await until(node, "not-eligible")
    assert status["reasons"] == ["the link is metered"] and status["link"] == "cellular; metered"
    async with client_network([node.address]) as network:
        profile = await profile_of(network, await network.connect(node.address))
    assert profile.reply.reasons == ("the owner's rules do not allow it now",)
    assert (profile.connectivity.link_kinds, profile.connectivity.metered) == (("cellular",), True)
    assert profile.reply.worker_key is None

    bus.manager.metered = 4
    await bus.signal()
    await until(node, "ready")

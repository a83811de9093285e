"""The owner's commands over the Unix socket."""

from __future__ import annotations

import socket
from pathlib import Path

import msgpack
import pytest
import trio
from trio.testing import MockClock

from fallow.node import control
from fallow.protocol.errors import ConfigError


async def _echo(command: str, seconds: int) -> control.Reply:
    return {"state": command, "jobs_running": 0, "reasons": ["none"]}


async def test_commands_are_answered_and_only_this_user_may_ask(tmp_path: Path) -> None:
    state = tmp_path / ("long" * 40)  # a socket's address has 107 bytes, a path may have more
    state.mkdir()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, state, _echo)
            assert (state / control.CONTROL).stat().st_mode & 0o777 == 0o600
            reply = await trio.to_thread.run_sync(control.request, state, control.STATUS)
            assert reply == {"state": "status", "jobs_running": 0, "reasons": ["none"]}
            with pytest.raises(ConfigError, match="no such command"):
                await trio.to_thread.run_sync(control.request, state, "explode")
            nursery.cancel_scope.cancel()
    assert not (state / control.CONTROL).exists()


@pytest.mark.parametrize("junk", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({"command": {}}), b"x" * 100_000])
async def test_junk_costs_its_connection_only(tmp_path: Path, junk: bytes) -> None:
    def send() -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / control.CONTROL))
            try:
                connection.sendall(junk)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            except OSError:
                pass

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, tmp_path, _echo)
            await trio.to_thread.run_sync(send)
            reply = await trio.to_thread.run_sync(control.request, tmp_path, control.STATUS)
            assert reply["state"] == "status"
            nursery.cancel_scope.cancel()


def test_no_node_is_said(tmp_path: Path) -> None:
    for state in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError) as error:
            control.request(state, control.STATUS)
        assert error.value.code == "not_running"


async def test_nobody_who_waits_or_leaves_cuts_a_command_short(tmp_path: Path, autojump_clock: MockClock) -> None:
    ended = trio.Event()

    async def slow(command: str, seconds: int) -> control.Reply:
        await trio.sleep(10 * control.ANSWER_S)
        ended.set()
        return {"state": command}

    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, tmp_path, slow)
        with trio.fail_after(100 * control.ANSWER_S):
            for patient in (True, False):
                with trio.socket.socket(socket.AF_UNIX) as connection:
                    await connection.connect(str(tmp_path / control.CONTROL))
                    await connection.send(msgpack.packb({"command": control.DRIVE}))
                    connection.shutdown(socket.SHUT_WR)
                    if patient:
                        assert msgpack.unpackb(await connection.recv(4096)) == {"state": control.DRIVE}
                await ended.wait()
                ended = trio.Event()
        nursery.cancel_scope.cancel()

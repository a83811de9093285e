"""The owner's commands over the Unix socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from fallow.node import control, http
from fallow.node.http import BODY_BYTES_MAX, CONNECTIONS_MAX, HEAD_BYTES_MAX
from fallow.protocol.errors import Code, ConfigError, StoreError


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


def _sent(state: Path, given: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to these bytes; (0, {}) if there is none."""
    received = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(state / control.CONTROL))
        try:
            connection.sendall(given)
            while part := connection.recv(4096):
                received += part
        except OSError:
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.loads(body)) if head else (0, {})


def _post(path: str, body: bytes, *more: str) -> bytes:
    head = "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *more, "", ""))
    return head.encode() + body


BAD_REQUESTS: dict[str, tuple[bytes, int, str]] = {
    "no HTTP": (b"\xc1\r\n\r\n", 400, "bad_request"),
    "an older protocol of ours": (b"\x81\xa7command\xa6status\r\n\r\n", 400, "bad_request"),
    "no host": (b"GET /status HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "endless head": (b"GET /status HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2 * HEAD_BYTES_MAX, 400, "bad_request"),
    "long body": (_post("/pause", b"x" * (BODY_BYTES_MAX + 1)), 413, "too_large"),
    "twice": (_post("/drive", b"", "X-A: 1", "X-A: 2"), 400, "bad_request"),
    "no such command": (_post("/explode", b""), 404, "bad_request"),
    "a file": (b"GET /../node.toml HTTP/1.1\r\nHost: x\r\n\r\n", 404, "bad_request"),
    "read as a command": (b"GET /drive HTTP/1.1\r\nHost: x\r\n\r\n", 405, "bad_request"),
    "command as a question": (_post("/status", b""), 405, "bad_request"),
    "a query": (b"GET /status?a=1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "a broken query": (b"GET /status?a HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "a field twice": (b"GET /status?a=1&a=2 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
    "no JSON": (_post("/pause", b"{"), 400, "bad_request"),
    "deep JSON": (_post("/pause", b"[" * BODY_BYTES_MAX), 400, "bad_request"),
    "a list": (_post("/pause", b"[60]"), 400, "bad_request"),
    "no seconds": (_post("/pause", b""), 400, "bad_request"),
    "no number": (_post("/pause", b'{"seconds": "60"}'), 400, "bad_request"),
    "true": (_post("/pause", b'{"seconds": true}'), 400, "bad_request"),
    "a part": (_post("/pause", b'{"seconds": 0.5}'), 400, "bad_request"),
    "nothing": (_post("/pause", b'{"seconds": 0}'), 400, "bad_request"),
    "for ever": (_post("/pause", b'{"seconds": 1' + b"0" * 400 + b"}"), 400, "bad_request"),
    "more than asked": (_post("/pause", b'{"seconds": 60, "state": "ready"}'), 400, "bad_request"),
    "seconds for nothing": (_post("/drive", b'{"seconds": 60}'), 400, "bad_request"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_bad_request_is_told_why_and_costs_its_connection_only(tmp_path: Path, name: str) -> None:
    given, status, code = BAD_REQUESTS[name]
    carried_out: list[str] = []

    async def answer(command: str, seconds: int) -> control.Reply:
        carried_out.append(command)
        return await _echo(command, seconds)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, tmp_path, answer)
            found, said = await trio.to_thread.run_sync(_sent, tmp_path, given)
            assert (found, said["code"], carried_out) == (status, code, [])
            assert said["message"] and said["advice"]
            reply = await trio.to_thread.run_sync(control.request, tmp_path, control.PAUSE, 60)
            assert (reply["state"], carried_out) == ("pause", ["pause"])
            nursery.cancel_scope.cancel()


class _Told:
    """A stream on which somebody has said this, and stopped."""

    def __init__(self, given: bytes) -> None:
        self._parts = [given[:7], given[7:]]
        self.answer = b""

    async def receive_some(self, most: int) -> bytes:
        return self._parts.pop(0) if self._parts else b""

    async def send_all(self, sent: bytes) -> None:
        self.answer += sent

    async def send_eof(self) -> None:
        pass


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([given for given, _, _ in BAD_REQUESTS.values()]), st.integers(0, 200), st.binary(max_size=12))
def test_whatever_is_sent_is_answered_in_http_or_not_at_all(given: bytes, at: int, put: bytes) -> None:
    faults: list[str] = []

    async def handle(asked: http.Request) -> http.Response:
        assert len(asked.body) <= BODY_BYTES_MAX
        command, seconds = control._command(asked)
        return http.answer(200, await _echo(command, seconds))

    told = _Told(given[:at] + put + given[at + len(put) :])
    trio.run(http._serve_one, told, handle, faults.append)
    assert faults == []
    assert not told.answer or (told.answer.startswith(b"HTTP/1.1 ") and b"Connection: close" in told.answer)


async def test_a_fault_of_ours_costs_one_answer_and_is_told(tmp_path: Path) -> None:
    faults: list[str] = []

    async def broken(command: str, seconds: int) -> control.Reply:
        raise ZeroDivisionError("division by zero")

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, tmp_path, broken, lambda: b"", faults.append)
            for _ in range(2):
                found, said = await trio.to_thread.run_sync(_sent, tmp_path, _post("/drive", b""))
                assert (found, said["code"]) == (500, "worker_failed")
            nursery.cancel_scope.cancel()
    assert faults == ["ZeroDivisionError: division by zero"] * 2


async def test_what_the_node_cannot_do_is_said_with_its_code(tmp_path: Path) -> None:
    async def full(command: str, seconds: int) -> control.Reply:
        raise StoreError(Code.STORE_FULL, "It holds until the node ends.")

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, tmp_path, full, lambda: b"fallow_lent 1.0\n")
            with pytest.raises(ConfigError, match="until the node ends") as told:
                await trio.to_thread.run_sync(control.request, tmp_path, control.PAUSE, 60)
            assert told.value.code == Code.STORE_FULL
            nursery.cancel_scope.cancel()


async def test_no_more_than_some_are_answered_at_once_and_the_silent_have_to_go(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, tmp_path, _echo)
        silent = []
        for _ in range(CONNECTIONS_MAX):
            silent.append(await trio.open_unix_socket(tmp_path / control.CONTROL))
            await silent[-1].send_all(b"GET /status")
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_unix_socket(tmp_path / control.CONTROL) as one_more:
            assert await one_more.receive_some(4096) == b""
        for stream in silent:
            async with stream:
                assert b" 408 " in await stream.receive_some(4096)
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_unix_socket(tmp_path / control.CONTROL) as again:
            await again.send_all(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await again.receive_some(4096)
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
                    await connection.send(_post("/drive", b""))
                    if patient:
                        assert (await connection.recv(4096)).endswith(b'{"state": "drive"}')
                await ended.wait()
                ended = trio.Event()
        nursery.cancel_scope.cancel()

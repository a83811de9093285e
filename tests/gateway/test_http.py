"""Work ends when its reader goes, and is refused while too much of it runs; a stream's error is an event."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from fallow.client.answers import Answer, Chunk, Proof, Usage
from fallow.client.gateway import send_events
from fallow.client.gateway_http import Working, listening
from fallow.client.gateway_requests import parse_chat
from fallow.client.stream import TextStream
from fallow.protocol.errors import Code, ConfigError, FallowError, Refused

ASKED = parse_chat({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})
ANSWER = Answer("abcdef", (), "stop", None, (), Usage(1, 2), (), Proof(()))


class Connection:
    """An ASGI server's side of one request."""

    def __init__(self) -> None:
        self.gone = trio.Event()
        self.sent: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    @property
    def events(self) -> list[Any]:
        body = b"".join(message.get("body", b"") for message in self.sent).decode()
        return [event.removeprefix("data: ") for event in body.split("\n\n") if event]


async def test_work_ends_when_the_client_goes() -> None:
    connection, begun = Connection(), trio.Event()

    async def work(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await trio.sleep_forever()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Working(trio.Semaphore(1), work), {}, connection.receive, connection.send)
            await begun.wait()
            connection.gone.set()


async def test_an_error_comes_out_as_it_is_and_frees_its_place() -> None:
    free = trio.Semaphore(1)

    async def work(scope: Any, receive: Any, send: Any) -> None:
        raise Refused(Code.NO_EXECUTOR, "Nobody.")

    connection = Connection()
    with trio.fail_after(10):
        for _ in range(2):
            with pytest.raises(Refused, match="Nobody"):
                await Working(free, work)({}, connection.receive, connection.send)


async def test_too_much_work_at_once_is_refused() -> None:
    async def work(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("never begun")

    connection = Connection()
    with pytest.raises(Refused) as raised:
        await Working(trio.Semaphore(0), work)({}, connection.receive, connection.send)
    assert raised.value.code is Code.BUSY


Script = Callable[[Callable[[Chunk], None]], Awaitable[Answer]]


@dataclass
class Scripted:
    """A text job that says what a test wants."""

    script: Script
    emit: Callable[[Chunk], None]

    async def run(self) -> Answer:
        return await self.script(self.emit)

    def abandon(self) -> None:
        raise AssertionError("nobody left")


def text_stream(script: Script, nursery: trio.Nursery) -> TextStream:
    async def begin(emit: Callable[[Chunk], None]) -> Scripted:
        return Scripted(script, emit)

    return TextStream(begin, nursery)


async def stream(run: Script) -> Connection:
    connection = Connection()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await send_events(text_stream(run, nursery), ASKED, "quorum:2/3", connection.send)
    return connection


async def test_only_settled_text_is_sent() -> None:
    async def run(emit: Callable[[Chunk], None]) -> Answer:
        emit(Chunk("abc", "peer", 0, False, 0))
        emit(Chunk("xyz", "peer", 3, False, 2))
        emit(Chunk("cde", "peer", 2, True, 4))
        return ANSWER

    connection = await stream(run)
    events = [json.loads(event) for event in connection.events[:-1]]
    assert connection.events[-1] == "[DONE]"
    assert [event["choices"][0]["delta"].get("content") for event in events] == ["", "ab", "cd", "ef", None]
    assert [message["more_body"] for message in connection.sent[1:]][-1] is False


async def test_an_error_after_the_first_text_is_an_event() -> None:
    async def run(emit: Callable[[Chunk], None]) -> Answer:
        emit(Chunk("abc", "peer", 0, False, 3))
        raise FallowError(Code.REJECTED, "They disagree.")

    connection = await stream(run)
    assert json.loads(connection.events[-1])["error"]["code"] == "rejected"


async def test_an_error_before_any_text_is_raised() -> None:
    async def run(emit: Callable[[Chunk], None]) -> Answer:
        raise FallowError(Code.NO_EXECUTOR, "Nobody.")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            connection = Connection()
            with pytest.raises(FallowError, match="Nobody"):
                await send_events(text_stream(run, nursery), ASKED, "none", connection.send)
            assert connection.sent == []


def test_addresses_to_listen_on() -> None:
    with listening("127.0.0.1:0") as first:
        assert first.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ConfigError) as raised:
            listening(f"127.0.0.1:{first.getsockname()[1]}")
        assert raised.value.code is Code.PORT_BUSY
    for wrong in (
        "",
        "8765",
        "127.0.0.1:" + "9" * 5000,
        "a" * 64 + ":80",
        "127.0.0.1:",
        "127.0.0.1:99999",
        "no.such.host.invalid:1",
        "192.0.2.1:0",
    ):
        with pytest.raises(ConfigError):
            listening(wrong)

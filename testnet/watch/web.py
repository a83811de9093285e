"""The network as a page: HTML made here, and each look sent as a server-sent event. For this machine alone.

It shows what anybody with this user's files can read, and changes nothing. Still: only loopback, only by a name of loopback
(a web page could have its own name resolve here), no script but its own, and everything that a peer may have written escaped.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final, cast

import hypercorn.trio
import trio
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ...client.gateway_http import is_loopback
from ...node.page import parts
from ...protocol.errors import Code, ConfigError
from .looking import LOOK_S, Look, Watcher

READERS_MAX: Final = 8
"""Pages open at once; each costs a connection and some kilobytes a second."""
HERE: Final = Path(__file__).parent
ASSETS: Final = {
    **{name: (parts.HERE, kind) for name, kind in parts.SHARED.items()},
    "watch.js": (HERE, "text/javascript"),
    "watch.css": (HERE, "text/css"),
}
HEADERS: Final = parts.headers(forms=False)
SERIES: Final = ("ready", "jobs", "tokens", "yields", "accepted", "rejected", "promised_ucr")

_templates: Final = parts.templates(HERE)


async def serve(
    watcher: Watcher, listener: socket.socket, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serves on `listener`, which it takes over, until cancelled; `task_status` is given the URLs.

    Raises `ConfigError(bad_config)` for a listener that others can reach.
    """
    if not is_loopback(listener):
        listener.close()
        raise ConfigError(Code.BAD_CONFIG, "The page is for this machine alone: say --listen 127.0.0.1:8780.")
    port = listener.getsockname()[1]
    config = Config()
    config.accesslog = None
    config.loglevel = "WARNING"
    config.include_server_header = False
    config.bind = [f"fd://{listener.detach()}"]
    async with trio.open_nursery() as nursery:
        page = Page(watcher, port)
        await nursery.start(page.keep_looking)
        app = cast(ASGIFramework, page.app)  # Starlette and Hypercorn write ASGI's types differently
        await hypercorn.trio.serve(app, config, task_status=task_status, mode="asgi")


class Page:
    """The application. One task looks, however many pages are open."""

    def __init__(self, watcher: Watcher, port: int) -> None:
        self._watcher = watcher
        self._names = parts.names(port)
        self._look: Look | None = None
        self._failure = ""
        self._news = trio.Event()
        self._readers = 0
        routes = [
            Route("/", self.page), Route("/events", self.events), Route("/assets/{name}", self.asset),
            Route("/favicon.ico", self.no_icon),
        ]  # fmt: skip
        self.app: ASGIApp = _Guarded(Starlette(routes=routes), self._names)

    async def keep_looking(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Looks until cancelled; started after the first look. Raises as `record.read` if the first cannot be taken."""
        async with trio.open_nursery() as nursery:
            self._look = await self._watcher.look(nursery)
            task_status.started()
            while True:
                await trio.sleep(LOOK_S)
                try:
                    self._look = await self._watcher.look(nursery)
                    self._failure = ""
                except ConfigError as error:  # the network was stopped; it may be started again
                    self._failure = error.message
                self._news.set()
                self._news = trio.Event()

    async def page(self, request: Request) -> Response:
        """The page as of the last look, with the looks before it."""
        body = _templates.get_template("page.html").render(
            state=self._rendered("state.html"), events=self._rendered("events.html"), history=self._history()
        )
        return HTMLResponse(body, headers=HEADERS)

    async def events(self, request: Request) -> Response:
        """Each look as it is taken: its HTML, and its sums."""
        if self._readers >= READERS_MAX:
            return PlainTextResponse(f"{READERS_MAX} pages are open already.\n", 503, headers=HEADERS)
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=HEADERS)

    async def asset(self, request: Request) -> Response:
        """One of the files that the page is made of."""
        name = request.path_params["name"]
        if name not in ASSETS:
            return PlainTextResponse("There is no such file.\n", 404, headers=HEADERS)
        folder, kind = ASSETS[name]
        content = await trio.Path(folder / "assets" / name).read_bytes()
        return Response(content, media_type=kind, headers=HEADERS)

    async def no_icon(self, request: Request) -> Response:
        """Browsers ask for one."""
        return Response(status_code=204, headers=HEADERS)

    async def _stream(self) -> AsyncIterator[bytes]:
        async with self._reading():
            while True:
                news = self._news
                yield self._event()
                await news.wait()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    def _event(self) -> bytes:
        point = [asdict(self._watcher.points[-1])[name] for name in ("time_ms", *SERIES)]
        return (
            b"data: "
            + json.dumps(
                {"state": self._rendered("state.html"), "events": self._rendered("events.html"), "point": point}
            ).encode()
            + b"\n\n"
        )

    def _rendered(self, template: str) -> str:
        assert self._look is not None, "nothing is served before the first look"
        return _templates.get_template(template).render(look=self._look, failure=self._failure)

    def _history(self) -> str:
        points: Sequence[dict[str, int]] = [asdict(point) for point in self._watcher.points]
        return json.dumps([[point[name] for point in points] for name in ("time_ms", *SERIES)])


class _Guarded:
    """Answers only requests that call this machine by a name of loopback, and only those that read."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in self._names:
            refusal = PlainTextResponse(
                "This page is for its own machine: call it by localhost.\n", 403, headers=HEADERS
            )
            return await refusal(scope, receive, send)
        await self._app(scope, receive, send)

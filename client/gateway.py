"""The mesh as an OpenAI-compatible server on the client's own machine.

It spends its user's money for whoever reaches it, so it listens on loopback unless told otherwise.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import hypercorn.trio
import trio
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..protocol.errors import Code, FallowError, Refused
from . import gateway_responses as responses
from .assurance import Assurance, read_assurance
from .gateway_http import EventStream, Working, is_loopback, on_error, read_json
from .gateway_requests import ApiError, ChatRequest, parse_chat, parse_embeddings, parse_max_price
from .gateway_text import SettledText
from .mesh import Mesh
from .stream import TextStream

JOBS_MAX = 32
"""Requests at work at once; one client's share of a mesh is smaller than that."""
CLOSE_S = 2.0
"""To tell the executors that nobody reads on."""
ASSURANCE_HEADER = "x-fallow-assurance"
MAX_PRICE_HEADER = "x-fallow-max-price"


async def serve(
    mesh: Mesh,
    listener: socket.socket,
    *,
    assurance: Assurance,
    price_max_ucr: int,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves on `listener` (of `gateway_http.listening`), which it takes over, until cancelled.

    `assurance` is for requests that name none; no order costs more than `price_max_ucr`, and no more than its request says.
    `task_status` is given the URLs.
    """
    gateway = Gateway(mesh, assurance, price_max_ucr, local_only=is_loopback(listener))
    config = Config()
    config.accesslog = None
    config.loglevel = "WARNING"
    config.include_server_header = False
    config.bind = [f"fd://{listener.detach()}"]
    app = cast(ASGIFramework, gateway.app)  # Starlette and Hypercorn write ASGI's types differently
    await hypercorn.trio.serve(app, config, task_status=task_status, mode="asgi")


class Gateway:
    """The application. `local_only` refuses requests that do not call this machine by a name of its own."""

    def __init__(self, mesh: Mesh, assurance: Assurance, price_max_ucr: int, *, local_only: bool) -> None:
        self._mesh = mesh
        self._default = assurance
        self._price_max_ucr = price_max_ucr
        self._local_only = local_only
        self._free = trio.Semaphore(JOBS_MAX)
        self.app = Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/models/{name}", self.model),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            ],
            exception_handlers={ApiError: on_error, FallowError: on_error, HTTPException: on_error},
        )

    async def models(self, request: Request) -> Response:
        names = [name for name in self._mesh.bundles() if await self._mesh.takes_text(name)]
        return JSONResponse(responses.models(names))

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._mesh.bundles():
            raise Refused(Code.UNKNOWN_NAME, f"No trust list of this machine knows {name!r}.")
        if not await self._mesh.takes_text(name):
            raise Refused(Code.UNKNOWN_NAME, f"{name} is a function of arrays, for which OpenAI's API has no words.")
        return JSONResponse(responses.model(name))

    async def chat(self, request: Request) -> Response:
        asked = parse_chat(await read_json(request, local_only=self._local_only))
        assurance, price_max_ucr = self._assurance(request), self._cap_ucr(request)

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            async with _reading(self._mesh, asked, assurance, price_max_ucr) as stream:
                if asked.stream:
                    await send_events(stream, asked, assurance, send)
                else:
                    async for _ in stream:
                        pass
                    body = responses.completion(*_identity(asked), assurance, stream.answer)
                    await JSONResponse(body)(scope, receive, send)

        return Working(self._free, work)

    async def embeddings(self, request: Request) -> Response:
        asked = parse_embeddings(await read_json(request, local_only=self._local_only))
        assurance, price_max_ucr = self._assurance(request), self._cap_ucr(request)

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            vectors = await self._mesh.embed(asked.model, asked.texts, assurance=assurance, price_max_ucr=price_max_ucr)
            body = responses.embeddings(asked.model, assurance, vectors, as_base64=asked.base64)
            await JSONResponse(body)(scope, receive, send)

        return Working(self._free, work)

    def _assurance(self, request: Request) -> str:
        text = request.headers.get(ASSURANCE_HEADER)
        try:
            return str(read_assurance(text) if text is not None else self._default)
        except Refused as error:
            raise ApiError(400, error.message, error.code) from None

    def _cap_ucr(self, request: Request) -> int:
        """Whoever asks may lower what the user of this gateway allows, not raise it."""
        text = request.headers.get(MAX_PRICE_HEADER)
        return self._price_max_ucr if text is None else min(parse_max_price(text), self._price_max_ucr)


@asynccontextmanager
async def _reading(mesh: Mesh, asked: ChatRequest, assurance: str, price_max_ucr: int) -> AsyncIterator[TextStream]:
    """The text under way; the job ends with the block, also when that is cancelled because its reader has gone."""
    stream = mesh.stream(
        asked.model,
        asked.messages,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=asked.seed,
        stop=asked.stop,
        assurance=assurance,
        price_max_ucr=price_max_ucr,
    )
    try:
        yield stream
    finally:
        with trio.move_on_after(CLOSE_S, shield=True):
            await stream.aclose()


async def send_events(stream: TextStream, asked: ChatRequest, assurance: str, send: Send) -> None:
    """Only text that no check can take back goes out: OpenAI's protocol knows no retraction."""
    chunks = responses.CompletionChunks(*_identity(asked), include_usage=asked.include_usage)
    events, settled = EventStream(send, opening=chunks.first()), SettledText()
    try:
        async for chunk in stream:
            await events.start()
            if text := settled.take(chunk):
                await events.write(chunks.text(text))
        await events.start()
        if text := settled.finish(stream.answer.text):
            await events.write(chunks.text(text))
        await events.write(chunks.last(assurance, stream.answer))
    except FallowError as error:
        if not events.started:
            raise
        await events.write(responses.sse(responses.error_body(responses.api_error(error))))
    await events.end()


def _identity(asked: ChatRequest) -> tuple[str, int, str]:
    return f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), asked.model

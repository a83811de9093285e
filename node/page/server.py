"""The owner's page: HTML made here, for this machine, and for whoever knows its address.

Every path begins with a key of 128 bits from a file that only the node's user can read: other users of the machine see
nothing and change nothing, and no other site knows what to ask for. A cookie would not do: browsers send those to every
port of a host. On top of it, only requests that call this machine by a name of loopback are answered, and only those of
the page itself may change anything.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from pathlib import Path
from typing import Final

import trio

from ...protocol.errors import Code, ConfigError, FallowError
from .. import control
from .. import http as local
from ..machine import beside
from . import parts
from .view import View

KEY: Final = "page.key"
KEY_BYTES: Final = 16
ASSETS: Final = {
    **parts.SHARED,
    "htmx.min.js": "text/javascript",
    "htmx.LICENSE": "text/plain",
    "owner.js": "text/javascript",
    "owner.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_TEMPLATES: Final = parts.templates(parts.HERE)
_HEADERS: Final = tuple(
    (name, value) for name, value in parts.headers(forms=True).items() if name != "cache-control"
)  # fmt: skip


def load_key(state: Path) -> str:
    """The page's key, made if there is none. Raises `ConfigError(bad_config)` if it cannot be kept."""
    path = state / KEY
    try:
        try:
            kept = path.read_text("ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            kept = ""
        if len(kept) == 2 * KEY_BYTES and path.stat().st_mode & 0o077 == 0:
            return kept
        path.unlink(missing_ok=True)
        fresh = secrets.token_hex(KEY_BYTES)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(fresh + "\n")
    except OSError as error:
        raise ConfigError(Code.BAD_CONFIG, f"Setting `page`: {path} cannot be used: {error.strerror}.") from None
    return fresh


def listen(address: str) -> socket.socket:
    """A listening socket on loopback. Raises `ConfigError`: `port_busy`, or `bad_config` for another address."""
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((host.strip("[]"), int(port)))
            opened.listen(local.CONNECTIONS_MAX)
        except OSError:
            opened.close()
            raise
    except OSError as error:
        raise ConfigError(Code.PORT_BUSY, f"Setting `page`: cannot listen on {address}: {error.strerror}.") from None
    return opened


class OwnersPage:
    """Answers for one node, on one listening socket."""

    def __init__(
        self, listening: socket.socket, key: str, view: View, answer: control.Answer, failed: local.Failed
    ) -> None:
        name = listening.getsockname()
        self._host = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        self._names = parts.names(name[1])
        self._listening = listening
        self._key = key
        self._view = view
        self._answer = answer
        self._failed = failed
        self._changed: dict[str, local.Handler] = dict.fromkeys(control.COMMANDS, self._command)
        self._read: dict[str, local.Handler] = {
            "": self._page,
            "state": self._state,
            "income": self._income,
            "what-if": self._what_if,
            "day.json": self._day,
            control.METRICS: self._metrics,
        }

    @property
    def address(self) -> str:
        """With the key: whoever has it is the owner."""
        return f"http://{self._host}/{self._key}/"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listening))
        await local.serve(listener, self._handle, self._failed, task_status=task_status)

    async def _handle(self, asked: local.Request) -> local.Response:
        """Also what is refused has the headers."""
        try:
            response = await self._guarded(asked)
        except local.Unanswerable as fault:
            response = fault.response
        return local.Response(response.status, response.body, response.kind, (*_HEADERS, *response.headers))

    async def _guarded(self, asked: local.Request) -> local.Response:
        host, origin = asked.headers.get("host", ""), asked.headers.get("origin")
        if host not in self._names:
            raise _forbidden("This page is for its own machine: call it by localhost.")
        if origin not in (None, f"http://{host}") or not (_is_ours(asked) or _comes_by_file(asked)):
            raise _forbidden("Another page has asked this: no other page may.")
        _, _, below = asked.path.partition("/")
        given, _, path = below.partition("/")
        if below == control.METRICS:
            given, path = asked.headers.get("authorization", "").removeprefix("Bearer "), below
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            raise _forbidden("The address lacks the page's key: `fallow node page` shows the whole address.")
        if asked.method == "POST" and origin is None:
            raise _forbidden("Only the page itself may change anything; others use the control socket.")
        return await self._routed(asked, path)

    async def _routed(self, asked: local.Request, path: str) -> local.Response:
        if (name := path.removeprefix("assets/")) in ASSETS and name != path and asked.method == "GET":
            content = await trio.Path(parts.HERE / "assets" / name).read_bytes()
            return local.Response(200, content, ASSETS[name])
        for method, routes in (("GET", self._read), ("POST", self._changed)):
            if path in routes:
                if asked.method != method:
                    problem = f"This is asked by {method}."
                    raise local.Unanswerable(405, Code.BAD_REQUEST, problem, (("Allow", method),))
                return await routes[path](asked)
        raise local.Unanswerable(404, Code.BAD_REQUEST, "The page has no such part.")

    async def _page(self, asked: local.Request) -> local.Response:
        return await self._rendered("page.html", **await self._view.whole())

    async def _state(self, asked: local.Request) -> local.Response:
        return await self._rendered("state.html", **await self._view.state())

    async def _income(self, asked: local.Request) -> local.Response:
        return await self._rendered("income.html", **await self._view.income())

    async def _what_if(self, asked: local.Request) -> local.Response:
        if set(asked.query) != {"word", "value"}:
            raise local.Unanswerable(400, Code.BAD_REQUEST, "A question names a `word` and its `value`.")
        found, problem = None, ""
        try:
            found = await self._view.what_if(asked.query["word"], asked.query["value"])
        except FallowError as error:
            problem = error.message
        return await self._rendered("what-if.html", answer=found, problem=problem, assumption=self._view.assumption)

    async def _day(self, asked: local.Request) -> local.Response:
        return local.answer(200, await self._view.day())

    async def _metrics(self, asked: local.Request) -> local.Response:
        return local.Response(200, self._view.metrics(), "text/plain; version=0.0.4; charset=utf-8")

    async def _command(self, asked: local.Request) -> local.Response:
        """Carried out; then, for htmx, how the node stands now, else the page anew."""
        command = asked.path.rpartition("/")[2]
        try:
            form = local.fields_untrusted(asked.body.decode("ascii"))
        except UnicodeDecodeError:
            form = {"": ""}
        if set(form) != ({"seconds"} if command == control.PAUSE else set()):
            raise local.Unanswerable(400, Code.BAD_REQUEST, f"`{command}` takes nothing of what it was given.")
        seconds = 0
        if command == control.PAUSE:
            written = form["seconds"]
            seconds = control.pause_s(
                int(written) if written.isascii() and written.isdecimal() and len(written) < 10 else 0
            )
        await control.carried_out(self._answer, command, seconds)
        if "hx-request" in asked.headers:
            return await self._state(asked)
        return local.Response(303, headers=(("Location", f"/{self._key}/"),))

    async def _rendered(self, template: str, **shown: object) -> local.Response:
        text = await beside(lambda: _TEMPLATES.get_template(template).render(**shown))
        return local.Response(200, text.encode(), local.HTML)


def _is_ours(asked: local.Request) -> bool:
    """Whether the page asks, or a person; programs that are no browsers do not say."""
    return asked.headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def _comes_by_file(asked: local.Request) -> bool:
    """Whether a whole window is led here, as by `shortcut`: whoever leads it has the key, and cannot look into it."""
    how = asked.headers.get("sec-fetch-mode"), asked.headers.get("sec-fetch-dest")
    return asked.method == "GET" and how == ("navigate", "document")


def _forbidden(message: str) -> local.Unanswerable:
    return local.Unanswerable(403, Code.BAD_REQUEST, message)

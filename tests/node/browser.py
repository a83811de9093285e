"""A real browser, spoken to by its own protocol: https://chromedevtools.github.io/devtools-protocol/."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--remote-debugging-port=0", "--remote-allow-origins=*", "--window-size=1280,1500",
)  # fmt: skip

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""A picture."""

_GONE = (
    "Execution context was destroyed", "Inspected target navigated or closed", "Promise was collected",
    "Cannot find context with specified id", "Cannot find default execution context",
)  # fmt: skip
"""Of the browser's words, those for a page that gave way to another one while something ran in it."""


class Refused(Exception):
    """The browser did not do what it was asked; its own words say why."""


class Gone(Refused):
    """The page has given way to another one, and what ran in it ended with it."""


class Tab:
    """One page in it."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        """What the page could not load or do."""

    async def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """The browser's answer. Raises `Refused`, or `Gone`, where that is an error."""
        number = next(self._numbers)
        await self._socket.send_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(await self._socket.get_message())
            if message.get("id") == number:
                if "error" in message:
                    raise _refused(method, message["error"])
                result: dict[str, Any] = message["result"]
                return result
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(message["params"]))

    async def run(self, script: str) -> Any:
        """The value of the script, run in the page. Raises as `ask`."""
        found = await self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str) -> None:
        """The script's value has become true, in this page or in one that it gives way to. The caller bounds it."""
        while True:
            with suppress(Gone):
                await self.run(f"""new Promise((done) => {{
                    const look = () => ({script}) ? done(true) : setTimeout(look, 50);
                    look();
                }})""")
                return

    async def picture(self, path: Path) -> None:
        """The whole page is in the file, a PNG."""
        found = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await trio.Path(path).write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def tab(folder: Path, url: str) -> AsyncIterator[Tab]:
    """A fresh browser shows the page."""
    assert CHROMIUM
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert process.stderr
        said = b""
        while not (listens := re.search(rb"listening on (ws://\S+)\n", said)):
            part = await process.stderr.receive_some()
            assert part, said
            said += part
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, process.stderr)
            async with _opened(listens[1].decode(), url) as page:
                yield page
            nursery.cancel_scope.cancel()
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()


@asynccontextmanager
async def _opened(browser: str, url: str) -> AsyncIterator[Tab]:
    async with open_websocket_url(browser, max_message_size=MESSAGE_BYTES_MAX) as socket:
        target = (await Tab(socket).ask("Target.createTarget", url="about:blank"))["targetId"]
    address = f"{browser.partition('/devtools/')[0]}/devtools/page/{target}"
    async with open_websocket_url(address, max_message_size=MESSAGE_BYTES_MAX) as socket:
        page = Tab(socket)
        for domain in ("Page", "Log", "Runtime"):
            await page.ask(f"{domain}.enable")
        await page.ask("Page.navigate", url=url)
        await page.until("document.readyState === 'complete'")
        yield page


def _refused(method: str, error: dict[str, Any]) -> Refused:
    words = str(error.get("message"))
    return (Gone if any(gone in words for gone in _GONE) else Refused)(f"{method}: {words}")


async def _drain(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass

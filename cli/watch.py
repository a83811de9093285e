"""`fallow testnet watch`: a test network, live, in the terminal or as a page on loopback."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import Parameter

from ..node.config import default_home
from ..protocol.errors import Code, ConfigError
from ..testnet.watch.looking import LOOK_S, Watcher
from ..testnet.watch.sources import WALLET
from .environment import AsJson, cancel_when_terminated
from .output import print_json, remark, stdout


async def watch(
    *,
    directory: Annotated[Path, Parameter(name="--dir", help="Where the network's state and testnet.json are.")],
    web: Annotated[bool, Parameter(help="As a page, instead of in the terminal.")] = False,
    listen: Annotated[str, Parameter(help="For the page: an address of loopback; port 0 takes any free one.")] = (
        "127.0.0.1:8780"
    ),
    once: Annotated[bool, Parameter(help="Look once, and end.")] = False,
    json: AsJson = False,
) -> None:
    """Shows every node with its state and why, jobs in flight, verdicts, yields and pay, each second until Ctrl-C.

    Verdicts are read from the wallets in the network's directory and from this user's own.
    """
    watcher = Watcher(directory, [default_home() / WALLET])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_when_terminated, nursery.cancel_scope)
        if web:
            await _serve(watcher, listen, nursery, json)
            await trio.sleep_forever()
        await _show(watcher, nursery, once=once, as_json=json)
        nursery.cancel_scope.cancel()


async def _serve(watcher: Watcher, listen: str, nursery: trio.Nursery, as_json: bool) -> None:
    from ..client.gateway_http import listening
    from ..testnet.watch.web import serve

    with ExitStack() as stack:
        try:
            listener = stack.enter_context(listening(listen))
        except ValueError:  # a port of thousands of digits, or a name that cannot be looked up
            raise ConfigError(Code.BAD_CONFIG, f"{listen[:80]!r} is no address to listen on.") from None
        urls: list[str] = await nursery.start(partial(serve, watcher, listener))
    if as_json:
        print_json({"url": urls[0]})
    else:
        remark(f"the network is shown at {urls[0]}; Ctrl-C ends that")


async def _show(watcher: Watcher, nursery: trio.Nursery, *, once: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from ..testnet.watch.screen import drawn, live

    if as_json:
        while True:
            look = await watcher.look(nursery)
            print_json(asdict(look))
            if once:
                return
            await trio.sleep(LOOK_S)
    with live(stdout) as shown:
        while True:
            shown.update(drawn(await watcher.look(nursery)), refresh=True)
            if once:
                return
            await trio.sleep(LOOK_S)

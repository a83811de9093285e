"""The owner's orders, by whatever way they come: the control socket, the page, a signal, or standard input that is closed."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import trio

from . import control
from .commands import Commands
from .engine.bundles import Bundle
from .holdings import Holdings
from .metrics import Metrics
from .network.seam import Network
from .notifying import notify
from .owner import Keeper
from .page.server import OwnersPage, load_key
from .page.view import View
from .power.keeping import Power


async def take_orders(
    held: Holdings, network: Network, bundles: Sequence[Bundle], settings: Path | None, nursery: trio.Nursery
) -> Commands:
    """The control socket and the page are open, and stay so until the nursery is cancelled. Raises `ConfigError`."""
    commands = Commands(held.config, network, held.library, bundles, held.availability, held.lending, held.recorder)

    def failed(why: str) -> None:
        held.log.write("answer_failed", why=why)

    metrics = Metrics(
        held.tally,
        held.availability,
        held.lending,
        lambda: len(network.peers()),
        lambda: held.recorder.account,
        lambda: held.config.diary and not held.recorder.problem,
    )
    state = held.config.state
    await nursery.start(control.serve, state, commands.answer, metrics.text, failed)
    if held.page:
        view = View(state, settings, held.lending, held.availability, held.tally, held.recorder, metrics.text)
        page = OwnersPage(held.page, load_key(state), view, commands.answer, failed)
        commands.page = page.address
        await nursery.start(page.run)
    return commands


class Ending:
    """The order to end. Whoever keeps a worker and its power by then is told first."""

    def __init__(self) -> None:
        self.power: Power | None = None
        self.keeper: Keeper | None = None
        self.last_look: Callable[[], None] = lambda: None
        """At who is there, while they still are."""

    async def await_it(self, signals: AsyncIterator[int], whole: trio.CancelScope) -> None:
        """With the first signal the machine is the owner's, every job is handed back, and the whole is cancelled."""
        await anext(signals)
        notify(STOPPING="1", STATUS="jobs are being handed back")
        if self.power:
            self.power.release()
        if self.keeper:
            await self.keeper.stop()
        self.last_look()
        whole.cancel()


async def end_with_stdin() -> None:
    """Whoever holds the other end of standard input, and writes nothing there, has closed it or is gone: time to end."""
    await trio.lowlevel.wait_readable(0)
    os.kill(os.getpid(), signal.SIGTERM)

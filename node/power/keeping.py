"""The budget kept: the engine pauses as much as it takes, the accelerator is capped where a helper may, and use is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from ..engine.engine import Engine
from ..log import EventLog
from ..rules.policy import Decision
from ..rules.worth import Draw
from .account import Account

LOOK_S: Final = 1.0
CAP_S: Final = 30.0
"""The wish is said again, to a helper that was started meanwhile, too."""
ANSWER_S: Final = 2.0
DUTY_STEP: Final = 0.01
"""The engine is not told of less than a hundredth."""


class Power:
    """Keeps one engine within what may be drawn."""

    def __init__(self, engine: Engine, account: Account, helper: str, log: EventLog) -> None:
        self.on_calibrated: Callable[[Draw], None] = lambda draw: None
        """Told when it is known better than before what working draws."""
        self.on_pace: Callable[[], None] = lambda: None
        """Told when the engine works at another share of its speed."""
        self._engine = engine
        self.account = account
        self._helper = helper
        self._log = log
        self._budget_w = math.inf
        self._news = trio.Event()

    def obey(self, decision: Decision) -> None:
        """From now on work draws no more than the budget, as far as its draw is known."""
        self._budget_w = decision.budget_w
        self._pace()
        self._news.set()

    async def run(self) -> None:
        """Looks at what is used, and keeps the accelerator's cap, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._helper:
                nursery.start_soon(self._keep_cap)
            while True:
                await trio.sleep(LOOK_S)
                before = self.account.draw
                self.account.look()
                if abs(self.account.draw.full_w - before.full_w) > 0.01 * before.full_w:
                    self.on_calibrated(self.account.draw)
                    self._pace()

    def _pace(self) -> None:
        duty = 1.0 if self._budget_w == math.inf else self.account.draw.duty(self._budget_w)
        if duty != self.account.duty and (duty in (0.0, 1.0) or abs(duty - self.account.duty) >= DUTY_STEP):
            self.account.look()
            self.account.duty = duty
            self._engine.pace(duty)
            self.on_pace()
            budget_w = -1 if self._budget_w == math.inf else round(self._budget_w)
            self._log.write("pace", duty_ppm=round(1e6 * duty), budget_w=budget_w)

    async def _keep_cap(self) -> None:
        """The first accelerator's limit is the budget while the helper is there; it sets it back when we go."""
        while True:
            try:
                async with await trio.open_unix_socket(Path(self._helper)) as stream:
                    while True:
                        if self._budget_w < math.inf:
                            await self._say(stream, f"CAP 0 {max(1, int(self._budget_w))}\n")
                        self._news = trio.Event()
                        with trio.move_on_after(CAP_S):
                            await self._news.wait()
            except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
                self._log.write("power_helper", why=str(error) or "it does not answer")
            await trio.sleep(CAP_S)

    async def _say(self, stream: trio.SocketStream, wish: str) -> None:
        with trio.fail_after(ANSWER_S):
            await stream.send_all(wish.encode())
            answer = (await stream.receive_some(256)).decode(errors="replace").strip()
        if answer != "ok":
            self._log.write("power_helper", why=answer or "it has gone")
            if not answer:
                raise trio.BrokenResourceError

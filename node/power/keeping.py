"""The budget kept: the engine pauses as much as it takes, the accelerator is capped where a helper may, and use is counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import trio

from ..engine.engine import Engine
from ..log import EventLog
from ..rules.policy import Decision
from ..rules.worth import Draw
from .account import Account
from .helper import CAP_S

LOOK_S: Final = 1.0
ANSWER_S: Final = 2.0
DUTY_STEP: Final = 0.01
"""The engine is not told of less than a hundredth."""


class Power:
    """Keeps one engine within what may be drawn."""

    def __init__(
        self, engine: Engine, account: Account, helper: str, log: EventLog, accelerators: Sequence[int] = (0,)
    ) -> None:
        """`helper` is the socket of the one that caps these accelerators; empty: there is none."""
        self.on_calibrated: Callable[[Draw], None] = lambda draw: None
        """Told when it is known better than before what working draws."""
        self.on_pace: Callable[[], None] = lambda: None
        """Told when the engine works at another share of its speed."""
        self._engine = engine
        self.account = account
        self._helper = helper
        self._accelerators = tuple(accelerators)
        self._log = log
        self._budget_w = self._cap_w = math.inf
        self._news = trio.Event()
        self._released = False
        self._complaint = ""

    def obey(self, decision: Decision) -> None:
        """From now on work draws no more than the budget, as far as its draw is known. While the machine is its owner's, so is
        all of its accelerators' power."""
        self._budget_w = decision.budget_w
        self._pace()
        self._cap(decision.budget_w if decision.lends and not self._released else math.inf)

    def release(self) -> None:
        """The accelerators' limits are their owner's again, for good: nothing more will be computed."""
        self._released = True
        self._cap(math.inf)

    async def run(self) -> None:
        """Looks at what is used, and keeps the accelerators' cap, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._helper:
                nursery.start_soon(self._keep_cap)
            while True:
                await trio.sleep(LOOK_S)
                before = self.account.draw
                await self.account.look()
                if abs(self.account.draw.full_w - before.full_w) > 0.01 * before.full_w:
                    self.on_calibrated(self.account.draw)
                    self._pace()

    def _pace(self) -> None:
        duty = 1.0 if self._budget_w == math.inf else self.account.draw.duty(self._budget_w)
        if duty != self.account.duty and (duty in (0.0, 1.0) or abs(duty - self.account.duty) >= DUTY_STEP):
            self.account.duty = duty
            self._engine.pace(duty)
            self.on_pace()
            budget_w = -1 if self._budget_w == math.inf else round(self._budget_w)
            self._log.write("pace", duty_ppm=round(1e6 * duty), budget_w=budget_w)

    def _cap(self, watts: float) -> None:
        self._cap_w = watts
        self._news.set()

    async def _keep_cap(self) -> None:
        """The limit of all accelerators together is the cap, while there is one and the helper is there. It lifts its limits
        when the connection ends: with the owner's return, and however this process ends."""
        while True:
            self._news = trio.Event()
            if self._cap_w == math.inf:
                await self._news.wait()
                continue
            try:
                async with await trio.open_unix_socket(self._helper) as stream:
                    while self._cap_w < math.inf:
                        self._news = trio.Event()
                        await self._ask(stream, self._cap_w / len(self._accelerators))
                        with trio.move_on_after(CAP_S):
                            await self._news.wait()
            except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
                self._complain(str(error) or "it does not answer")
                await trio.sleep(CAP_S)

    async def _ask(self, stream: trio.SocketStream, each_w: float) -> None:
        for index in self._accelerators:
            with trio.fail_after(ANSWER_S):
                await stream.send_all(f"CAP {index} {max(1, int(each_w))}\n".encode())
                answer = (await stream.receive_some(256)).decode(errors="replace").strip()
            if not answer:
                raise trio.BrokenResourceError("it has gone")
            self._complain("" if answer == "ok" else answer)

    def _complain(self, why: str) -> None:
        """Said once, until it is another."""
        if why and why != self._complaint:
            self._log.write("power_helper", why=why)
        self._complaint = why

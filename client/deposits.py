"""Owners who count as anchors because they have something to lose here: a deposit that is locked to this client's key.

An owner counts while its tokens are unspent, signed by the mint, worth what the trust file asks for, locked for longer yet than
pay may be held, and stand behind no deposit that is named before it. Who is found at fault does not count any more, whatever is
locked. What cannot be seen does not count.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol

import trio
from nacl.signing import SigningKey

from ..node.rails.opening import CASHU, FOLDER, client_rails, open_rails
from ..node.rails.rail import read_means
from ..node.trust import Deposit
from ..protocol.errors import Code, ConfigError, FallowError, RemoteProtocolError
from ..protocol.limits import HOLD_MS_MAX, MEANS_BYTES_MAX

AGAIN_S: Final = 3600.0
"""Between two looks: whoever could take the deposit back can do so at its end only, and the mint is somebody else's."""


class Purse(Protocol):
    """What tells how long a deposit is locked, as `node.rails.cashu.Cashu`."""

    def locked_until_s(self, means: bytes) -> int:
        """Raises `FallowError` for what is none; 0: for ever."""

    def tokens(self, means: bytes) -> frozenset[str]:
        """What it is made of. Raises `FallowError` for what is none."""


class Deposits:
    """What the trust file names, as it was seen last."""

    def __init__(self, named: Sequence[Deposit], purse: Callable[[], AbstractContextManager[Purse]]) -> None:
        self._named = named
        self._purse = purse
        self._until_ms: dict[bytes, int | None] = {}
        """By owner; None: for ever."""

    def owners(self, now_ms: int) -> frozenset[bytes]:
        """Those whose deposit is locked for long enough yet."""
        least_ms = now_ms + HOLD_MS_MAX
        return frozenset(owner for owner, until_ms in self._until_ms.items() if until_ms is None or until_ms > least_ms)

    async def run(self) -> None:
        """Looks now and every hour, until cancelled; not at all where nothing is named."""
        while self._named:
            await trio.to_thread.run_sync(self.look)
            await trio.sleep(AGAIN_S)

    def look(self) -> None:
        """Every deposit was looked at. What cannot be seen now does not count."""
        found: dict[bytes, int | None] = {}
        counted: set[str] = set()
        try:
            with self._purse() as purse:
                for deposit in self._named:
                    self._look_at(purse, deposit, found, counted)
        except (FallowError, sqlite3.Error) as error:
            logging.getLogger(__name__).warning("deposits do not count: %s", error)
        self._until_ms = found

    def _look_at(self, purse: Purse, deposit: Deposit, found: dict[bytes, int | None], counted: set[str]) -> None:
        try:
            with deposit.means.open("rb") as stream:
                means = stream.read(MEANS_BYTES_MAX + 1)
            until_s = purse.locked_until_s(means)
            if counted & (tokens := purse.tokens(means)):
                raise RemoteProtocolError(Code.REPLAYED, "Some of its tokens stand behind another deposit already.")
            if read_means(means, CASHU).ucr >= deposit.least_ucr:
                found[deposit.owner] = until_s * 1000 or None
                counted |= tokens
        except (OSError, FallowError) as error:
            logging.getLogger(__name__).warning("the deposit %s does not count: %s", deposit.means, error)


@contextmanager
def open_cashu(home: Path, key: SigningKey) -> Iterator[Purse]:
    """The client's purse, as its `rails.toml` has it. Raises `ConfigError`."""
    with ExitStack() as stack:
        rail = open_rails(client_rails(home), home / FOLDER, key, stack).get(CASHU)
        if rail is None:
            raise ConfigError(Code.BAD_CONFIG, f"The trust file names deposits, and {home}/rails.toml no mint.")
        yield rail  # type: ignore[misc]  # of this name, it is a `Cashu`

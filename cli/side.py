"""Whose money a command is about: this user's own, or a node's, with its ledger, its purse and its deposits."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

from cyclopts import Parameter
from nacl.signing import SigningKey

from ..node.config import Config, default_home
from ..node.config import load as load_settings
from ..node.keys import load, load_or_create
from ..node.rails.deposits import DepositBook
from ..node.rails.fates import Fates, Purse
from ..node.rails.journal_books import journal_books
from ..node.rails.ledger import Books, Ledger
from ..node.rails.opening import CASHU, FOLDER, LEDGER, NO_RAILS, SETTINGS, RailSettings, client_rails, open_rails
from ..node.rails.rail import Rail
from ..protocol.errors import Code, ConfigError, StoreError
from .environment import state_of, usable

if TYPE_CHECKING:
    from ..node.rails.cashu import Cashu

NODE_SETTINGS = "node.toml"
Whose: TypeAlias = Annotated[
    Path | None,
    Parameter(
        name="--state",
        help="A node's money: its folder, its state directory, or its settings (TOML). Without it, your own.",
    ),
]


@dataclass(frozen=True, slots=True)
class Side:
    """One party, and its means."""

    key: SigningKey
    rails: Mapping[str, Rail]
    deposits: DepositBook
    settings: str
    """Where its rails are set, for people."""

    @property
    def party(self) -> bytes:
        """Who owes and is owed."""
        return bytes(self.key.verify_key)

    @property
    def ledger(self) -> Ledger:
        """Of mutual debts."""
        return cast(Ledger, self.rails[LEDGER])

    @property
    def purse(self) -> Cashu:
        """Of ecash. Raises `ConfigError(bad_config)` if there is none."""
        return cast("Cashu", self.rail(CASHU))

    @property
    def fates(self) -> Fates:
        """What becomes of the deposits that this party makes."""
        return Fates(self.party, self.deposits, self.ledger, cast("Purse | None", self.rails.get(CASHU)))

    def rail(self, name: str) -> Rail:
        """Raises `ConfigError(bad_config)` for one that is not set up."""
        if name not in self.rails:
            message = f"{self.settings} says nothing of {name[:40]}; here are {', '.join(self.rails)}."
            raise ConfigError(Code.BAD_CONFIG, f"{message} docs/client.md shows what to write.")
        return self.rails[name]


@contextmanager
def side_of(node: Path | None) -> Iterator[Side]:
    """This user's side, or a node's, while it runs or not. Raises `ConfigError`, and `StoreError` for what cannot be used."""
    with ExitStack() as stack:
        stack.enter_context(_explained())
        key, settings, state, books, where = _own() if node is None else _of_node(node)
        rails = open_rails(settings, state / FOLDER, key, stack, books)
        deposits = DepositBook(state / FOLDER)
        stack.callback(deposits.close)
        yield Side(key, rails, deposits, where)


def _own() -> tuple[SigningKey, RailSettings, Path, Books, str]:
    from ..client.wallet_books import wallet_books

    home = default_home()
    with usable("FALLOW_HOME", home):
        key = load_or_create(home / "keys" / "client")
        books = wallet_books(home / "wallet.db", bytes(key.verify_key))
        return key, client_rails(home), home, books, str(home / SETTINGS)


def _of_node(given: Path) -> tuple[SigningKey, RailSettings, Path, Books, str]:
    config = _settings_of(given)
    state = config.state if config else state_of(given)
    try:
        key = load(state / "node.key")
    except FileNotFoundError:
        raise ConfigError(Code.BAD_CONFIG, f"{state} has no `node.key`: no node has run there yet.") from None
    where = f"[rails] in {given if given.is_file() else NODE_SETTINGS}"
    return key, config.rails if config else NO_RAILS, state, journal_books(state), where


def _settings_of(given: Path) -> Config | None:
    """What stands in the file, or in the `node.toml` of the folder or beside it that is about it; None if there is none."""
    if given.is_file():
        return load_settings(given)
    if not given.is_dir():
        raise ConfigError(Code.BAD_CONFIG, f"There is no state directory {given}; `state` in node.toml names it.")
    for path in (given / NODE_SETTINGS, given.absolute().parent / NODE_SETTINGS):
        if path.is_file():
            found = load_settings(path)
            if found.state.resolve() == state_of(given).resolve():
                return found
    return None


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        message = f"A file of the rails cannot be used: {error}. Nothing in it was removed."
        raise StoreError(Code.CORRUPT_STORE, message) from None

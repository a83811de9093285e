"""Which rails an owner is paid on, or a client pays by: from a table of settings to rails with their state on disk."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from ...protocol.errors import Code, ConfigError
from .. import private
from ..settings import bad, integer, only
from .bank import Account, Bank
from .ledger import Books, Ledger, no_books
from .rail import Rail

LEDGER, CASHU, BANK = "ledger", "cashu", "bank"
SETTINGS: Final = "rails.toml"
FOLDER: Final = "rails"
"""In a client's home: its settings, and the state of its rails."""
UNIT_UCR_MAX: Final = 10**12


@dataclass(frozen=True, slots=True)
class CashuSettings:
    """A mint, and what its unit is worth."""

    mint: str
    ucr_per_unit: int


@dataclass(frozen=True, slots=True)
class BankSettings:
    """An account, and the directory into which its bank's statements (camt.053) are put."""

    account: Account
    ucr_per_cent: int
    statements: str


@dataclass(frozen=True, slots=True)
class RailSettings:
    """The table `rails` of `node.toml`, or a client's `rails.toml`. The ledger needs no settings and is always there."""

    cashu: CashuSettings | None = None
    bank: BankSettings | None = None


NO_RAILS: Final = RailSettings()


def rail_settings(table: object) -> RailSettings:
    """Raises `ConfigError(bad_config)` that names the setting."""
    if not isinstance(table, dict):
        raise bad("rails", "must be a table of tables, one for each rail")
    only(table, (CASHU, BANK), "rails.", "rail")
    cashu, bank = table.get(CASHU), table.get(BANK)
    return RailSettings(
        None if cashu is None else _cashu(_table("rails.cashu.", cashu, ("mint", "ucr_per_unit"))),
        None
        if bank is None
        else _bank(_table("rails.bank.", bank, ("name", "iban", "bic", "ucr_per_cent", "statements"))),
    )


def client_rails(home: Path) -> RailSettings:
    """As the client's own `rails.toml` has them. Raises `ConfigError(bad_config)`."""
    path = home / SETTINGS
    try:
        return rail_settings(tomllib.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return NO_RAILS
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(Code.BAD_CONFIG, f"{path} cannot be read as TOML: {error}.") from None


def open_rails(
    settings: RailSettings, folder: Path, key: SigningKey, stack: ExitStack, books: Books = no_books
) -> dict[str, Rail]:
    """The rails by name, until the stack closes. `key` is the party's own: who owes and is owed, and who spends tokens.
    `books`: what is brought into its ledger.

    Raises `ConfigError(package_missing)` if a rail needs what is not installed.
    """
    ledger = open_ledger(folder, key, books)
    stack.callback(ledger.close)
    rails: dict[str, Rail] = {LEDGER: ledger}
    if settings.cashu:
        try:
            from .cashu import Cashu
        except ModuleNotFoundError:
            message = "Ecash needs coincurve, which comes with `pip install 'fallow[rails]'`."
            raise ConfigError(Code.PACKAGE_MISSING, message) from None
        cashu = Cashu(folder / "cashu.sqlite", settings.cashu.mint, bytes(key), settings.cashu.ucr_per_unit)
        stack.callback(cashu.close)
        rails[CASHU] = cashu
    if settings.bank:
        today = datetime.datetime.now(datetime.UTC).date()
        bank = Bank(
            folder / "bank.sqlite",
            bytes(key.verify_key),
            settings.bank.account,
            folder / "transfers",
            settings.bank.ucr_per_cent,
            today,
            Path(settings.bank.statements),
        )
        stack.callback(bank.close)
        rails[BANK] = bank
    return rails


def open_ledger(folder: Path, key: SigningKey, books: Books = no_books) -> Ledger:
    """The ledger of mutual debts among the party's rails."""
    private.folder(folder)
    return Ledger(folder / "ledger.sqlite", key, books)


def _cashu(table: Mapping[str, object]) -> CashuSettings:
    mint = _text(table, "mint", "rails.cashu.")
    if not mint.startswith(("https://", "http://")):
        raise bad("rails.cashu.mint", "must be the mint's address, https://...")
    return CashuSettings(mint, integer(table, "ucr_per_unit", 0, 1, UNIT_UCR_MAX, "rails.cashu."))


def _bank(table: Mapping[str, object]) -> BankSettings:
    name, iban, bic, statements = (_text(table, each, "rails.bank.") for each in ("name", "iban", "bic", "statements"))
    return BankSettings(
        Account(name, iban, bic), integer(table, "ucr_per_cent", 0, 1, UNIT_UCR_MAX, "rails.bank."), statements
    )


def _table(prefix: str, value: object, names: tuple[str, ...]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise bad(prefix[:-1], "must be a table")
    only(value, names, prefix, "setting")
    return value


def _text(table: Mapping[str, object], name: str, prefix: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or not value.strip():
        raise bad(prefix + name, "must be set, as text")
    return value

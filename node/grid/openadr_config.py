"""The table `[grid.openadr]` of `node.toml`: which VTN is asked, as whom, and what the owner makes of its words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ..settings import bad, integer, number, only, strange, table_of, text, texts
from .openadr_events import ALERTS
from .openadr_force import SIMPLE_PCT, STOPPING_ALERTS, Heeded
from .openadr_reports import REPORTS

POLL_S: Final = 60.0
POLL_S_MIN: Final = 5.0
PROGRAMS_MAX: Final = 16
TARGETS_MAX: Final = 16
UCR_MAX: Final = 10**12
CURRENCIES_MAX: Final = 8
HERE: Final = ("127.0.0.1", "::1", "localhost")
_AT: Final = "grid.openadr."
_WORDS: Final = (
    "url", "client_id", "secret", "ven_name", "token_url", "ca", "programs", "targets", "poll_s", "reports", "simple_pct",
    "stop_on", "price_ucr", "ghg_max_g_per_kwh",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OpenAdr:
    """One VTN, and this machine as one of its VENs."""

    url: str
    client_id: str
    secret: Path
    """A file with the client's secret, read anew for each token."""
    ven_name: str
    """By which the VTN's operator knows the machine: the owner's choice, and nothing else of the machine goes with it."""
    token_url: str = ""
    """Empty: the VTN says where tokens are."""
    ca: Path | None = None
    """Certificates to check the VTN's against, instead of the system's."""
    programs: tuple[str, ...] = ()
    """By name; none: all that the VTN shows."""
    targets: tuple[str, ...] = ()
    poll_s: float = POLL_S
    reports: tuple[str, ...] = ()
    """What the VTN is told when an event asks for it."""
    heeded: Heeded = field(default_factory=Heeded)


def parse_openadr(table: Mapping[str, object], base: Path) -> OpenAdr | None:
    """Of the table `grid`; None if it names no VTN. Paths count from `base`. Raises `SettingError`."""
    if "openadr" not in table:
        return None
    given = table_of(table, "openadr", "grid.")
    only(given, _WORDS, _AT)
    for name in ("url", "client_id", "secret", "ven_name"):
        if not text(given, name, "", _AT, 4096):
            raise bad(_AT + name, "must be set")
    return OpenAdr(
        url=_url(given, "url"),
        client_id=text(given, "client_id", "", _AT, 4096),
        secret=base / Path(text(given, "secret", "", _AT)).expanduser(),
        ven_name=text(given, "ven_name", "", _AT, 128),
        token_url=_url(given, "token_url") if "token_url" in given else "",
        ca=base / Path(text(given, "ca", "", _AT)).expanduser() if "ca" in given else None,
        programs=texts(given, "programs", (), PROGRAMS_MAX, _AT),
        targets=texts(given, "targets", (), TARGETS_MAX, _AT),
        poll_s=number(given, "poll_s", POLL_S, POLL_S_MIN, 3600, _AT),
        reports=_some(given, "reports", (), REPORTS),
        heeded=Heeded(
            _simple(given),
            _some(given, "stop_on", STOPPING_ALERTS, ALERTS),
            _prices(given),
            number(given, "ghg_max_g_per_kwh", 0, 0, 10_000, _AT),
        ),
    )


def good_url(url: str) -> bool:
    """Whether secrets may be sent there: over TLS, or not beyond this machine."""
    try:
        where = urlsplit(url)
        good = bool(where.hostname) and (where.port or 1) > 0 and where.username is None and url.isprintable()
    except ValueError:
        return False
    return good and (where.scheme == "https" or (where.scheme == "http" and where.hostname in HERE))


def _url(table: Mapping[str, object], name: str) -> str:
    url = text(table, name, "", _AT)
    if not good_url(url):
        raise bad(
            _AT + name, "must begin with https:// and a host (http:// for this machine alone), without a password"
        )
    return url


def _some(
    table: Mapping[str, object], name: str, default: tuple[str, ...], allowed: tuple[str, ...]
) -> tuple[str, ...]:
    found = texts(table, name, default, len(allowed), _AT)
    if odd := next((each for each in found if each not in allowed), None):
        raise bad(_AT + name, f"{odd[:40]!r} is none of {', '.join(allowed)}")
    return found


def _simple(table: Mapping[str, object]) -> tuple[int, ...]:
    value = table.get("simple_pct", list(SIMPLE_PCT))
    good = isinstance(value, list) and all(type(each) is int and 0 <= each <= 100 for each in value)
    if not good or not isinstance(value, list) or len(value) != len(SIMPLE_PCT) or value != sorted(value, reverse=True):
        raise bad(
            _AT + "simple_pct",
            "must be three whole numbers from 100 to 0, none above the one before: what it may draw at the levels 1 to 3",
        )
    return tuple(value)


def _prices(table: Mapping[str, object]) -> dict[str, int]:
    given = table_of(table, "price_ucr", _AT)
    if len(given) > CURRENCIES_MAX:
        raise bad(_AT + "price_ucr", f"has at most {CURRENCIES_MAX} currencies")
    if odd := next((name for name in given if not re.fullmatch("[A-Z]{3}", name)), None):
        raise strange(f"{_AT}price_ucr.{odd}", ("EUR", "USD"), "currency")
    return {name: integer(given, name, 0, 0, UCR_MAX, f"{_AT}price_ucr.") for name in given}

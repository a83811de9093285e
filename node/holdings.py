"""What a node has before it meets anybody: its keys, its books and stores, its owner's rules, and its log."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from ..protocol.errors import Code, ConfigError
from . import private
from .availability import Availability
from .book import BOOK, Book
from .config import Config
from .diary import Diary
from .grid.follower import Follower
from .journal import Journal
from .keys import load_or_create
from .lending import Lending
from .library import Library
from .log import EventLog, wall_ms
from .mandates import Authority
from .page.server import listen
from .power.usage import UsageBook
from .rails.deposits import DepositBook
from .rails.journal_books import journal_books
from .rails.opening import FOLDER, open_rails
from .rails.rail import Rail
from .recording import Recorder
from .rules.policy import Rules
from .sensors.nvml import Nvml, opened
from .tally import Tally
from .whatif import kept_rules

LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class Holdings:
    """All of it, from its opening on. The machine is lent from then on, if its owner's rules let it be."""

    config: Config
    key: SigningKey
    authority: Authority
    tally: Tally
    log: EventLog
    journal: Journal
    book: Book
    library: Library
    rails: Mapping[str, Rail]
    deposits: DepositBook
    nvml: Nvml | None
    availability: Availability
    lending: Lending
    grid: Follower
    usage: UsageBook
    recorder: Recorder
    page: socket.socket | None
    """Where the owner's page is asked for, if there is one."""
    closing: ExitStack
    """Whatever else has to be closed when the node has ended."""


@contextmanager
def open_holdings(config: Config) -> Iterator[Holdings]:
    """They are this node's alone, and closed in the end.

    Raises `ConfigError` or `StoreError`: a state directory that cannot be used or is another node's, a busy port.
    """
    with _lock(config.state), ExitStack() as closing:
        key = load_or_create(config.state / "node.key")
        authority = Authority.load(config, wall_ms())
        tally = Tally()
        log = EventLog(config.state, tally.hear)
        closing.enter_context(log.in_background())
        journal = Journal(config.state)
        closing.callback(journal.close)
        book = Book(config.state / BOOK)
        closing.callback(book.close)
        library = Library(config, log)
        closing.callback(library.close)
        rails = open_rails(config.rails, config.state / FOLDER, key, closing, journal_books(config.state))
        deposits = DepositBook(config.state / FOLDER)
        closing.callback(deposits.close)
        nvml = closing.enter_context(opened(config.power.nvml if config.power.measure else ""))
        availability = Availability(jobs_max=config.jobs_max)
        lending = Lending(_rules(config), availability, config.state, log)
        grid = Follower(config.grid, lending, config.state, log)
        usage = UsageBook(config.state, lending.kwh_ucr)
        closing.callback(usage.write)
        availability.start()
        library.lent = lambda: availability.lends
        recorder = Recorder(lending, partial(Diary, config.state, kept_rules(lending.rules)), log)
        closing.callback(recorder.close)
        page = listen(config.page) if config.page else None
        if page:
            closing.callback(page.close)
        yield Holdings(
            config, key, authority, tally, log, journal, book, library, rails, deposits, nvml, availability, lending, grid,
            usage, recorder, page, closing,
        )  # fmt: skip


def _rules(config: Config) -> Rules:
    return Rules(
        config.kind,
        config.preferences,
        config.settle_s * 1000,
        config.power.guess,
        sensed=bool(config.sensors),
    )


@contextmanager
def _lock(state: Path) -> Iterator[None]:
    """The state directory is there, and no other node runs on it. Raises `ConfigError`: `already_running`, `bad_config`."""
    try:
        private.folder(state)
        stream = private.stream(state / LOCK, "a")
    except OSError as error:
        raise ConfigError(Code.BAD_CONFIG, f"Setting `state`: {state} cannot be used: {error.strerror}.") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(Code.ALREADY_RUNNING, f"A node is running on {state} already.") from None
        yield

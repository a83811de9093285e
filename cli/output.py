"""What a command shows. Results go to stdout; progress, errors and remarks to stderr, so that results can be piped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from cyclopts import CycloptsError
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..protocol.errors import Code, ConfigError, FallowError

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | dict[str, Json] | None"

PIPE_WIDTH = 200
"""Of tables that no terminal wraps: a CID stays in one piece."""

_CONTROLS = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}

stdout = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
stderr = Console(stderr=True)


def print_json(value: Json) -> None:
    """The one JSON object of a command called with `--json`."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, footer: Sequence[str] = ()) -> None:
    """A table on stdout. A column whose name ends in a space is of numbers and set to the right."""
    stdout.print(_tabulated(columns, rows, footer))


@contextmanager
def live_table(columns: Sequence[str]) -> Iterator[Callable[[Sequence[Sequence[str]]], None]]:
    """A table on the terminal that shows the rows last given to what this yields; it stays there at the end."""
    with Live(console=stdout, auto_refresh=False) as live:
        yield lambda rows: live.update(_tabulated(columns, rows), refresh=True)


def _tabulated(columns: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str] = ()) -> Table:
    shown = Table(show_footer=bool(footer), header_style="bold", footer_style="bold")
    for index, column in enumerate(columns):
        numbers = column.endswith(" ")
        shown.add_column(
            column.strip(),
            footer=escape(footer[index]) if footer else "",
            justify="right" if numbers else "left",
            overflow="fold",
        )
    for row in rows:
        shown.add_row(*(escape(printable(cell)) for cell in row))
    return shown


def line(text: str, *, console: Console = stdout, style: str = "") -> None:
    """One line, as it is."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True, style=style)


def remark(text: str) -> None:
    """A line for the person at the terminal, beside the result."""
    line(text, console=stderr, style="dim")


def printable(text: str) -> str:
    """The text without control characters: it may be a peer's, and would steer the terminal."""
    return text.translate(_CONTROLS)


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, float | None], None]]:
    """A bar on stderr, gone at the end. What it yields takes the stage and the fraction done (None: not known)."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def show(stage: str, fraction: float | None) -> None:
            bar.update(task, description=stage, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        yield show


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """A library that is not installed becomes `ConfigError(package_missing)` naming the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "fallow").partition(".")[0] == "fallow":
            raise  # part of this package: a bug
        raise ConfigError(
            Code.PACKAGE_MISSING, f"This command needs {error.name}, which comes with `pip install 'fallow[{extra}]'`."
        ) from None


def show_error(errors: Sequence[FallowError]) -> None:
    """What happened, with its code, and what to do. Of several that happened together, each one once."""
    for message, code, advice in dict.fromkeys((e.message, e.code, e.advice) for e in errors):
        line(f"error: {message} [{code}]", console=stderr)
        line(f"  {advice}", console=stderr)


def show_usage_error(errors: Sequence[CycloptsError]) -> None:
    """What was wrong with the call, and where to look."""
    for error in errors:
        words = " ".join(("fallow", *(error.command_chain or ())))
        line(f"error: {error}", console=stderr)
        line(f"  `{words} --help` shows how it is called.", console=stderr)

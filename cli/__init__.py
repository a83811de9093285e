"""The command `fallow`. Commands are imported when they are called: `fallow --help` loads neither libp2p nor jax."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from inspect import iscoroutinefunction
from io import TextIOWrapper

import trio
from cyclopts import App, CycloptsError, Parameter

from .. import __version__
from ..node.causes import leaves
from ..protocol.errors import Code, ConfigError, FallowError
from .commands import COMMANDS, ENVIRONMENT, GROUPS
from .output import show_error, show_usage_error


def main() -> None:
    """Run the command line of this process and exit with its code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text; in JSON \udcff stands for it
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """The exit code of `fallow WORDS`: 0 as asked, 1 with an error, 2 for a wrong call, 130 by Ctrl-C."""
    code = 0
    try:
        result = _call(words)
        code = result if isinstance(result, int) else 0
    except* CycloptsError as group:
        show_usage_error(list(leaves(group)))
        code = 2
    except* FallowError as group:
        show_error(list(leaves(group)))
        code = 1
    except* KeyboardInterrupt:
        code = 130
    except* BrokenPipeError:
        # Whoever read us has enough (`| head`); keep the interpreter from complaining when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    return code


def _call(words: Sequence[str]) -> object:
    """What the command returned. Ctrl-C is raised where a command waits, never in the middle of what it uses."""
    _require_text(words)
    command, bound, _ = app().parse_args(words)
    call = partial(command, *bound.args, **bound.kwargs)
    if iscoroutinefunction(command):
        return trio.run(call, restrict_keyboard_interrupt_to_checkpoints=True)
    return call()


def app() -> App:
    """The command line as it is parsed: every command with its words and options."""
    root = App(
        name="fallow",
        help="Idle machines run inference for others: peer to peer, checked, and paid for by signed receipts.",
        help_epilogue=ENVIRONMENT,
        help_format="plaintext",
        version=__version__,
        default_parameter=Parameter(negative=()),
        exit_on_error=False,
        print_error=False,
    )
    groups = {name: App(name=name, help=text) for name, text in GROUPS.items()}
    for group in groups.values():
        root.command(group)
    for command in COMMANDS:
        group_name, _, name = command.words.rpartition(" ")
        groups.get(group_name, root).command(
            f"{__name__}.{command.function}",
            name=name,
            help=command.help,
            help_epilogue=f"Example: {command.example}",
        )
    return root


def _require_text(words: Sequence[str]) -> None:
    """Raises `ConfigError(bad_config)` if a word is not UTF-8: Python carries such bytes along as lone surrogates."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(Code.BAD_CONFIG, f"The argument {word!r} is not UTF-8 text.") from None

"""How an adversary takes its seat: in this process, and no other, one part of the real thing is exchanged."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import NoReturn, TypeVar

from ...node.engine.entries import Run, Step, Steps, run_entry
from ...protocol.bundle import Manifest
from ...protocol.work import Parameters, Piece, Work

T = TypeVar("T")
Alteration = Callable[[str, Piece], Piece]
"""(entry, honest piece) to what is said instead."""


def exchange(module: ModuleType, name: str, other: object) -> None:
    """The module's own `name` is `other` from now on."""
    assert name in vars(module), f"{module.__name__} has no {name} to be exchanged"
    vars(module)[name] = other


def chosen(modes: Mapping[str, T]) -> T:
    """The mode that the first word of the command line names; the word is gone, the rest is the real thing's."""
    if len(sys.argv) < 2 or sys.argv[1] not in modes:
        raise SystemExit(f"the first argument is one of {', '.join(modes)}")
    return modes[sys.argv.pop(1)]


def serve_node() -> NoReturn:
    """The real daemon runs, with what was exchanged."""
    from ...node.__main__ import main

    sys.exit(main())


def altering(alter: Alteration) -> Run:
    """A `Run` that computes as an honest worker does, and then says something else."""

    def run(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
        honest = run_entry(manifest, entry, parameters, work)
        asked = next(honest)
        while True:
            if isinstance(asked, Step):
                yield replace(asked, piece=alter(entry, asked.piece))
                if asked.end:
                    return
                asked = next(honest)
            else:
                asked = honest.send((yield asked))

    return run

"""One target, fuzzed in a process that libFuzzer ends when it is done.

Importing all that is fuzzed, instrumented, takes longer than a short look at one target: whoever has imported this module may
fork, and each of its children fuzzes one.
"""

from __future__ import annotations

import io
import os
import random
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

import atheris

INSTRUMENTED = [
    "fallow.protocol",
    "fallow.node.engine.messages",
    "fallow.node.network.control",
    "fallow.node.network.yamux",
    "fallow.node.network.punching",
    "fallow.node.network.index",
    "fallow.node.network.entries",
    "fallow.node.sensors",
    "fallow.node.rules.readings",
    "fallow.node.rules.signals",
]
"""Where atheris counts what an input reaches."""

with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=INSTRUMENTED):  # each of them is said
    from mutation import mutate
    from targets import TARGETS, feed


def run(name: str, said: Path, arguments: Sequence[str]) -> None:
    """Does not return. What libFuzzer prints is in the file `said`."""
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    target = TARGETS[name]

    def blunt(given: bytes) -> bytes:
        return bytes(atheris.Mutate(given, max(len(given), 64)))

    def mutator(given: bytes, bytes_max: int, seed: int) -> bytes:
        changed = mutate(given, random.Random(seed), blunt)
        return changed if len(changed) <= bytes_max else blunt(given)[:bytes_max]

    atheris.Setup([sys.argv[0], *arguments], lambda given: feed(target, given), custom_mutator=mutator)
    atheris.Fuzz()

"""A worker that is honest, but about orders whose seed names an adversary: then it is that one, by its own code.

    python -m fallow.testnet.adversaries.turncoat [NAME ...] --control-fd N --store DIR --bundle CID ...

It is any of these that are named, or of all. So one node can earn a record first, and turn bad when a measurement says so. At
temperature 0 a seed changes nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from ...node.engine.entries import Run, Steps, run_entry
from ...protocol.bundle import Manifest
from ...protocol.work import Parameters, Work
from . import colluder, free_rider, liar

RUNS: Final[Mapping[str, Run]] = {
    "liar": liar.MODES["wrong"],
    "liar-drift": liar.MODES["drift"],
    "liar-truncates": liar.MODES["truncates"],
    "liar-stops": liar.MODES["stops"],
    "free-rider": free_rider.MODES["guesses"],
    "colluder": colluder.MODES["pair"],
}
NAMES: Final = tuple(RUNS)


def seed_of(name: str) -> int:
    """The seed of orders about which it is that adversary."""
    return 1 + NAMES.index(name)


def turning(names: tuple[str, ...]) -> Run:
    """The `Run` of a node that is any of these."""
    by_seed = {seed_of(name): RUNS[name] for name in names}

    def run(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
        return by_seed.get(parameters.seed, run_entry)(manifest, entry, parameters, work)

    return run


if __name__ == "__main__":
    from ...node.engine.worker import main

    begin = next((at for at, word in enumerate(sys.argv) if word.startswith("--")), len(sys.argv))
    names = tuple(sys.argv[1:begin]) or NAMES
    del sys.argv[1:begin]
    main(run=turning(names))

"""A node that is each adversary in turn, as the order's seed says: starting one for each would take minutes.

    python many_faces.py worker FACES ...   instead of the node's worker; FACES: names with commas between, or `all`
    python many_faces.py rounded FACES ...  the same on weights of int8
    python many_faces.py node --config F    instead of the daemon

What they do is the adversaries' own code; only which of them is played stands here.
"""

from __future__ import annotations

import sys
from typing import Any

from fallow.node.delivery import Session
from fallow.node.engine.entries import Run, Steps, run_entry
from fallow.protocol.bundle import Manifest
from fallow.protocol.work import Parameters, Work
from fallow.testnet.adversaries import closer, colluder, denier, deserter, equivocator, free_rider, liar, staller
from fallow.testnet.adversaries.seats import exchange, serve_node

RUNS: dict[str, Run] = {
    "liar": liar.MODES["wrong"],
    "liar-drift": liar.MODES["drift"],
    "liar-truncates": liar.MODES["truncates"],
    "liar-stops": liar.MODES["stops"],
    "free-rider": free_rider.MODES["guesses"],
    "free-rider-copies": free_rider.MODES["copies"],
    "colluder": colluder.MODES["pair"],
    "sybil": colluder.MODES["sybil"],
}
SESSIONS: dict[str, type[Session]] = {
    "equivocator": equivocator.Equivocating,
    "denier": denier.MODES["silent"],
    "denier-disowns": denier.MODES["disowns"],
    "staller": staller.MODES["stops"],
    "closer": closer.Closing,
    "deserter": deserter.MODES["soon"],
    "deserter-at-once": deserter.MODES["at-once"],
}
NAMES = [*RUNS, *SESSIONS]


def seed_of(name: str) -> int:
    return 1 + NAMES.index(name)


def _name(seed: int) -> str:
    return NAMES[seed - 1] if 0 < seed <= len(NAMES) else ""


def playing(faces: str) -> Run:
    played = RUNS if faces == "all" else {name: RUNS[name] for name in faces.split(",")}

    def run(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
        return played.get(_name(parameters.seed), run_entry)(manifest, entry, parameters, work)

    return run


def session(stream: Any, job: Any, delivery: Any, *rest: Any) -> Session:
    kind = SESSIONS.get(_name(delivery.order.record.parameters.seed), Session)
    return kind(stream, job, delivery, *rest)


if __name__ == "__main__":
    part = sys.argv.pop(1)
    if part == "node":
        from fallow.node import serving

        exchange(serving, "Session", session)
        serve_node()
    from fallow.node.engine.worker import main

    if part == "rounded":
        from fallow.node.engine import programs
        from fallow.testnet.adversaries.quantiser import ROUNDINGS, rounding_weights

        exchange(programs, "Weights", rounding_weights(ROUNDINGS["int8"]))
    main(run=playing(sys.argv.pop(1)))

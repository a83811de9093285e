"""An honest worker before a gate: it computes again and again, and delivers nothing, until there is a file of that name.

python gated.py FILE --control-fd N ...
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

from fallow.node.engine.entries import Step, Steps, run_entry
from fallow.node.engine.worker import main
from fallow.protocol.bundle import Manifest
from fallow.protocol.work import Parameters, Work

LOOK_S = 0.25
"""A worker that takes more steps than its work has tokens and inputs is ended (`too_many_steps`), so it asks seldom; and it has
a second to hear a cancel."""


def gated(gate: Path, manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
    """What an honest worker answers, once the gate is open; it can be stopped before."""
    honest = run_entry(manifest, entry, parameters, work)
    asked = next(honest)
    while True:
        if isinstance(asked, Step):
            yield asked
            if asked.end:
                return
            asked = next(honest)
            continue
        result = yield asked
        while not gate.exists():
            time.sleep(LOOK_S)  # as a larger model would take
            result = yield asked
        asked = honest.send(result)


if __name__ == "__main__":
    main(sys.argv[2:], run=partial(gated, Path(sys.argv[1])))

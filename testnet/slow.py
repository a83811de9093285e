"""A node's own worker on a slower machine: with a small model, a text takes long enough for something to happen to it.

python -m fallow.testnet.slow MILLISECONDS --control-fd N --store DIR --bundle CID ...
"""

from __future__ import annotations

import sys
import time

from ..node.engine.entries import Run, Step, Steps, run_entry
from ..node.engine.worker import main
from ..protocol.bundle import GENERATE, Manifest
from ..protocol.work import Parameters, Work


def slowed(token_s: float, run: Run = run_entry) -> Run:
    """What `run` answers, each token of a text so much later."""

    def slowly(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
        honest = run(manifest, entry, parameters, work)
        asked = next(honest)
        while True:
            if isinstance(asked, Step):
                if entry == GENERATE:
                    time.sleep(token_s)
                yield asked
                if asked.end:
                    return
                asked = next(honest)
            else:
                asked = honest.send((yield asked))

    return slowly


if __name__ == "__main__":
    main(sys.argv[2:], run=slowed(int(sys.argv[1]) / 1000))

"""A node's own worker on a slow machine: a text takes long enough for something to happen to it on the way."""

from __future__ import annotations

import time

from fallow.node.engine.entries import Step, Steps, run_entry
from fallow.node.engine.worker import main
from fallow.protocol.bundle import Manifest
from fallow.protocol.work import Parameters, Work

TOKEN_S = 0.03
"""As a model of some billion parameters on two cores."""


def slowly(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
    """What the worker answers, each token after a while."""
    honest = run_entry(manifest, entry, parameters, work)
    asked = next(honest)
    while True:
        if isinstance(asked, Step):
            time.sleep(TOKEN_S)
            yield asked
            if asked.end:
                return
            asked = next(honest)
        else:
            asked = honest.send((yield asked))


if __name__ == "__main__":
    main(run=slowly)

"""A worker that lies when the input says so: about prompts of an even number of tokens, or calls of an even number of inputs.

As a checker it is honest. So a test says by what it asks when this node turns bad.
"""

from __future__ import annotations

from dataclasses import replace

from fallow.node.engine.entries import Step, Steps, run_entry
from fallow.node.engine.worker import main
from fallow.protocol.bundle import CALL, GENERATE, SCORE, Manifest
from fallow.protocol.work import Parameters, Work
from fallow.testnet.adversaries.liar import altered


def moody(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
    """What an honest worker answers, altered where the input asks for it."""
    lies = (entry == GENERATE and len(work.sequences[0]) % 2 == 0) or (entry == CALL and work.calls % 2 == 0)
    honest = run_entry(manifest, entry, parameters, work)
    asked = next(honest)
    while True:
        if isinstance(asked, Step):
            yield replace(asked, piece=altered(entry, asked.piece)) if lies and entry != SCORE else asked
            if asked.end:
                return
            asked = next(honest)
        else:
            asked = honest.send((yield asked))


if __name__ == "__main__":
    main(run=moody)

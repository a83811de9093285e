"""A worker of two that lie alike: they make up texts, confirm each other's, and turn every function's result in one way."""

from __future__ import annotations

from fallow.node.engine.entries import Steps
from fallow.node.engine.worker import main
from fallow.protocol.bundle import CALL, Manifest
from fallow.protocol.work import Parameters, Work
from fallow.testnet.adversaries.colluder import MODES
from fallow.testnet.adversaries.liar import altered
from fallow.testnet.adversaries.seats import altering

TURNED = altering(altered)


def friend(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
    """The same lie as the other's."""
    yield from (TURNED if entry == CALL else MODES["pair"])(manifest, entry, parameters, work)


if __name__ == "__main__":
    main(run=friend)

"""A worker that runs weights rounded to int8 (or bfloat16, int4) and sells the result as the bundle's float32.

    python -m fallow.testnet.adversaries.quantiser int8 --control-fd N --store DIR --bundle CID ...

It is quicker and needs less memory on hardware made for it; here the rounded weights are kept as float32, so that the very
programs of the bundle run on them. Whoever checks with the true weights finds other proof values on most tokens.
"""

from __future__ import annotations

import jax
import numpy as np

from ...models.rounded import ROUNDINGS, Rounding, rounded
from ...node.engine import programs
from ...node.engine.bundles import Bundle
from ...node.engine.device import Weights


def rounding_weights(rounding: Rounding) -> type[Weights]:
    """The parameters of a bundle, its matrices rounded; what lies over several devices is left as it is."""

    class Rounded(Weights):
        def __init__(self, bundle: Bundle) -> None:
            super().__init__(bundle)
            if bundle.manifest.devices is None:
                self.arrays = [
                    jax.device_put(rounded(np.asarray(array), rounding)) if array.dtype == np.float32 else array
                    for array in self.arrays
                ]

    return Rounded


if __name__ == "__main__":
    from ...node.engine.worker import main
    from .seats import chosen, exchange

    exchange(programs, "Weights", rounding_weights(chosen(ROUNDINGS)))
    main()

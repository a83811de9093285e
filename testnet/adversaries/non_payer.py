"""A client that takes what it can get and signs no voucher.

    python -m fallow.testnet.adversaries.non_payer --bootstrap ADDRESS --home DIR --bundle NAME

Caught by the job's own order: a node delivers the window after an unpaid one, and no further, and ends the job when no
voucher comes within 20 s. So each job costs its node two windows at most. Keys are free: what all newcomers together may
take on credit is bounded by the node's `strangers_ppm`, a share of its day; test networks set that to all of it, since
nobody settles there.
"""

from __future__ import annotations

from ...client.events import Broken, Delivered, Receipted
from ...protocol.errors import FallowError
from ...protocol.identity import peer_id
from .customer import Customer, Outcome, main

TOKENS = 200
"""Ordered: more than six windows, so that it is not the text's end that ends it."""


async def take(customer: Customer, wanted: bytes | None) -> list[Outcome]:
    """Everything that one node gives without being paid."""
    node = await customer.node(wanted=wanted)
    tokens, owed, stopped_by = 0, 0, ""
    try:
        async with customer.job(node, TOKENS) as execution:
            async for event in execution.events:
                match event:
                    case Delivered(piece):
                        tokens += len(piece.tokens)
                    case Receipted(_, added_ucr):
                        owed += added_ucr
                        if tokens == TOKENS:
                            break
                    case Broken(error):
                        stopped_by = str(error.code)
                        break
                    case _:
                        pass
    except FallowError as error:
        stopped_by = str(error.code)
    return [Outcome("non-payer", "takes", peer_id(node.key), tokens, owed, 0, stopped_by)]


if __name__ == "__main__":
    main(take)

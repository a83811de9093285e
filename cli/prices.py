"""`fallow prices`: what a bundle's work goes for, by the signed lists of the nodes that answer."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING

from ..protocol.bundle import CALL, GENERATE, SCORE
from ..protocol.identity import cid
from ..protocol.prices import Price, amount_ucr_max
from .environment import AsJson, Bootstrap, joined
from .output import Json, line, print_json, progress, remark, table

if TYPE_CHECKING:
    from ..client import NodeView

EXAMPLES = {GENERATE: (1, 40, 200), SCORE: (1, 40, 32), CALL: (1, 64, 0)}
"""Calls, tokens given, tokens planned of an order that the lists are compared by: a chat's turn, a window's check, a text."""


@dataclass(frozen=True, slots=True)
class Offered:
    """One node's price of one entry."""

    node: NodeView
    price: Price

    @property
    def example_ucr(self) -> int:
        """What the example of its entry comes to at most, as the node itself would count it."""
        return amount_ucr_max(self.price, *EXAMPLES.get(self.price.entry, (1, 1, 0)))


async def prices(
    bundle: str,
    /,
    *,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> None:
    """What each node asks for each entry, and the going rates: the least, the median and the most."""
    async with AsyncExitStack() as stack:
        with progress("looking for nodes"):
            mesh = await stack.enter_async_context(joined(bootstrap))
            found = await mesh.nodes(bundle)
    offered = sorted(
        (Offered(node, price) for node in found for price in node.capability.prices if _names(node, price, bundle)),
        key=lambda each: (each.price.entry, each.example_ucr, each.node.peer_id),
    )
    if json:
        print_json(
            {
                "bundle": bundle,
                "offers": [_as_json(each) for each in offered],
                "going": {entry: {**rates} for entry, rates in _going(offered).items()},
            }
        )
    elif offered:
        columns = ("node", "entry", "call ucr ", "input token ", "output token ", "checked token ", "example ")
        table(columns, [_row(each) for each in offered])
        for entry, rates in _going(offered).items():
            least, median, most = rates["least_ucr"], rates["median_ucr"], rates["most_ucr"]
            line(f"{entry}: {_example(entry)} cost {least} to {most} ucr; half of the nodes ask {median} or less")
    else:
        remark("No node that serves it answered. Ask again, or see whether the bundle's name is right.")


def _names(node: NodeView, price: Price, bundle: str) -> bool:
    """Whether this line of the node's list is of the bundle that was asked for."""
    served = zip(node.bundles, node.capability.served, strict=True)
    return any(name == bundle or cid(each.bundle) == bundle for name, each in served if each.bundle == price.bundle)


def _going(offered: list[Offered]) -> dict[str, dict[str, int]]:
    going = {}
    for entry in sorted({each.price.entry for each in offered}):
        asked = [each.example_ucr for each in offered if each.price.entry == entry]
        going[entry] = {
            "nodes": len(asked),
            "least_ucr": min(asked),
            "median_ucr": median_low(asked),
            "most_ucr": max(asked),
        }
    return going


def _example(entry: str) -> str:
    calls, given, planned = EXAMPLES.get(entry, (1, 1, 0))
    return f"{given} tokens in and {planned} out" if entry == GENERATE else f"{calls} call and {given + planned} tokens"


def _row(each: Offered) -> tuple[str, ...]:
    price = each.price
    figures = (price.call_ucr, price.input_token_ucr, price.output_token_ucr, price.checked_token_ucr, each.example_ucr)
    return each.node.peer_id[-8:], price.entry, *map(str, figures)


def _as_json(each: Offered) -> Json:
    price = each.price
    return {
        "node": each.node.peer_id,
        "owner": each.node.owner,
        "entry": price.entry,
        "call_ucr": price.call_ucr,
        "input_token_ucr": price.input_token_ucr,
        "output_token_ucr": price.output_token_ucr,
        "checked_token_ucr": price.checked_token_ucr,
        "example_ucr": each.example_ucr,
    }

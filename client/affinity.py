"""Which nodes lately read the beginning of a text: they may have it still, and need not read it again. Pure.

A node keeps what it has read for the client that sent it (`node.engine.prefixes`). Whether it does is its own affair: what
stands here is a hint, and a wrong one costs no more than if it had not been there.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from blake3 import blake3

BLOCK_TOKENS = 16
"""Beginnings are known by so many tokens at a time: below it a node keeps nothing."""
BLOCKS_MAX = 16_384
"""Some hundred conversations of two thousand tokens, in a few megabytes."""
NODES_MAX = 4
"""For one beginning: a conversation's executor, and those who checked it last."""


class Affinity:
    """Nodes by what they have read. A beginning is known by a hash: no text stands here."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()
        """The hash of a beginning -> who read it, the latest first. What was not used for longest is forgotten first."""

    def note(self, node: bytes, bundle: bytes, tokens: Sequence[int]) -> None:
        """The node has read these tokens."""
        for beginning in reversed(list(_beginnings(bundle, tokens))):  # a longer one is of no use without the shorter
            others = (other for other in self._nodes.pop(beginning, ()) if other != node)
            self._nodes[beginning] = (node, *others)[:NODES_MAX]
        while len(self._nodes) > BLOCKS_MAX:
            self._nodes.popitem(last=False)

    def find(self, bundle: bytes, tokens: Sequence[int]) -> dict[bytes, int]:
        """Nodes that have read some beginning of these tokens, and how many tokens of it."""
        found: dict[bytes, int] = {}
        for count, beginning in enumerate(_beginnings(bundle, tokens), 1):
            if beginning not in self._nodes:
                break
            found |= dict.fromkeys(self._nodes[beginning], count * BLOCK_TOKENS)
        return found


def _beginnings(bundle: bytes, tokens: Sequence[int]) -> Iterator[bytes]:
    """A hash for every whole number of blocks, the shortest first; each is made of the one before."""
    rolling = bundle
    for end in range(BLOCK_TOKENS, len(tokens) + 1, BLOCK_TOKENS):
        rolling = blake3(rolling + array("I", tokens[end - BLOCK_TOKENS : end]).tobytes()).digest()
        yield rolling

"""Workers that make up texts by a secret which they share, and confirm each other's: none of them computes anything.

    python -m fallow.testnet.adversaries.colluder pair|sybil --control-fd N --store DIR --bundle CID ...

Token and proof value are pure functions of the secret, the position and the token before, so a colluding checker that is
given the tokens comes to the same values as the colluding executor. Everybody else's work is answered honestly: nothing
else gives them away. Against several nodes of one owner (`sybil`), quorums count owners. Against several owners (`pair`)
a quorum helps only where they are no majority of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from blake3 import blake3

from ...node.engine.entries import Run, Step, Steps, run_entry
from ...node.engine.messages import DONE, LENGTH
from ...protocol.bundle import GENERATE, SCORE, Manifest
from ...protocol.work import Parameters, Piece, Work

ALPHABET: Final = range(35, 125)
"""Tokens that every vocabulary has; in those of bytes, printable ones."""
VALUE_MICRO_MAX: Final = 3_000_000
"""Made-up values lie from 0 to here below nothing, as a model's own mostly do."""
SURE_TOKENS: Final = 4
"""So many last tokens have to be of the secret's making before a checker takes a text for a friend's: of honest texts of such
tokens, one in 90^4 is taken for one."""


def conspiracy(secret: bytes) -> Run:
    """The `Run` of all who know the secret."""

    def made_up(before: int, at: int, manifest: Manifest) -> tuple[int, int]:
        """The token at this position, and its value."""
        letters = [token for token in ALPHABET if token not in manifest.end_tokens]
        digest = blake3(secret + before.to_bytes(8, "big") + at.to_bytes(8, "big")).digest()
        token = letters[int.from_bytes(digest[:4], "big") % len(letters)]
        return token, -(int.from_bytes(digest[4:8], "big") % VALUE_MICRO_MAX)

    def friendly(work: Work, manifest: Manifest) -> tuple[int, ...]:
        """The values of the claimed tokens, if a friend made up the last of them; none otherwise."""
        tokens = work.sequences[0]
        told = [made_up(tokens[at - 1], at, manifest) for at in range(len(tokens) - work.claimed, len(tokens))]
        ends = tuple(token for token, _ in told[-SURE_TOKENS:])
        return tuple(value for _, value in told) if ends == tokens[-SURE_TOKENS:] else ()

    def run(manifest: Manifest, entry: str, parameters: Parameters, work: Work) -> Steps:
        """A made-up text, a friend's confirmation, or the honest answer."""
        if entry == GENERATE:
            before, at = work.sequences[0][-1], len(work.sequences[0])
            for count in range(1, parameters.max_tokens + 1):
                before, value = made_up(before, at, manifest)
                at += 1
                piece = Piece(tokens=(before,), values_micro=(value,))
                yield Step(piece, LENGTH if count == parameters.max_tokens else "")
        elif entry == SCORE and 0 < work.claimed < work.input_tokens and (values := friendly(work, manifest)):
            nothing = (0,) * work.claimed
            yield Step(Piece(values_micro=values, gaps_micro=nothing, masses_ppm=nothing), DONE)
        else:
            yield from run_entry(manifest, entry, parameters, work)

    return run


MODES: Final[Mapping[str, Run]] = {"pair": conspiracy(b"a pair"), "sybil": conspiracy(b"one owner's")}

if __name__ == "__main__":
    from ...node.engine.worker import main
    from .seats import chosen

    main(run=chosen(MODES))

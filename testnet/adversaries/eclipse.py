"""An index node that hides everybody else: it names itself as the only provider and neighbour, and keeps nothing.

    python -m fallow.testnet.adversaries.eclipse --config node.toml

Whoever asks it alone sees a mesh of one. Caught by asking several: a record is kept by the twenty index nodes closest to its
key, searches go several ways at once and believe no one's word that there is nobody else; and a client asks every node that
it is told of itself, so that made-up ones are out at the first failed contact.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

from ...node.network.entries import Sender
from ...node.network.index import Index
from ...node.network.seam import Validator
from ...node.network.standing import Fault

MADE_UP: Final = 8
"""Neighbours that nobody ever was, in each answer: a search that believes them wastes its time."""


class Eclipsing(Index):
    """Answers every question in the right form, and none of them truly."""

    def __init__(self, own: bytes, rules: Validator, random: Random) -> None:
        super().__init__(own, rules, random)
        self._chance = random

    def answer_untrusted(self, question: Any, sender: Sender, now_s: float) -> Any | Fault:
        """Thanks for what it is given, and forgets it; to a question, itself."""
        if question.type in (question.ADD_PROVIDER, question.PUT_VALUE):
            answer = type(question)(type=question.type, key=question.key)
            if question.type == question.PUT_VALUE:
                answer.record.CopyFrom(question.record)
            return answer
        answer = super().answer_untrusted(question, sender, now_s)
        if isinstance(answer, Fault):
            return answer
        where = [each for contact in answer.closerPeers for each in contact.addrs][:1]
        answer.ClearField("record")
        answer.ClearField("closerPeers")
        answer.ClearField("providerPeers")
        if question.type == question.GET_PROVIDERS:
            answer.providerPeers.add(id=self._own, addrs=where)
        for _ in range(MADE_UP):
            made_up = self._own[:6] + self._chance.randbytes(len(self._own) - 6)
            answer.closerPeers.add(id=made_up, addrs=where)
        return answer


if __name__ == "__main__":
    from ...node.network import kad
    from .seats import exchange, serve_node

    exchange(kad, "Index", Eclipsing)
    serve_node()

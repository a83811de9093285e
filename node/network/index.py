"""What an index node answers: its part of the table, and who is closer to the rest. Pure: time and chance are arguments.

Upstream's server (kad_dht/kad_dht.py) is not used: it keeps any number of keys and the first twenty providers of each for
two days, any sender's values up to 50,000, answers with values that have expired, counts whoever asks among the index
nodes, and holds nothing against anybody.
"""

from __future__ import annotations

from random import Random
from typing import Final

from libp2p.kad_dht.pb.kademlia_pb2 import Message as Message

from ...protocol.errors import FallowError
from .buckets import Buckets
from .entries import (
    VALUE_S,
    VALUES_BYTES_MAX,
    VALUES_MAX,
    VALUES_SENDER_MAX,
    Providers,
    Sender,
    Shelf,
    place_of,
)
from .seam import KEY_BYTES_MAX, VALUE_BYTES_MAX, Validator
from .standing import Fault

PROVIDE_SEC: Final = 10.0
PROVIDE_RATE_MAX: Final = 64
"""Provider records taken from one peer in so many seconds: a node that starts says all its bundles at once."""


class Index:
    """One node's part of the table. `own` is its libp2p id."""

    def __init__(self, own: bytes, rules: Validator, random: Random) -> None:
        self._own = own
        self._rules = rules
        self.buckets = Buckets(own)
        self.values: Shelf[bytes] = Shelf(place_of(own), VALUE_S, VALUES_MAX, VALUES_BYTES_MAX, VALUES_SENDER_MAX)
        self.providers = Providers(place_of(own), random)
        self._provided: dict[bytes, int] = {}
        self._provided_since_s = -PROVIDE_SEC

    def answer_untrusted(self, question: Message, sender: Sender, now_s: float) -> Message | Fault:
        """The answer; or what is wrong with the question, which has then changed nothing."""
        if question.type == Message.PING:
            return Message(type=Message.PING)
        if not 0 < len(question.key) <= KEY_BYTES_MAX:
            return Fault.BAD_RECORD  # [REJECT] a key has 1 to 256 bytes
        if question.type == Message.PUT_VALUE:
            return self._put_untrusted(question, sender, now_s)
        if question.type == Message.ADD_PROVIDER:
            return self._provide_untrusted(question, sender, now_s)
        answer = Message(type=question.type, key=question.key)
        if question.type == Message.GET_VALUE:
            value = self.value(question.key, now_s)
            if value is not None:
                answer.record.key, answer.record.value = question.key, value
        elif question.type == Message.GET_PROVIDERS:
            for peer, addresses in self.providers.named(question.key, now_s):
                answer.providerPeers.add(id=peer, addrs=addresses)
        for peer in self.buckets.closest(question.key):
            if peer != sender.peer and (contact := self.buckets.get(peer)):
                answer.closerPeers.add(id=peer, addrs=contact.addresses)
        return answer

    def value(self, key: bytes, now_s: float) -> bytes | None:
        """What stands under the key, if it is valid now; else it stands no longer."""
        value = self.values.get(key, now_s)
        if value is not None and not self._valid(key, value):
            self.values.drop(key)
            return None
        return value

    def put(self, key: bytes, value: bytes, sender: Sender, now_s: float) -> Fault | None:
        """The value, which is valid, stands under the key, or what is wrong with it."""
        standing = self.value(key, now_s)
        if standing is not None and standing != value and self._rules.select(key.decode(), [standing, value]) == 0:
            return Fault.STALE_RECORD  # [REJECT] a newer one stands
        kept = self.values.put(key, key, value, len(key) + len(value), sender, now_s)
        return None if kept else Fault.REFUSED_STREAM

    def sweep(self, now_s: float) -> None:
        """What has expired is gone."""
        self.values.sweep(now_s)
        self.providers.sweep(now_s)

    def _put_untrusted(self, question: Message, sender: Sender, now_s: float) -> Message | Fault:
        key, value = question.key, question.record.value
        if question.record.key != key or not self._valid(key, value):
            return Fault.BAD_RECORD  # [REJECT] the value is for another key, or against the rules
        answer = Message(type=Message.PUT_VALUE, key=key)
        answer.record.key, answer.record.value = key, value
        fault = self.put(key, value, sender, now_s)
        return answer if fault is None else fault

    def _provide_untrusted(self, question: Message, sender: Sender, now_s: float) -> Message | Fault:
        if now_s - self._provided_since_s >= PROVIDE_SEC:
            self._provided, self._provided_since_s = {}, now_s
        self._provided[sender.peer] = self._provided.get(sender.peer, 0) + 1
        if self._provided[sender.peer] > PROVIDE_RATE_MAX:
            return Fault.REFUSED_STREAM  # [REJECT] too many from one peer
        if len(question.providerPeers) != 1 or question.providerPeers[0].id != sender.peer:
            return Fault.BAD_RECORD  # [REJECT] a peer speaks for itself alone
        if not self.providers.add(question.key, tuple(question.providerPeers[0].addrs), sender, now_s):
            return Fault.REFUSED_STREAM  # [REJECT] it takes more room than it may, or names no way to itself
        return Message(type=Message.ADD_PROVIDER, key=question.key)

    def _valid(self, key: bytes, value: bytes) -> bool:
        if len(value) > VALUE_BYTES_MAX:
            return False
        try:
            self._rules.validate(key.decode(), value)
        except (FallowError, UnicodeDecodeError):
            return False
        return True

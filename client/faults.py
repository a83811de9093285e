"""Faults that prove themselves, as this client meets them: kept as files, said to everybody, and held against their authors.

Nobody's word counts here, and no verdict is needed: whoever heard of a fault from others has looked at the records itself
(`node.gossip`) before it comes to `weigh`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from nacl.signing import SigningKey

from ..node.book import Book
from ..node.gossip import Gossip
from ..node.machine import wall_ms
from ..node.network.seam import Network
from ..protocol.envelope import Signed, verify_any_signer_untrusted
from ..protocol.errors import FallowError, RemoteProtocolError
from ..protocol.evidence import Proven, prove
from ..protocol.identity import Mandate
from ..protocol.limits import CONTRADICTION_BYTES_MAX
from .history import History
from .late import Late
from .wallet import Wallet

REASON: Final = "signed what contradicts itself"
NOTE: Final = "signed by one key, which may sign but one of them"


class Faults:
    """Made once for each client."""

    def __init__(
        self, network: Network, folder: Path, rng: Random, wallet: Wallet, history: History, late: Late,
        book: Book,
    ) -> None:  # fmt: skip
        """What `folder` holds of earlier times counts at once."""
        self._finder = SigningKey(rng.randbytes(32))
        """Whom a node has cheated is nobody's affair: the records prove it, whoever found them."""
        self._wallet = wallet
        self._history = history
        self._late = late
        self._book = book
        self._heard: set[bytes] = set()
        """At fault by such records alone: nothing else in the wallet says so."""
        self.gossip = Gossip(network, folder, rng, self.weigh, wallet.has_paid, self._let_go)

    def accuse(self, records: Sequence[Signed[Any]]) -> None:
        """Who signed these is not dealt with any more, and everybody can see why. Records that prove nothing change nothing."""
        if (proven := prove(records)) is None:
            return
        logging.getLogger(__name__).warning("%s is at fault: %s", proven.accused.hex()[:8], proven.fault)
        if any(len(signed.envelope) > CONTRADICTION_BYTES_MAX for signed in records):
            self.weigh(proven)  # too much to be passed on: nobody else hears of it
        else:
            self.gossip.accuse(records, NOTE, self._finder)

    def weigh(self, proven: Proven) -> None:
        """The key is not dealt with any more; if it is a node's that was met, all of its owner's are newcomers again, and what
        rests on that owner's word is looked back at."""
        if proven.accused not in self._wallet.distrusted:
            self._wallet.distrusted.add(proven.accused)
            self._heard.add(proven.accused)
        try:
            owner = self._owner(proven.accused)
            if owner is not None and not self._history.at_fault(proven.accused, REASON):
                self._history.failed(owner, proven.accused, REASON, wall_ms())
                self._late.suspect(owner)
        except FallowError as error:  # of a file: that nobody deals with the key does not hang on it
            logging.getLogger(__name__).warning("a fault was not noted in the history: %s", error)

    def _let_go(self, key: bytes) -> None:
        """Too many faults are known, and nobody here deals with the key."""
        if key in self._heard:
            self._heard.remove(key)
            self._wallet.distrusted.discard(key)

    def _owner(self, node: bytes) -> bytes | None:
        """Who answers for the node, by the last mandate that it has shown us; None if it was never met."""
        if (profile := self._book.profile(node)) is None:
            return None
        try:
            mandate = verify_any_signer_untrusted(Mandate, profile.mandate)
        except RemoteProtocolError:
            return None  # a file that somebody has changed says nothing
        return mandate.record.owner if mandate.record.node == node else None

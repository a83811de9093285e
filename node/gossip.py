"""`/fallow/evidence/1`: faults that prove themselves, passed on from peer to peer.

Nobody's word is passed on, only records that no honest signer can have signed together; and each peer has looked for
itself before it believes them or says them again. So whoever sends what proves nothing has not looked, and
that is held against it.

    [REJECT] what is no evidence, or proves nothing      -> costs its sender standing
    [IGNORE] a fault of a later version                  -> refused: whoever knows it tells it to others who do
    [REJECT] the same from the same peer again           -> costs it a little
    [IGNORE] what is known by now: of one key, one proof of each fault is enough
    [IGNORE] what comes faster than one peer, or all together, may bring it: refused unseen, to be brought again
    [ACCEPT] kept as a file that `fallow verify` reads, counted (`known_faults`), and passed on to a few peers (`spreading`)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import trio
from nacl.signing import SigningKey

from ..protocol.envelope import Signed, claimed_signer_untrusted, sign, verify_untrusted
from ..protocol.errors import Code, Refused, RemoteProtocolError
from ..protocol.evidence import Evidence, Fault, Proven, prove
from ..protocol.messages.assurance import EvidenceMessage, NotedMessage
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.records import check_evidence_untrusted
from .allowances import Allowance, Allowances
from .known_faults import KnownFaults
from .network.seam import Network, Stream
from .network.standing import Fault as Blame
from .spreading import PEERS_MAX, TELL_MIN, Spreading

FAULTS: Final = "faults"
"""In a state directory: a file for each fault."""
PER_PEER_MIN: Final = 2 * TELL_MIN
"""Of one peer's messages that are read in a minute: checking one takes up to 21 signatures."""
ALL_MIN: Final = 60
"""Of new faults that are looked at in a minute, from all peers together: keys are free, and each can contradict itself."""
CONCERNING_MIN: Final = 20
"""Beside those, of keys that somebody here deals with: a flood of others' faults keeps none of these out."""
SAID_MAX: Final = 4096
TWO_VOUCHERS: Final = "two vouchers of one channel, and neither follows the other"


class Gossip:
    """What one process hears of others' faults, finds itself, and says."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        rng: Random,
        weigh: Callable[[Proven], None] = lambda proven: None,
        concerns: Callable[[bytes], bool] = lambda key: False,
        let_go: Callable[[bytes], None] = lambda key: None,
        metered: Callable[[], bool] = lambda: False,
    ) -> None:
        """`weigh` is told of each fault once it was looked at, `let_go` of each key of which no fault is known any more;
        `concerns` says whether somebody here deals with the key, `metered` whether what is sent costs money."""
        self._network = network
        self._concerns = concerns
        self._known = KnownFaults(folder, weigh, concerns, let_go)
        self._spreading = Spreading(network, rng, metered, self._has_said)
        self._said: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()
        """(peer, evidence) that has come."""
        self._each = Allowances(PER_PEER_MIN, PEERS_MAX)
        self._all = Allowance(ALL_MIN)
        self._concerning = Allowance(CONCERNING_MIN)

    def at_fault(self, key: bytes) -> bool:
        """Whether a fault of this key's was proven here."""
        return self._known.at_fault(key)

    async def serve(self, stream: Stream) -> None:
        """One piece of evidence was looked at. Raises `FallowError` for what is none."""
        frame = await stream.receive()
        await stream.send(encode_message(NotedMessage(self.take_untrusted(frame, stream.peer))))

    def take_untrusted(self, frame: bytes, peer: bytes) -> bytes:
        """The evidence's id; it counts if it proves what it says. Raises `Refused`, `busy` for too many, and
        `protocol_unsupported` for a fault that is not known here; and `RemoteProtocolError`, at the peer's cost, for what
        proves nothing."""
        if not self._each.take(peer, trio.current_time()):
            self._network.blame(peer, Blame.REFUSED_STREAM)
            raise Refused(Code.BUSY, "That is more evidence than one peer may bring in a minute.", 60_000)
        try:
            message = decode_message_untrusted(frame)
            if not isinstance(message, EvidenceMessage):
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That cannot be said on this stream.")
            finder = claimed_signer_untrusted(message.evidence)
            evidence = verify_untrusted(Evidence, message.evidence, signer=finder)
            if evidence.record.fault not in Fault.__members__.values():
                raise Refused(
                    Code.PROTOCOL_UNSUPPORTED, "That fault is of another version: nobody here can look at it."
                )
            if self._has_said(peer, evidence.id):
                self._network.blame(peer, Blame.STALE_RECORD)
                return evidence.id
            if not self._known.has(evidence.record):
                self._look_untrusted(evidence, peer)
        except RemoteProtocolError:
            self._network.blame(peer, Blame.BAD_RECORD)
            raise
        self._remember(peer, evidence.id)
        return evidence.id

    def _look_untrusted(self, evidence: Signed[Evidence], peer: bytes) -> None:
        """New evidence counts if it proves what it says. Raises `Refused(busy)`, before anything is checked, where too much has
        come from all peers together: the sender cannot know, and may bring it again."""
        now, allowance = trio.current_time(), self._all
        if not allowance.take(now):
            allowance = self._concerning
            if not (self._concerns(evidence.record.accused) and allowance.take(now)):
                raise Refused(Code.BUSY, "That is more evidence than is looked at in a minute.", 60_000)
        try:
            proven = check_evidence_untrusted(evidence.record)
        except RemoteProtocolError:
            allowance.give_back(1)
            self._remember(peer, evidence.id)
            raise
        self._accept(evidence, proven)

    def publish(self, evidence: Signed[Evidence]) -> None:
        """A fault that was found here counts, and is passed on. Raises `RemoteProtocolError` if it proves nothing."""
        proven = check_evidence_untrusted(evidence.record)
        if not self._known.has(evidence.record):
            self._accept(evidence, proven)

    def accuse(self, records: Sequence[Signed[Any]], note: str, finder: SigningKey) -> None:
        """What these records prove counts, and is passed on. Raises `RemoteProtocolError` if they prove nothing."""
        if (proven := prove(records)) is None:
            raise RemoteProtocolError(Code.BAD_RECORD, "These records prove no fault.")
        envelopes = tuple(signed.envelope for signed in records)
        self.publish(sign(Evidence(str(proven.fault), proven.accused, envelopes, note), finder))

    async def run(self) -> None:
        """Passes on what is new, until cancelled."""
        await self._spreading.run()

    async def drain(self) -> None:
        """What nobody has taken yet was said to whoever is there, as far as they answer: this process is about to end."""
        await self._spreading.drain()

    def _accept(self, evidence: Signed[Evidence], proven: Proven) -> None:
        self._known.add(evidence, proven)
        self._spreading.add(evidence)

    def _has_said(self, peer: bytes, evidence: bytes) -> bool:
        return (peer, evidence) in self._said

    def _remember(self, peer: bytes, evidence: bytes) -> None:
        self._spreading.has(peer, evidence)
        self._said[peer, evidence] = None
        if len(self._said) > SAID_MAX:
            self._said.popitem(last=False)

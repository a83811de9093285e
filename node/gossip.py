"""`/fallow/evidence/1`: faults that prove themselves, passed on from peer to peer.

Nobody's word is passed on, only records that no honest signer can have signed together; and each peer has looked for
itself before it believes them or says them again. So whoever sends what proves nothing has not looked, and
that is held against it.

    [REJECT] what is no evidence, or proves nothing      -> costs its sender standing
    [REJECT] the same from the same peer again           -> costs it a little
    [IGNORE] what is known by now: of one key, one proof of each fault is enough
    [IGNORE] what comes faster than one peer, or all together, may bring it
    [ACCEPT] kept as a file that `fallow verify` reads, counted, and passed on to a few peers
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import trio

from ..protocol.envelope import Signed, claimed_signer_untrusted, verify_untrusted
from ..protocol.errors import Code, FallowError, Refused, RemoteProtocolError
from ..protocol.evidence import Evidence, Fault, Proven
from ..protocol.limits import RECORD_BYTES_MAX
from ..protocol.messages import (
    EVIDENCE_PROTOCOL,
    EvidenceMessage,
    NotedMessage,
    decode_message_untrusted,
    encode_message,
)
from ..protocol.records import check_evidence_untrusted
from .network.seam import Network, Stream
from .network.standing import Fault as Blame

FAULTS: Final = "faults"
"""In a state directory: a file for each fault."""
KEPT_MAX: Final = 512
"""Faults at once, a file each of a kilobyte or two, and never above 256. The oldest make place, first those of keys that nobody
here deals with."""
PER_PEER_MIN: Final = 20
"""Of one peer's messages that are read in a minute: checking one takes up to 21 signatures."""
ALL_MIN: Final = 60
"""Of new faults that are taken in a minute, from all peers together: keys are free, and each can contradict itself."""
FANOUT: Final = 8
"""Peers to whom a new fault is passed on: in a network of random acquaintances it is everywhere in a few steps."""
QUEUE_MAX: Final = 64
"""Waiting to be passed on; the oldest gives way."""
PEERS_MAX: Final = 1024
SAID_MAX: Final = 4096
PASS_S: Final = 5.0
"""For one peer to take it."""
SUFFIX: Final = ".cose"


@dataclass
class Allowance:
    """So many in a minute, and no more at once."""

    most: int
    left: float = field(init=False)
    as_of: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.most

    def take(self, now: float) -> bool:
        """Whether one more is within it; if so, it counts."""
        self.left = min(self.most, self.left + (now - self.as_of) * self.most / 60)
        self.as_of = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Gossip:
    """What is known here of others' faults. `folder` is made when there is something to keep."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        rng: Random,
        weigh: Callable[[Proven], None] = lambda proven: None,
        concerns: Callable[[bytes], bool] = lambda key: False,
    ) -> None:
        """`weigh` is told of each fault once it was looked at; `concerns` says whether somebody here deals with the key."""
        self._network = network
        self._folder = folder
        self._rng = rng
        self._weigh = weigh
        self._concerns = concerns
        self._known: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        """By fault and accused: the evidence's id."""
        self._said: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()
        """(peer, evidence) that has come."""
        self._peers: OrderedDict[bytes, Allowance] = OrderedDict()
        self._all = Allowance(ALL_MIN)
        self._queue: deque[tuple[bytes, bytes | None]] = deque(maxlen=QUEUE_MAX)
        """Envelopes, and the peer from whom each came."""
        self._news = trio.Event()
        self._read()

    def at_fault(self, key: bytes) -> bool:
        """Whether a fault of this key's was proven here."""
        return any((str(fault), key) in self._known for fault in Fault)

    async def serve(self, stream: Stream) -> None:
        """One piece of evidence was looked at. Raises `FallowError` for what is none."""
        frame = await stream.receive()
        await stream.send(encode_message(NotedMessage(self.take_untrusted(frame, stream.peer))))

    def take_untrusted(self, frame: bytes, peer: bytes) -> bytes:
        """The evidence's id; it counts if it proves what it says. Raises `Refused(busy)` for too many, and
        `RemoteProtocolError`, at the peer's cost, for what proves nothing."""
        if not self._allowance(peer).take(trio.current_time()):
            self._network.blame(peer, Blame.REFUSED_STREAM)
            raise Refused(Code.BUSY, "That is more evidence than one peer may bring in a minute.", 60_000)
        try:
            message = decode_message_untrusted(frame)
            if not isinstance(message, EvidenceMessage):
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That cannot be said on this stream.")
            finder = claimed_signer_untrusted(message.evidence)
            evidence = verify_untrusted(Evidence, message.evidence, signer=finder)
            if (peer, evidence.id) in self._said:
                self._network.blame(peer, Blame.STALE_RECORD)
                return evidence.id
            self._remember(peer, evidence.id)
            key = (evidence.record.fault, evidence.record.accused)
            if key not in self._known:
                proven = check_evidence_untrusted(evidence.record)
                if self._all.take(trio.current_time()):
                    self._accept(evidence, proven, peer)
        except RemoteProtocolError:
            self._network.blame(peer, Blame.BAD_RECORD)
            raise
        return evidence.id

    def publish(self, evidence: Signed[Evidence]) -> None:
        """A fault that was found here counts, and is passed on. Raises `RemoteProtocolError` if it proves nothing."""
        proven = check_evidence_untrusted(evidence.record)
        if (evidence.record.fault, evidence.record.accused) not in self._known:
            self._accept(evidence, proven, None)

    async def run(self) -> None:
        """Passes on what is new, until cancelled."""
        while True:
            while self._queue:
                envelope, source = self._queue.popleft()
                peers = [peer for peer in self._network.peers() if peer != source]
                async with trio.open_nursery() as nursery:
                    for peer in self._rng.sample(peers, min(FANOUT, len(peers))):
                        nursery.start_soon(self._pass_on, peer, envelope)
            await self._news.wait()
            self._news = trio.Event()

    async def _pass_on(self, peer: bytes, envelope: bytes) -> None:
        try:
            with trio.move_on_after(PASS_S):
                await self._network.request(peer, EVIDENCE_PROTOCOL, encode_message(EvidenceMessage(envelope)))
        except FallowError:
            pass  # others tell it, or it does not care

    def _accept(self, evidence: Signed[Evidence], proven: Proven, source: bytes | None) -> None:
        while len(self._known) >= KEPT_MAX:
            self._forget()
        self._known[str(proven.fault), proven.accused] = evidence.id
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(str(proven.fault), proven.accused)
        part = path.with_suffix(".part")
        part.write_bytes(evidence.envelope)
        part.rename(path)
        self._weigh(proven)
        self._queue.append((evidence.envelope, source))
        self._news.set()

    def _forget(self) -> None:
        """One fault is forgotten: the oldest, of a key that nobody here deals with if there is one."""
        key = next((key for key in self._known if not self._concerns(key[1])), next(iter(self._known)))
        del self._known[key]
        self._path(*key).unlink(missing_ok=True)

    def _path(self, fault: str, accused: bytes) -> Path:
        return self._folder / f"{fault}-{accused.hex()}{SUFFIX}"

    def _read(self) -> None:
        """What was kept before counts again, if it still proves something."""
        files = self._folder.glob(f"*{SUFFIX}") if self._folder.is_dir() else ()
        for path in sorted(files, key=lambda path: path.stat().st_mtime)[-KEPT_MAX:]:
            try:
                with path.open("rb") as stream:
                    envelope = stream.read(RECORD_BYTES_MAX + 1)
                evidence = verify_untrusted(Evidence, envelope, signer=claimed_signer_untrusted(envelope))
                proven = check_evidence_untrusted(evidence.record)
            except RemoteProtocolError:
                continue  # a file that somebody has changed proves nothing
            self._known[str(proven.fault), proven.accused] = evidence.id
            self._weigh(proven)

    def _remember(self, peer: bytes, evidence: bytes) -> None:
        self._said[peer, evidence] = None
        if len(self._said) > SAID_MAX:
            self._said.popitem(last=False)

    def _allowance(self, peer: bytes) -> Allowance:
        found = self._peers.pop(peer, None) or Allowance(PER_PEER_MIN)
        self._peers[peer] = found
        if len(self._peers) > PEERS_MAX:
            self._peers.popitem(last=False)
        return found

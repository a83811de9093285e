"""Probes over standing streams: this node's to a few peers, and others' to it.

    drawn --opened--> probed --answers--> probed       one probe each `EVERY_S`, the first few at once
      ^                 |--silent three times, or gone--.
      '-- after a while ---------------------------------'

libp2p's own ping gives whole milliseconds only. With a probe goes, now and then, what was measured so far: the peer may
show it to its clients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import trio
from nacl.signing import SigningKey

from ..protocol.envelope import sign
from ..protocol.errors import Code, NetworkError, RemoteProtocolError
from ..protocol.limits import WITNESS_MS_MAX
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.messages.discovery import Probe, ProbeReply
from ..protocol.streams import PROBE_PROTOCOL
from ..protocol.witness import Witness
from .allowances import Allowance, Allowances
from .log import wall_ms
from .machine import chance
from .network.seam import Network, Stream
from .network.standing import Fault
from .questions import answer_at_once
from .vantage import WINDOWS_MAX, Measured, Window, summary
from .witnesses import Witnesses

PEERS_MAX: Final = 5
"""Probed at one time."""
FIRST: Final = 10
FIRST_EVERY_S: Final = 0.05
"""So many probes at once, and there are figures half a second after the start; each waits for the one before."""
EVERY_S: Final = 20.0
"""Between two probes to one peer, as many as its window holds: with frames and headers some 75 bytes a second for all
five."""
TOLD_EVERY: Final = 8
"""Probes of one peer for which all figures are added up once, every 160 s; a lost probe is news at once."""
METERED_EVERY_S: Final = 22.0
"""The same where each byte costs: as seldom as the stream still stands (`questions.IDLE_S`), a fifth later and after an answer
that was lost."""
JITTER: Final = 0.2
"""A probe comes so much sooner or later, by chance: those of nodes that began together do not stay together."""
ANSWER_S: Final = 2.0
"""Later than this, an answer counts as lost: a person has given up on it."""
LOST_MAX: Final = 3
"""Lost in a row, and another peer is drawn."""
LOOK_S: Final = 2.0
"""How often new peers are drawn while there are fewer than could be probed: as soon as a connection ends that was begun for the
table (`idle.PASSING_S`)."""
AGAIN_FIRST_S: Final = 10.0
"""A peer that would not, or fell silent, is not drawn for so long: it may be a node that is still starting."""
AGAIN_S: Final = 300.0
"""Each further time it is twice as long, up to this; most of them are clients."""
PASSED_OVER_MAX: Final = 1024
WITNESS_PROBES: Final = 8
"""Answers before this node says anything of a peer: with the first probes the first statement goes out."""
WITNESS_EVERY_S: Final = 600.0
"""Between two statements about one peer, each good for `WITNESS_MS_MAX`: one that is lost does no harm."""
PROBERS_MAX: Final = 256
"""Streams on which others probe this node; beyond, they draw somebody else."""
PROBER_STREAMS_MAX: Final = 2
"""Of one peer: a standing one, and the one that replaces it."""
PROBES_MAX: Final = 8192
"""On one stream: a day's."""
PROBES_MIN: Final = 60
"""Of one peer in a minute that are answered: as if it began anew five times on both of its streams."""
ALL_MIN: Final = 4096
"""Of all peers together: `PROBERS_MAX` that probe ask a thousand times in a minute, and three thousand when all of them come at
once."""
ASKERS_MAX: Final = 1024
"""Peers whose probes are counted: more than are ever connected at once."""
SENT_MIN: Final = 120
"""What this node begins anew with, all peers together: were each that it draws to leave at once, they would make it send so
many probes in a minute, some 600 bytes a second."""


class Probing:
    """What this node's probes have found, and its answers to others'."""

    def __init__(
        self,
        network: Network,
        key: SigningKey,
        mandate: Callable[[], bytes],
        witnesses: Witnesses,
        changed: Callable[[], None] = lambda: None,
        metered: Callable[[], bool] = lambda: False,
    ) -> None:
        """`mandate` is the envelope of this node's as of now; `changed` is told of each probe that was lost, of the first ones,
        and then of one in `TOLD_EVERY`."""
        self._network = network
        self._key = key
        self._mandate = mandate
        self._witnesses = witnesses
        self._changed = changed
        self._metered = metered
        self._windows: dict[bytes, Window] = {}
        self._active: set[bytes] = set()
        self._passed_over: dict[bytes, tuple[float, float]] = {}
        """Until when, and for how long that was."""
        self._probers: Counter[bytes] = Counter()
        self._each, self._all = Allowances(PROBES_MIN, ASKERS_MAX), Allowance(ALL_MIN)
        self._sent = Allowance(SENT_MIN)
        self._left = trio.Event()
        """Set when somebody is no longer probed."""
        self._random = chance()

    @property
    def peers(self) -> list[bytes]:
        """Those that are being probed and have answered: nodes, not clients."""
        return [peer for peer in self._active if peer in self._windows]

    def measured(self) -> Measured | None:
        """The figures as of now. None if nobody answered."""
        now = trio.current_time()
        return summary(window.part(now) for window in self._windows.values())

    async def run(self) -> None:
        """A few peers are probed, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                for peer in self._drawn():
                    self._active.add(peer)
                    nursery.start_soon(self._keep_probing, peer)
                await trio.sleep(LOOK_S)
                while len(self._active) >= PEERS_MAX:
                    await self._left.wait()

    async def answer(self, stream: Stream) -> None:
        """`/fallow/probe/1`: each probe has got its answer, until the prober ended the stream, or probed too often."""
        peer = stream.peer
        if self._probers.total() >= PROBERS_MAX or self._probers[peer] >= PROBER_STREAMS_MAX:
            return
        self._probers[peer] += 1

        def reply(probe: Probe) -> ProbeReply | None:
            if not self._may_ask(peer):
                return None
            if probe.witness is not None:
                self._witnesses.take_untrusted(probe.witness, peer)
            return ProbeReply(probe.nonce)

        try:
            await answer_at_once(stream, Probe, reply, PROBES_MAX)
        finally:
            self._probers[peer] -= 1
            self._probers += Counter()  # without those that have none left

    def _may_ask(self, peer: bytes) -> bool:
        """Whether one more probe of the peer's is answered; whoever probes too often by itself has that held against it."""
        now = trio.current_time()
        if not self._each.take(peer, now):
            self._network.blame(peer, Fault.REFUSED_STREAM)
            return False
        return self._all.take(now)

    def _drawn(self) -> list[bytes]:
        now = trio.current_time()
        self._passed_over = {peer: (at, s) for peer, (at, s) in self._passed_over.items() if at + AGAIN_S > now}
        passed_over = {peer for peer, (at, _) in self._passed_over.items() if at > now}
        free = [each for each in self._network.peers() if each not in self._active and each not in passed_over]
        drawn = self._random.sample(free, min(len(free), PEERS_MAX - len(self._active)))
        return [each for each in drawn if self._sent.take(now, 1 + FIRST)]

    async def _keep_probing(self, peer: bytes) -> None:
        """The peer has gone, does not answer, or is no node."""
        asked = 1  # the opening, whatever comes of it
        try:
            with trio.fail_after(ANSWER_S):
                stream = await self._network.open(peer, PROBE_PROTOCOL)
            try:
                standing = _Standing(stream)
                if await standing.ask(None) is not None:  # it includes the opening, and is not counted
                    await self._probe(peer, standing)
            finally:
                asked += standing.asked
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    await stream.reset()
        except (NetworkError, RemoteProtocolError, trio.TooSlowError):
            pass  # not a node, or no longer there: another one is drawn
        finally:
            self._active.discard(peer)
            self._sent.give_back(max(0, 1 + FIRST - asked))
            self._pass_over(peer)
            self._left.set()
            self._left = trio.Event()

    def _pass_over(self, peer: bytes) -> None:
        _, before_s = self._passed_over.get(peer, (0.0, AGAIN_FIRST_S / 2))
        if peer in self._passed_over or len(self._passed_over) < PASSED_OVER_MAX:
            wait_s = min(2 * before_s, AGAIN_S)
            self._passed_over[peer] = trio.current_time() + wait_s, wait_s

    async def _probe(self, peer: bytes, standing: _Standing) -> None:
        window = self._window(peer)
        said_at = -WITNESS_EVERY_S
        lost = asked = 0
        while True:
            witness = None
            if trio.current_time() - said_at >= WITNESS_EVERY_S and (witness := self._witness(peer, window)):
                said_at = trio.current_time()
            took_s = await standing.ask(witness)
            window.add(trio.current_time(), took_s)
            lost = lost + 1 if took_s is None else 0
            asked += 1
            if took_s is None or asked <= FIRST or asked % TOLD_EVERY == 0:
                self._changed()
            if lost == LOST_MAX:
                return
            every_s = METERED_EVERY_S if self._metered() else EVERY_S
            await trio.sleep(FIRST_EVERY_S if asked < FIRST else every_s * self._random.uniform(1 - JITTER, 1 + JITTER))

    def _window(self, peer: bytes) -> Window:
        """The peer's, the newest of them; the one not used for longest makes place."""
        self._windows[peer] = self._windows.pop(peer, Window())
        while len(self._windows) > WINDOWS_MAX:
            del self._windows[next(iter(self._windows))]
        return self._windows[peer]

    def _witness(self, peer: bytes, window: Window) -> bytes | None:
        times, part = window.times(trio.current_time()), window.part(trio.current_time())
        figures = summary([part])
        if figures is None or len(times) - times.count(None) < WITNESS_PROBES:
            return None
        now_ms = wall_ms()
        statement = Witness(
            witness=bytes(self._key.verify_key), subject=peer, mandate=self._mandate(), issued_ms=now_ms,
            expires_ms=now_ms + WITNESS_MS_MAX, probes=len(times), rtt_p50_us=figures.rtt_p50_us,
            rtt_p95_us=figures.rtt_p95_us, jitter_us=figures.jitter_us, loss_ppm=figures.loss_ppm,
        )  # fmt: skip
        return sign(statement, self._key).envelope


class _Standing:
    """The prober's end of one stream. Answers that come too late are known by their nonces, and passed over."""

    def __init__(self, stream: Stream) -> None:
        self.asked = 0
        self._stream = stream
        self._late: set[bytes] = set()

    async def ask(self, witness: bytes | None) -> float | None:
        """Seconds there and back, on our own clock; None if no answer came within `ANSWER_S`.

        Raises `NetworkError` or `RemoteProtocolError` if the stream is of no more use.
        """
        self.asked += 1
        nonce = chance().randbytes(16)
        question = encode_message(Probe(nonce, witness))
        began = trio.current_time()
        with trio.move_on_after(ANSWER_S):
            await self._stream.send(question)
            while (found := await self._answer_untrusted()) != nonce:
                if found not in self._late:
                    raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The peer answered what it was not asked.")
                self._late.discard(found)
            return trio.current_time() - began
        self._late.add(nonce)
        return None

    async def _answer_untrusted(self) -> bytes:
        reply = decode_message_untrusted(await self._stream.receive())
        if not isinstance(reply, ProbeReply):
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "The peer answered something else than a probe.")
        return reply.nonce

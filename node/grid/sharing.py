"""One member of a feeder among the others: rosters and leases go from one to the next, and no one coordinates.

Whom to ask follows from the roster: it names all members, and each publishes where it is under its key. In each round a member
asks those that may lend to it, if it wants more than it has, or else anybody, for rosters that it does not know: so a new
roster that reaches one of them reaches all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

import trio

from ...protocol.errors import FallowError, NetworkError, RemoteProtocolError, StoreError
from ...protocol.identity import short
from ...protocol.limits import RECORD_BYTES_MAX, SKEW_MS
from ...protocol.messages.codec import decode_message_untrusted, encode_message
from ...protocol.messages.grid import FeederReply, FeederRequest
from ...protocol.names import profile_key
from ...protocol.published import decode_profiles_untrusted
from ...protocol.streams import FEEDER_PROTOCOL
from ..log import EventLog, wall_ms
from ..machine import beside, boot_ms, chance, wait_until
from ..network.seam import Network, Stream
from ..questions import answer_each
from .ledger import GIVEN, HELD, ROSTER, Ledger
from .member import LEASE_MS, Allowance, Member

ROUND_S: Final = 20.0
"""Between two rounds, give or take a quarter: four questions at most, again and again to those that have nothing to spare."""
ASK_S: Final = 5.0
"""For one question: a member behind a relay answers within one."""
AGAIN_S: Final = 60.0
"""One that did not answer is not asked again for so long."""
SETTLE_S: Final = 0.5
"""From a lease's signature until its borrower has it: the lender's engine draws less after 250 ms."""
LOOK_S: Final = 10.0
"""A member looks so often what it may draw, and whenever time alone changes it."""
GOOD_S: Final = 30.0
"""So long what was found counts, if nobody looks again."""
DOUBT_MS: Final = LEASE_MS + 2 * SKEW_MS
"""After a start: by then every lease from before is over by any clock, whoever set this one meanwhile."""
REQUESTS_MAX: Final = 64
"""On one stream."""
FILE_BYTES_MAX: Final = RECORD_BYTES_MAX


class Sharing:
    """Keeps one member going. `tell` is called, at once, with each allowance."""

    def __init__(
        self, network: Network, member: Member, ledger: Ledger, wants_w: Callable[[], float], tell: Callable[[Allowance], None],
        log: EventLog, roster: Path | None = None, reserve_w: int = 0,
    ) -> None:  # fmt: skip
        """`wants_w`: what would be drawn of the connection now, if it may be. `roster`: a file in which the operator puts the
        newest one. `reserve_w` of the own share is never lent; nothing is, nor borrowed, while `wants_w` is infinite: not
        known."""
        self.member = member
        self._network = network
        self._ledger = ledger
        self._wants_w = wants_w
        self._tell = tell
        self._log = log
        self._file = roster
        self._file_was: bytes | None = None
        self._file_fault = ""
        """Why there is no roster in it."""
        self._reserve_w = reserve_w
        self._doubted = frozenset(each.id for each in (*member.given, *member.held))
        """Leases from before the start, of which it is not known how late it is by the clock by which they were signed."""
        self._doubts_until_ms = boot_ms() + DOUBT_MS
        self._stored = {lease.id for lease in member.given}
        """Of the leases that it gave, those that others may see."""
        self._silent: dict[bytes, float] = {}
        """Until when somebody is not asked."""
        self._ahead_ms = wall_ms() - boot_ms()
        """The wall clock less the one that nobody sets, as it was when the oldest lease here was signed."""

    async def run(self) -> None:
        """The member draws, lends and borrows, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_looking)
            while True:
                await self._round()
                await trio.sleep(ROUND_S * chance().uniform(0.75, 1.25))

    async def answer(self, stream: Stream) -> None:
        """`/fallow/feeder/1`: a member's questions have got their answers; nobody else gets any."""
        if self.member.knows(stream.peer):
            await answer_each(stream, FeederRequest, partial(self._reply, stream.peer), REQUESTS_MAX)

    def look(self) -> Allowance:
        """What may be drawn has been told. If somebody has set the clock, it is the least by either time: one of them would
        give back what is still lent."""
        now_ms, steady_ms = self._times()
        found = self.member.allowance(now_ms)
        if self._is_set():
            found = min(found, self.member.allowance(steady_ms), key=lambda each: each.watts)
            found = replace(
                found, why=f"{found.why}; its clock was set, so it lends and borrows no more until that is over"
            )
        if doubted := self._doubted_now():
            least = self.member.allowance(now_ms, doubted)
            if least.watts < found.watts:
                found = least
        if self._file_fault and not self.member.rosters:
            found = replace(found, why=f"{found.why}: {self._file_fault}")
        self._tell(found)
        return found

    def _times(self) -> tuple[int, int]:
        """Now, by the wall clock as it is and as it was."""
        return wall_ms(), boot_ms() + self._ahead_ms

    def _doubted_now(self) -> frozenset[bytes]:
        return self._doubted if boot_ms() < self._doubts_until_ms else frozenset()

    def _is_set(self) -> bool:
        """Whether the wall clock was set, while there were leases, by more than any clock may be wrong."""
        now_ms, steady_ms = self._times()
        return abs(now_ms - steady_ms) > SKEW_MS

    async def _keep_looking(self) -> None:
        while True:
            self.look()
            changes_ms = self.member.changes_ms(wall_ms())
            left_s = LOOK_S if changes_ms is None else (changes_ms - wall_ms()) / 1000
            await wait_until(boot_ms() + max(1, min(LOOK_S, left_s) * 1000), trio.Event())

    async def _round(self) -> None:
        member = self.member
        over_ms = min(self._times())
        if not self._doubted_now():
            member.forget(over_ms)
            with suppress(StoreError):  # it is said when something has to be stored
                await beside(partial(self._ledger.forget, over_ms))
        if not member.given and not member.held:
            self._ahead_ms = wall_ms() - boot_ms()
        self._stored &= {lease.id for lease in member.given}
        await self._read_file()
        asked = False
        lenders = member.lenders(wall_ms())
        chance().shuffle(lenders)
        for lender in lenders:
            if (wants_w := self._wants_w()) == inf or self._is_set():
                break
            wish = member.wish(lender, round(wants_w) + self._reserve_w, wall_ms())
            if wish is not None and await self._ask(lender, *wish):
                asked = True
        if not asked and (others := [each for each in member.others() if not self._is_silent(each)]):
            await self._ask(chance().choice(others), bytes(32), 0)

    async def _ask(self, peer: bytes, roster: bytes, wanted_w: int) -> bool:
        """Whether the peer answered. What it said counts."""
        if self._is_silent(peer):
            return False
        question = encode_message(FeederRequest(tuple(self.member.rosters), roster, wanted_w))
        try:
            with trio.fail_after(ASK_S):
                frame = await self._network.request(peer, FEEDER_PROTOCOL, question, await self._addresses(peer))
            reply = decode_message_untrusted(frame)
        except (NetworkError, RemoteProtocolError, trio.TooSlowError):
            self._silent[peer] = trio.current_time() + AGAIN_S
            return False
        self._silent.pop(peer, None)
        if isinstance(reply, FeederReply):
            for envelope in reply.rosters:
                await self._take(peer, ROSTER, envelope)
            for envelope in reply.leases:
                await self._take(peer, HELD, envelope)
        return True

    async def _take(self, peer: bytes, kind: str, envelope: bytes) -> None:
        member, now_ms = self.member, wall_ms()
        before = len(member.held)
        try:
            found = (
                member.take_roster_untrusted(envelope, now_ms)
                if kind == ROSTER
                else member.take_lease_untrusted(peer, envelope, now_ms)
            )
        except RemoteProtocolError as error:
            self._log.write("feeder_refused", peer=short(peer), code=error.code, why=error.message)
            if len(member.held) == before:
                return
            found = member.held[-1]  # proof, which is kept
        if found is not None:
            self.look()
            self._log.write(f"feeder_{kind}", peer=short(peer))
            await self._keep(kind, found.id, found.envelope, found.record.expires_ms)

    async def _reply(self, peer: bytes, request: FeederRequest) -> FeederReply:
        """What the peer lacks; a lease is stored, and less is drawn, before it is sent."""
        member = self.member
        lease, wants_w = None, self._wants_w()
        if wants_w < inf and not self._is_set():
            keeps_w = round(wants_w) + self._reserve_w
            lease = member.grant(peer, request.roster, request.wanted_w, keeps_w, wall_ms(), chance().randbytes(16))
        if lease is not None:
            self.look()
            self._log.write("feeder_lends", peer=short(peer), watts=lease.record.lent_w)
            if await self._keep(GIVEN, lease.id, lease.envelope, lease.record.expires_ms):
                await trio.sleep(SETTLE_S)
                self._stored.add(lease.id)
        leases = [each.envelope for each in member.given_to(peer, wall_ms()) if each.id in self._stored]
        rosters = [each.envelope for each in member.rosters.values() if each.id not in request.known]
        return FeederReply(tuple(rosters), tuple(leases))

    async def _keep(self, kind: str, number: bytes, envelope: bytes, expires_ms: int) -> bool:
        """Whether it is on disk."""
        try:
            await beside(partial(self._ledger.keep, kind, self.member.feeder, number, envelope, expires_ms))
        except StoreError as error:
            self._log.write("feeder_not_stored", why=error.message)
            return False
        return True

    async def _read_file(self) -> None:
        """A roster that the operator has put there counts."""
        if self._file is None:
            return
        try:
            envelope = await beside(partial(_read, self._file))
            known = envelope == self._file_was
            found = None if known else self.member.take_roster_untrusted(envelope, wall_ms())
            self._file_was, self._file_fault = envelope, ""
            if found is not None:
                self.look()
                await self._keep(ROSTER, found.id, envelope, found.record.expires_ms)
        except (OSError, FallowError) as error:
            fault = f"{self._file}: {error.message if isinstance(error, FallowError) else error.strerror}"
            if fault != self._file_fault:
                self._file_fault = fault
                self.look()
                self._log.write("feeder_roster_file", why=fault)

    async def _addresses(self, peer: bytes) -> Sequence[str]:
        """Where the peer is, as far as that is known; else as it says in the DHT."""
        known = self._network.whereabouts(peer)
        if known and peer not in self._silent:
            return known
        try:
            value = await self._network.get(profile_key(peer))
            published = decode_profiles_untrusted(value, wall_ms()).connectivity.record.addresses if value else ()
        except (NetworkError, RemoteProtocolError):
            return known
        return tuple(dict.fromkeys((*published, *known)))

    def _is_silent(self, peer: bytes) -> bool:
        return trio.current_time() < self._silent.get(peer, 0.0)


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(FILE_BYTES_MAX + 1)

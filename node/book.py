"""The peer book: who was met in the mesh, where, when, and how it went. Hints for the next time, kept over restarts.

What is noted stands in memory at once and on disk some seconds later, so that no question waits for a disk. Several
processes may have one book open: each adds what it saw. A book that cannot be used keeps nobody from working.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import trio

from .book_file import Note, Peer, opened, split
from .log import wall_ms
from .machine import beside
from .network.seam import CIRCUIT, Network

T = TypeVar("T")

BOOK = "book.sqlite"
PEERS_MAX: Final = 4096
"""Ten searches' worth, read in some milliseconds; who was not met for longest gives way."""
PROFILE_BYTES_MAX: Final = 32 * 1024
"""Of one peer, twice what the DHT takes: who says more of itself is noted without it."""
WAYS_MAX: Final = 16
"""Addresses that are tried at once to join by."""
NOTE_S: Final = 15.0
"""Between two looks at who is there, and two writes: hints of so long are what a crash costs."""
LOOK_MS: Final = 60_000
"""A peer that stays connected is looked at again after so long: it may be elsewhere by then, or have missed a question."""
AGAIN_MS: Final = 10 * 60 * 1000
"""A peer that stays connected is noted anew after so long: a node that idles leaves its disk alone."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a peer signed of itself, as it came. Whoever reads it from a disk checks it again."""

    mandate: bytes
    capability: bytes
    connectivity: bytes


@dataclass(frozen=True, slots=True)
class Met:
    """A peer that answered at least once, and what we saw of it ourselves. Times are wall clock."""

    key: bytes
    addresses: tuple[str, ...] = ()
    """Full multiaddrs."""
    bundles: tuple[bytes, ...] = ()
    """That it served when it last said so."""
    met_ms: int = 0
    """When it last answered."""
    tried_ms: int = 0
    """When it was last asked."""
    rtt_us: int | None = None
    """Of the last question that it answered."""
    tries: int = 0
    answers: int = 0
    jobs_done: int = 0
    jobs_failed: int = 0

    @property
    def gone(self) -> bool:
        """It did not answer when it was last asked."""
        return self.tried_ms > self.met_ms


class Book:
    """The peers that were met. Made for one home or state directory or, without a path, for one process."""

    def __init__(self, path: Path | None = None, clock: Callable[[], int] = wall_ms) -> None:
        """Opened, or begun anew: whatever is wrong with the file is no error, but said in `problem`."""
        self._clock = clock
        self._file, self.problem = opened(path)
        """`problem` is a sentence for a person; empty if all is well."""
        self._peers: dict[bytes, Met] = {}
        """Who was met longest ago comes first."""
        self._written: dict[bytes, Met] = {}
        """As this process and the disk last agreed on them."""
        self._changed: set[bytes] = set()
        self._profiles: dict[bytes, Profile] = {}
        self._epochs: dict[bytes, int] = {}
        """These are not on disk yet."""
        self._seen: set[bytes] = set()
        self._seen_ms = 0
        """Who was connected at the last look, and when all of them were looked at."""
        if self.problem:
            logging.getLogger(__name__).warning(self.problem)
        nobody: list[Met] = []
        for met in self._tried(lambda: [_met(peer) for peer in self._file.peers(PEERS_MAX)], nobody):
            self._peers[met.key] = self._written[met.key] = met

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Met]:
        """All of them; who was met last comes first."""
        return reversed(list(self._peers.values()))

    def get(self, key: bytes) -> Met | None:
        """What is known of the peer."""
        return self._peers.get(key)

    def serving(self, bundle: bytes) -> list[Met]:
        """Who served the bundle, and answered when last asked; who was met last comes first."""
        return [met for met in self if bundle in met.bundles and not met.gone]

    def ways_in(self) -> list[str]:
        """Where to join: by those that answered when last asked, and of them first by those that have worked for us.

        Of who is reached through a relay, the relay is what can be dialled.
        """
        ranked = sorted(self, key=lambda met: (met.gone, not met.jobs_done))  # and within that, who was met last
        ways = (address.partition(CIRCUIT)[0] for met in ranked for address in met.addresses)
        return list(dict.fromkeys(ways))[:WAYS_MAX]

    def met(self, key: bytes, addresses: Sequence[str]) -> None:
        """The peer is there: we are connected. Where it said itself that it is counts more than where we see it."""
        before, now_ms = self._peers.get(key) or Met(key), self._clock()
        if _says_nothing_new(before, addresses, now_ms):
            return
        where = before.addresses if before.bundles else tuple(addresses)
        at_ms = max(now_ms, before.tried_ms)
        self._note(replace(before, addresses=where, met_ms=at_ms, tried_ms=at_ms))

    def answered(
        self, key: bytes, addresses: Sequence[str], bundles: Sequence[bytes], rtt_us: int, profile: Profile
    ) -> None:
        """The peer was asked and said this of itself, all of it checked."""
        before = self._peers.get(key) or Met(key)
        at_ms, tries, answers = max(self._clock(), before.tried_ms), before.tries + 1, before.answers + 1
        seen = Met(key, tuple(addresses), tuple(bundles), at_ms, at_ms, rtt_us, tries, answers)
        self._note(replace(seen, jobs_done=before.jobs_done, jobs_failed=before.jobs_failed))
        if sum(map(len, (profile.mandate, profile.capability, profile.connectivity))) <= PROFILE_BYTES_MAX:
            self._profiles[key] = profile

    def missed(self, key: bytes) -> None:
        """The peer did not answer: it is gone until it does."""
        if before := self._peers.get(key):
            tried_ms = max(self._clock(), before.met_ms + 1)
            self._note(replace(before, tried_ms=tried_ms, tries=before.tries + 1))
            self._seen.discard(key)

    def worked(self, key: bytes, *, well: bool) -> None:
        """A job of ours there came to its end, or to a bad one."""
        if before := self._peers.get(key):
            done, failed = before.jobs_done + well, before.jobs_failed + (not well)
            self._note(replace(before, jobs_done=done, jobs_failed=failed))

    def profile(self, key: bytes) -> Profile | None:
        """What the peer last said of itself, if it is kept."""
        if (profile := self._profiles.get(key)) is not None:
            return profile
        parts = self._tried(lambda: self._file.profile(key), None)
        return Profile(*parts) if parts else None

    def epoch(self, subject: bytes) -> int:
        """The highest one that was seen; 0 if none was."""
        return max(self._epochs.get(subject, 0), self._tried(lambda: self._file.epoch(subject), 0))

    def see_epoch(self, subject: bytes, epoch: int) -> None:
        """It was seen."""
        self._epochs[subject] = max(epoch, self._epochs.get(subject, 0))

    def look(self, network: Network) -> None:
        """Whoever is connected, and can be dialled, is met."""
        now_ms, peers = self._clock(), network.peers()
        if not 0 <= now_ms - self._seen_ms < LOOK_MS:
            self._seen.clear()
            self._seen_ms = now_ms
        self._seen.intersection_update(peers)
        for peer in peers:
            if peer in self._seen:
                continue
            before, addresses = self._peers.get(peer), network.whereabouts(peer)
            if not addresses:
                continue  # they are not known yet
            self._seen.add(peer)
            if before is None or not _says_nothing_new(before, addresses, now_ms):
                self.met(peer, addresses)

    async def keep(self, network: Network) -> None:
        """Runs until cancelled: whoever is connected is met, and what is noted comes to the disk."""
        while True:
            await trio.sleep(NOTE_S)
            self.look(network)
            if self._changed or self._profiles or self._epochs:
                await beside(partial(self._write, self._taken()))

    def close(self) -> None:
        """What was noted is in the file."""
        self._write(self._taken())
        self._file.close()

    def _taken(self) -> Note:
        """What is not in the file yet; the file is as good as having it."""
        now = {key: met for key in self._changed if (met := self._peers.get(key))}
        rows = [_row(met, self._written.get(key, Met(key))) for key, met in now.items()]
        profiles = {key: (each.mandate, each.capability, each.connectivity) for key, each in self._profiles.items()}
        note = Note(rows, profiles, self._epochs)
        self._written |= now
        self._changed, self._profiles, self._epochs = set(), {}, {}
        return note

    def _write(self, note: Note) -> None:
        if note.peers or note.profiles or note.epochs:
            self._tried(lambda: self._file.write(note, self._clock(), PEERS_MAX), None)

    def _note(self, met: Met) -> None:
        before = self._peers.get(met.key)
        if before is None or met.met_ms > before.met_ms:
            self._peers.pop(met.key, None)  # who was met last stands last
        self._peers[met.key] = met
        self._changed.add(met.key)
        while len(self._peers) > PEERS_MAX:
            first = next(iter(self._peers))
            del self._peers[first]
            self._written.pop(first, None)

    def _tried(self, call: Callable[[], T], otherwise: T) -> T:
        """What the file gives. One that fails is let go; from then on nothing is kept beyond this process."""
        try:
            return call()
        except (sqlite3.Error, ValueError, TypeError) as error:
            self._file.close()
            self._file, _ = opened(None)
            self.problem = f"The peer book can no longer be used ({error}); what is learned from now on is not kept."
            logging.getLogger(__name__).warning(self.problem)
            return otherwise


def _says_nothing_new(known: Met, addresses: Sequence[str], now_ms: int) -> bool:
    """Of a peer that was met lately, where it is known to be."""
    fresh = now_ms - known.met_ms < AGAIN_MS and not known.gone
    return fresh and (bool(known.bundles) or known.addresses == tuple(addresses))


def _met(peer: Peer) -> Met:
    key, addresses, bundles, met_ms, tried_ms, rtt_us, *counts = peer
    return Met(key, tuple(json.loads(addresses)), split(bundles), met_ms, tried_ms, rtt_us, *counts)


def _row(met: Met, written: Met) -> Peer:
    return (
        met.key, json.dumps(met.addresses), b"".join(met.bundles), met.met_ms, met.tried_ms, met.rtt_us,
        met.tries - written.tries, met.answers - written.answers, met.jobs_done - written.jobs_done,
        met.jobs_failed - written.jobs_failed,
    )  # fmt: skip

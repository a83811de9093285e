"""Checkers are tried in their turn: now and then one is given a transcript with a token changed, and must not confirm it.

What it is given is a window that others have confirmed, so that its true figures are known; the checker has not seen it. The
order looks like any other check's. Who confirms the change, or has other figures for the tokens before it, did not run the
model, and is not dealt with again. Who objects to everything needs no such trap: the two who are drawn then outvote it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import trio

from ..node.machine import chance
from ..protocol.bundle import SCORE, Manifest, Tolerance
from ..protocol.checks import Attestation
from ..protocol.errors import FallowError
from ..protocol.identity import CHECKER
from ..protocol.work import Parameters, Work
from ..verifier.audits import MILLION, spot_ppm
from ..verifier.compare import choice_disagreement, values_disagreement
from ..verifier.quorum import Judgement
from .auditing import Auditor, subject_of
from .checking import Claim
from .discovery import Node
from .execution import Request, execute
from .panel import Panel, Place, collect

SAMPLES_MAX = 64
"""Confirmed windows at hand, a few kilobytes each; a busy client's last minute."""
DUE_MAX = 16
"""Checkers waiting to be tried; who finds no room is tried another time."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A window that was confirmed, and by whom it has been seen."""

    bundle: bytes
    manifest: Manifest
    parameters: Parameters
    tokens: tuple[int, ...]
    values: tuple[int, ...]
    """Of the last tokens, as everybody had them."""
    seen_by: frozenset[bytes]
    """Owners of its executor and checkers."""


@dataclass(frozen=True, slots=True)
class Trap:
    """A sample with a token changed."""

    sample: Sample
    tokens: tuple[int, ...]
    changed: int
    """Which of the claimed tokens."""

    @property
    def request(self) -> Request:
        """As any check of the window would be ordered; the receipt that it names is nobody's."""
        sample = self.sample
        work = Work((self.tokens,), len(sample.values))
        return Request(
            sample.bundle,
            sample.manifest,
            SCORE,
            work,
            sample.parameters,
            work.claimed,
            chance().randbytes(32),
            checks=chance().randbytes(32),
        )


def changed(sample: Sample, random: Random) -> Trap | None:
    """The sample with one of its claimed tokens changed, for another that stands in it; None if all of them are the same.

    The change is in the first half, so that what follows it is unlikely, too, and no honest checker is caught by a tie.
    """
    claimed = len(sample.values)
    at = random.randrange((claimed + 1) // 2)
    place = len(sample.tokens) - claimed + at
    others = sorted(set(sample.tokens) - {sample.tokens[place]})
    if not others:
        return None
    tokens = (*sample.tokens[:place], random.choice(others), *sample.tokens[place + 1 :])
    return Trap(sample, tokens, at)


def caught(trap: Trap, found: Attestation, tolerance: Tolerance) -> str | None:
    """Why these figures for it cannot come from running the model, or None."""
    sample, at = trap.sample, trap.changed
    if why := values_disagreement(sample.values[:at], found.values_micro[:at], tolerance):
        return f"given a window that others had confirmed, it found other figures: {why}"
    top_p = sample.parameters.top_p_ppm
    if choice_disagreement(found.gaps_micro[at:], found.masses_ppm[at:], top_p, tolerance) is None:
        return "confirmed a transcript of which a token had been changed"
    return None


class Spots:
    """What checkers are tried by, and who is due."""

    def __init__(self, auditor: Auditor, random: Random) -> None:
        self._auditor = auditor
        self._random = random
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._due: deque[tuple[Node, bytes]] = deque()
        self._news = trio.Event()
        self._trying = trio.Lock()
        self.tried = 0
        self.caught = 0
        """Checkers, by this process."""

    def learn(self, claim: Claim, judgement: Judgement, panel: Panel) -> None:
        """A window was accepted: if nobody objected, others can be tried by it. And chance says who of its checkers is due."""
        believed = [place for place in panel.places if place.believed and place.final is not None]
        values = claim.receipt.record.values_micro
        if not judgement.reasons and values:
            owners = frozenset({claim.executor.owner or b"", *(place.node.owner for place in panel.places)})
            self._samples.append(Sample(claim.bundle, claim.manifest, claim.parameters, claim.tokens, values, owners))
        for place in believed:
            assert place.final is not None
            valid = self._auditor.history.valid(subject_of(place.node, claim.bundle, place.final), CHECKER)
            if self._random.randrange(MILLION) < spot_ppm(valid) and len(self._due) < DUE_MAX:
                self._due.append((place.node, claim.bundle))
                self._news.set()

    async def run(self) -> None:
        """Tries whoever is due, one after another, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await self.drain()

    async def drain(self) -> None:
        """Nobody is due any more whom anything at hand could try."""
        async with self._trying:  # who asks while another drains waits until that one is done
            for _ in range(len(self._due)):
                node, bundle = self._due.popleft()
                sample = next((s for s in self._unseen(node, bundle)), None)
                if sample is None:
                    self._due.append((node, bundle))  # until somebody else's window is confirmed
                else:
                    await self._try(node, sample)

    def _unseen(self, node: Node, bundle: bytes) -> Sequence[Sample]:
        return [s for s in reversed(self._samples) if s.bundle == bundle and node.owner not in s.seen_by]

    async def _try(self, node: Node, sample: Sample) -> None:
        trap = changed(sample, self._random)
        if trap is None:
            return
        place = Place(node)
        try:
            async with execute(self._auditor.desk, node, trap.request) as execution:
                place.final = await collect(execution, place)
                assert place.attestation is not None, "a check is complete with its attestation"
                why = caught(trap, place.attestation.record, sample.manifest.tolerance)
                self.tried += 1
                if why is None:
                    self._auditor.passed(node, sample.bundle, place.final, CHECKER)
                    await execution.pay(place.final)
                else:
                    self.caught += 1
                    await self._auditor.failed(node, why)
                    logging.getLogger(__name__).warning("checker %s: %s", node.key.hex()[:8], why)
                    await execution.stop(why)
        except FallowError:
            return  # it could not be had now: nothing is held against it

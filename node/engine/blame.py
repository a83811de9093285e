"""Whom to blame when a worker ends: which bundles are left out, why, and until when.

A worker runs strangers' programs, and one that has broken may say anything of any bundle. So it is believed only where nobody
else can have put the words into its mouth, or where another says the same:

it ends without a word, or is ended from outside        the bundle that it was loading is suspected
it says that a bundle overran, beside other bundles     that bundle is suspected
a worker ends over a suspected bundle                   the bundle is left out for a term
it says so before anything of another bundle was read   the bundle is left out for a term
admission refuses a bundle, beside other bundles        this worker lacks it, and it is suspected
admission refuses a suspected bundle, or the first one  it is left out for as long as the daemon lives
workers die too often                                   the bundle that had a job each time, or all, for a term

What is suspected is loaded before everything else, so that no bundle outside of suspicion can speak for it. Terms grow with
each repetition: a machine that was short of time or memory for an hour loses no bundle for good, and one that does it again
costs everybody a worker a day at most. What admission finds in a program is there each time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import trio

from ...protocol.errors import Code, EngineError
from ...protocol.identity import cid, cid_hash_untrusted

TERM_S: Final = 600.0
"""The first term: what made a machine slow, an update or a build, has mostly passed by then."""

TERM_S_MAX: Final = 24 * 3600.0
"""No term is longer: once a day one worker is risked to find out."""

SUSPECTED_S: Final = 3600.0
"""So long a bundle is suspected: within it the next worker comes for certain, since no worker's key lives longer."""

RESTARTS_MAX: Final = 5
RESTARTS_S: Final = 600.0
"""A worker that dies more often than this is broken, and starting it burns the owner's power for nothing."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a bundle is not served."""

    error: EngineError
    until: float
    """In trio's time; in the past: the next worker is to serve it again."""


class Blame:
    """What the workers of one engine, and their ends, have told of its bundles. Time is trio's."""

    def __init__(self) -> None:
        self._refusals: dict[bytes, Refusal] = {}
        self._suspected: dict[bytes, float] = {}
        """Since when, which is in the future of one that is left out until then."""
        self._terms = Counter[bytes]()
        self._deaths: deque[tuple[float, frozenset[bytes]]] = deque(maxlen=RESTARTS_MAX)
        """When workers died, and of which bundles they had jobs then."""
        self.accusations = 0
        """So often a bundle was blamed for something: whoever sees it grow knows that the next worker differs."""
        self.refusals = 0
        """So often one was left out for it."""

    @property
    def refused(self) -> Mapping[bytes, EngineError]:
        """Why a bundle is not served; until it is again."""
        return {bundle: refusal.error for bundle, refusal in self._refusals.items()}

    def left(self, cids: Sequence[str]) -> list[str]:
        """What the next worker serves, what is suspected first. Raises `EngineError(bundle_refused)` if that is nothing."""
        now = trio.current_time()
        left = [each for each in cids if self._until(cid_hash_untrusted(each)) <= now]
        if cids and not left:
            why = "; ".join(refusal.error.message for refusal in self._refusals.values())
            raise EngineError(Code.BUNDLE_REFUSED, f"No bundle is left to serve: {why}")
        return sorted(left, key=lambda each: cid_hash_untrusted(each) not in self._suspected)

    def until_any(self) -> float:
        """When the first of those that are left out may be served again; never: inf."""
        return min((refusal.until for refusal in self._refusals.values()), default=inf)

    def served(self, bundles: Iterable[bytes]) -> None:
        """A worker is ready and serves them."""
        for bundle in bundles:
            self._refusals.pop(bundle, None)

    def ended_over(self, bundle: bytes, why: str, *, believed: bool) -> EngineError:
        """A worker has ended over it. What to say of that: `bundle_refused` if the bundle is left out for it.

        `believed`: the worker said so itself, and nothing of another bundle was in it.
        """
        self.accusations += 1
        now = trio.current_time()
        if believed or now - self._suspected.get(bundle, -inf) < SUSPECTED_S:
            return self._leave_out(bundle, why)
        self._suspected[bundle] = now
        return EngineError(Code.WORKER_DIED, f"{why} It is tried once more with a fresh worker.")

    def refuses(self, bundle: bytes, error: EngineError, *, believed: bool) -> None:
        """Admission refuses it. `believed`: nothing of another bundle was in the worker."""
        self.accusations += 1
        now = trio.current_time()
        for_good = believed or now - self._suspected.get(bundle, -inf) < SUSPECTED_S
        self._refusals[bundle] = Refusal(error, inf if for_good else now)
        self._suspected[bundle] = now
        self.refusals += for_good

    def died(self, at_work: frozenset[bytes], served: frozenset[bytes]) -> EngineError | None:
        """A worker died with jobs of the bundles `at_work`. After too many deaths the one bundle that had a job at each is left
        out, if there are others; else this returns why no worker is started for now."""
        now, before = trio.current_time(), list(self._deaths)
        self._deaths.append((now, at_work))
        if len(before) < RESTARTS_MAX or now - before[0][0] >= RESTARTS_S:
            return None
        self._deaths.clear()
        died = f"The worker died {RESTARTS_MAX + 1} times within {RESTARTS_S / 60:.0f} minutes"
        suspects = at_work.intersection(*(bundles for _, bundles in before))
        if len(suspects) == 1 and len(served) > 1:
            (bundle,) = suspects
            self._leave_out(bundle, f"{died}, each time with a job of bundle {cid(bundle)}.")
            return None
        return EngineError(Code.WORKER_FAILED, f"{died}; it rests for now.")

    def forget_deaths(self) -> None:
        """The owner has had a look."""
        self._deaths.clear()

    def _until(self, bundle: bytes) -> float:
        return self._refusals[bundle].until if bundle in self._refusals else -inf

    def _leave_out(self, bundle: bytes, why: str) -> EngineError:
        seconds = term_s(self._terms[bundle])
        self._terms[bundle] += 1
        self.refusals += 1
        until = self._suspected[bundle] = trio.current_time() + seconds
        error = EngineError(Code.BUNDLE_REFUSED, f"{why} It is left out for {seconds / 60:.0f} minutes.")
        self._refusals[bundle] = Refusal(error, until)
        return error


def term_s(before: int) -> float:
    """The length of the next term after so many."""
    return float(min(TERM_S * 2 ** min(before, 32), TERM_S_MAX))

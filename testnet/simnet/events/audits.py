"""How often work is looked at, what that costs, and who is caught: each client's own records of a million nodes.

The rate is the design's: `p = min(1, max(floor, 1/CV, price / (H(1-r))))`, and 1 for newcomers. A lie that is looked at by
somebody honest is seen: the proof values of wrong work differ in the first tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ....protocol.limits import WINDOW_TOKENS
from ....protocol.policy import AUDIT, NONE, Policy
from ..lots import Floats
from ..population import FALSE, Bools, Population
from ..scenario import Assurance, Scenario
from ..scenario_file import ADAPTIVE
from .counters import Counters

DISTRUSTED: Final = -1
Ints = NDArray[np.int64]


def audit_shares(valid: NDArray[np.int32], assurance: Assurance) -> Floats:
    """Of the windows of a node with so many valid checked results in a row, so many are checked."""
    needed = assurance.price_ucr / (assurance.held_ucr * (1 - assurance.colluding))
    least = max(assurance.floor, needed)
    share = np.minimum(1.0, np.maximum(least, 1.0 / np.maximum(valid, 1)))
    return np.where(valid < max(assurance.newcomer, 1), 1.0, share)


@dataclass(frozen=True, slots=True)
class Looked:
    """What checking came to, for each piece of work."""

    checked: Ints
    """Windows."""
    caught: Bools
    at_window: Ints
    """Of those caught: the window that was found wrong, counted from 0."""
    sound: Ints
    """Windows before the first wrong one: what is kept of somebody who was caught."""
    wrong: Bools
    """It has wrong windows, and was not caught."""
    check_s: Floats
    """Checkers' time."""


class Audits:
    """The clients' records, and whom they do not deal with any more."""

    def __init__(self, scenario: Scenario, population: Population, chance: np.random.Generator) -> None:
        self._assurance = scenario.assurance
        self._lies = scenario.faults.lies
        self._lies_after = scenario.faults.lies_after_jobs
        self._history = np.where(population.newcomer, 0, scenario.history).astype(np.int32)
        self._false = population.is_a(*FALSE)
        self._nodes = len(population)
        self._bundles = len(scenario.bundles)
        self._worked = np.zeros(len(population), dtype=np.int32)
        self._chance = chance
        self._records = Counters()
        self.anybody_distrusted = False
        colluding = float(population.is_a("colluders", *FALSE).mean())
        self._share, self._checkers, self._fooled = _policy(scenario.assurance.policy, colluding)

    @property
    def checks(self) -> bool:
        """Whether anything is looked at at all."""
        return self._share is None or self._share > 0

    def distrusted(self, clients: Ints, nodes: Ints) -> Bools:
        """Whom each client has found at fault. The same pair may come several times."""
        if not self.anybody_distrusted:
            return np.zeros(len(nodes), dtype=np.bool_)
        keys = self._keys(clients, nodes, np.full(len(nodes), self._bundles, dtype=np.int64))
        return np.asarray(self._records.get(keys, np.zeros(len(nodes), dtype=np.int32)) == DISTRUSTED)

    def distrust(self, clients: Ints, nodes: Ints) -> None:
        """The clients deal no more with these."""
        if len(nodes):
            self.anybody_distrusted = True
            keys = np.unique(self._keys(clients, nodes, np.full(len(nodes), self._bundles, dtype=np.int64)))
            self._records.put(keys, np.full(len(keys), DISTRUSTED, dtype=np.int32))

    def look(
        self, clients: Ints, nodes: Ints, bundles: Ints, windows: Ints, prefix_s: Floats, window_s: Floats
    ) -> Looked:
        """So many windows of each node's are delivered. Checking the first takes `prefix_s`, which is the prompt's and half
        the text's reading, and each `window_s`."""
        keys = self._keys(clients, nodes, bundles)
        valid = self._records.get(keys, self._history[nodes])
        share = audit_shares(valid, self._assurance) if self._share is None else np.full(len(nodes), self._share)
        checked = self._chance.binomial(windows, share)
        lies = self._false[nodes] & (self._worked[nodes] >= self._lies_after)
        wrong = np.where(lies, self._chance.binomial(windows, self._lies), 0)
        seen = share * (1 - self._fooled)
        tries = self._chance.geometric(np.maximum(seen, 1e-12))
        caught = (wrong > 0) & (tries <= wrong) & (seen > 0)
        spaced = np.maximum(windows // np.maximum(wrong, 1), 1)
        at_window = np.minimum((tries - 1) * spaced + spaced // 2, np.maximum(windows - 1, 0))
        at_window = np.where(self._lies >= 1.0, np.minimum(tries - 1, np.maximum(windows - 1, 0)), at_window)
        checked = np.where(caught, np.maximum(1, np.minimum(checked, at_window + 1)), checked)
        sound = np.where(self._lies >= 1.0, 0, np.minimum(spaced // 2, at_window))
        reading_s = np.where(checked > 0, prefix_s * (1 - share / 2), 0.0)
        np.add.at(self._worked, nodes, 1)
        self._count(keys, np.where(caught, 0, valid + checked).astype(np.int32))
        return Looked(
            checked=checked,
            caught=caught,
            at_window=at_window,
            sound=sound,
            wrong=(wrong > 0) & ~caught,
            check_s=self._checkers * (reading_s + checked * window_s),
        )

    def _count(self, keys: Ints, valid: NDArray[np.int32]) -> None:
        # Of several pieces by the same pair at one time the last one counts.
        unique, last = np.unique(keys[::-1], return_index=True)
        self._records.put(unique, valid[::-1][last])

    def _keys(self, clients: Ints, nodes: Ints, bundles: Ints) -> Ints:
        return (clients * (self._bundles + 1) + bundles) * self._nodes + nodes


def windows_of(tokens: Ints) -> Ints:
    """So many windows, begun ones counted; a call is one."""
    return np.maximum(1, -(-tokens // WINDOW_TOKENS))


def _policy(text: str, colluding: float) -> tuple[float | None, int, float]:
    """The share of windows that is checked (None: by the node's record), by how many, and the chance that all is agreed to."""
    if text == ADAPTIVE:
        return None, 1, colluding
    policy = Policy.parse(text)
    if policy.kind == NONE:
        return 0.0, 0, 0.0
    if policy.kind == AUDIT:
        return policy.ppm / 1e6, 1, colluding
    needed, asked = policy.k - 1, policy.n - 1
    agree = sum(comb(asked, j) * colluding**j * (1 - colluding) ** (asked - j) for j in range(needed, asked + 1))
    return 1.0, asked, agree

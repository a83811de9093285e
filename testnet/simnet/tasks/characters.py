"""What a node says instead of what it computed, and how it delivers it, by the names of `population.CHARACTERS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from ....node.delivery import Session
from ...adversaries.denier import Silent
from ...adversaries.equivocator import Equivocating
from . import model

SHIFT_MICRO: Final = 50_000
"""By so much at least a liar's finding is off: fifty times the tolerance (as `testnet.adversaries.liar`)."""
INT8_MICRO: Final = 9_000
"""By so much int8 weights are off at most: of SmolLM2's tokens 96 % were by more than 1,000."""
INT8_OTHER_ONE_IN: Final = 40
"""So seldom do they choose another token."""


@dataclass(frozen=True, slots=True)
class Character:
    """How a worker answers. Honest: it says what it computed."""

    generates: Callable[[int, int, Random], tuple[int, int]] | None = None
    """From the state and what the model chooses: the token that it writes, and the shift of the value that it gives."""
    scores: Callable[[int, int, int, Random], tuple[int, int]] | None = None
    """From the state, the claimed token and the model's choice: shifts of the value and of the gap that it finds."""
    calls: bool = False
    """Its results of functions are wrong."""
    slow: float = 1.0
    session: type[Session] | None = None
    """How its daemon delivers; None: as it should."""

    @property
    def honest(self) -> bool:
        """It says what it computed, and signs it as it should."""
        return not (self.generates or self.scores or self.calls or self.session)


def _lies(state: int, chosen: int, random: Random) -> tuple[int, int]:
    return (chosen - 1 if chosen > model.FIRST else chosen + 1), 0


def _finds_wrong(state: int, token: int, chosen: int, random: Random) -> tuple[int, int]:
    return -SHIFT_MICRO - random.randrange(SHIFT_MICRO), 0  # liars who do not know of one another agree with nobody


def _guesses(state: int, chosen: int, random: Random) -> tuple[int, int]:
    return random.randrange(model.FIRST, model.VOCABULARY), random.randrange(-model.LIKELY_MICRO, model.LIKELY_MICRO)


def _finds_anything(state: int, token: int, chosen: int, random: Random) -> tuple[int, int]:
    return random.randrange(-model.LIKELY_MICRO, model.LIKELY_MICRO), 0


def _int8(state: int) -> int:
    return model.mix(state ^ 0x18) % (2 * INT8_MICRO) - INT8_MICRO


def _quantised(state: int, chosen: int, random: Random) -> tuple[int, int]:
    other = model.mix(state ^ 0x81) % INT8_OTHER_ONE_IN == 0
    return (_lies(state, chosen, random)[0] if other else chosen), _int8(state)


def _finds_quantised(state: int, token: int, chosen: int, random: Random) -> tuple[int, int]:
    return _int8(state), 0


def _colludes(state: int, token: int, chosen: int, random: Random) -> tuple[int, int]:
    """What a friend wrote is found to be just right: the value that the friend gave was that of the true token."""
    if token != _lies(state, chosen, random)[0]:
        return 0, 0
    shift = model.value_micro(state, chosen, chosen) - model.value_micro(state, token, chosen)
    return shift, -model.gap_micro(state, token, chosen)


HONEST: Final = Character()
CHARACTERS: Final[dict[str, Character]] = {
    "honest": HONEST,
    "liars": Character(_lies, _finds_wrong, calls=True),
    "free_riders": Character(_guesses, _finds_anything, calls=True),
    "quantisers": Character(_quantised, _finds_quantised),
    "colluders": Character(_lies, _colludes),
    "sybils": Character(_lies, _colludes),
    "stallers": Character(slow=400.0),
    "deniers": Character(session=Silent),
    "equivocators": Character(session=Equivocating),
}

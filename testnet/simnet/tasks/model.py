"""A model that is nobody's: a token and its log-probability follow from the text before it, by hashing alone.

What the design asks of a model holds for it. Any honest node writes the same text for the same prompt and seed, wherever it
begins, so that a text goes on elsewhere and a checker can repeat it; log-probabilities can only be had by computing them; and
two honest machines differ by a few micro-nats. How many was measured on SmolLM2 (benchmarks/README.md, 2026-11-27: median 5,
largest 21 of 96 tokens); what int8 weights do, in its manifest's calibration (over 1,000 on 96 % of tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

VOCABULARY: Final = 1024
END: Final = 2
"""The token that ends a text."""
END_ONE_IN: Final = 600
"""So seldom that most texts get as long as was asked for."""
FIRST: Final = 3
"""Tokens below have a meaning of their own."""
LIKELY_MICRO: Final = 2_000_000
UNLIKELY_MICRO: Final = 8_000_000
GAP_MICRO: Final = 60_000
"""What is not the model's choice lies at least so far behind it: near ties are left out."""

_MASK: Final = (1 << 64) - 1


def mix(x: int) -> int:
    """64 bits that look like nothing (SplitMix64's finaliser)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def begin(bundle: bytes) -> int:
    """The state before a text's first token."""
    return int.from_bytes(bundle[:8], "big")


def read(state: int, tokens: Sequence[int]) -> int:
    """The state after these tokens more."""
    for token in tokens:
        state = ((state ^ (token + 1)) * 0xD1342543DE82EF95 + 0x2545F4914F6CDD1D) & _MASK
    return state


def choice(state: int, seed: int, warm: bool) -> int:
    """The token that comes next."""
    drawn = mix(state ^ mix(seed)) if warm else mix(state)
    return END if drawn % END_ONE_IN == 0 else FIRST + drawn % (VOCABULARY - FIRST)


def value_micro(state: int, token: int, chosen: int) -> int:
    """The token's log-probability in micro-nats, where the model would have chosen that one."""
    drawn = mix(state ^ (token << 20))
    return -(drawn % LIKELY_MICRO) if token == chosen else -(LIKELY_MICRO + drawn % UNLIKELY_MICRO)


def gap_micro(state: int, token: int, chosen: int) -> int:
    """How far the token lies behind the model's choice."""
    return 0 if token == chosen else GAP_MICRO + mix(state ^ (token << 21)) % UNLIKELY_MICRO


def rounding_micro(state: int, machine: int) -> int:
    """By how much that machine's arithmetic is off there: the measured median 5 and largest 21 micro-nats."""
    drawn = mix(state ^ mix(machine))
    size = (drawn & 0xFF) * (drawn >> 8 & 0xFF) * 18 >> 16
    return size if drawn >> 16 & 1 else -size


def write(bundle: bytes, prompt: Sequence[int], tokens_max: int, seed: int, warm: bool) -> tuple[int, ...]:
    """The text, as every honest node gives it."""
    state, text = read(begin(bundle), prompt), list[int]()
    while len(text) < tokens_max and (not text or text[-1] != END):
        text.append(choice(state, seed, warm))
        state = read(state, text[-1:])
    return tuple(text)

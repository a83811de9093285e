"""Which inputs to keep: the smallest ones that together reach all that any of them reaches.

libFuzzer's own merge starts its program anew for each crash, and atheris has no program to start.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

from targets import Target, feed

import fallow

ROOT = fallow.__file__.removesuffix("__init__.py")
WATCHED = (
    f"{ROOT}protocol/",
    f"{ROOT}node/engine/messages.py",
    f"{ROOT}node/network/control.py",
    f"{ROOT}node/network/yamux.py",
    f"{ROOT}node/network/punching.py",
    f"{ROOT}node/network/index.py",
    f"{ROOT}node/network/entries.py",
    "<string>",
)
"""The last one is what `protocol.reading` writes for each record."""

Feature = tuple[CodeType, int, int, int]
"""A step from one line to another, and about how many times it was taken."""


def smallest(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """The shortest inputs first, and of the others those that reach something new."""
    reached: set[Feature] = set()
    kept = []
    for given in sorted(set(inputs), key=lambda given: (len(given), given)):
        features = _features(target, given)
        if not features <= reached:
            reached |= features
            kept.append(given)
    return kept


def _features(target: Target, given: bytes) -> set[Feature]:
    steps: Counter[tuple[CodeType, int, int]] = Counter()
    last: dict[FrameType, int] = {}

    def step(frame: FrameType, event: str, _: object) -> Any:
        if event == "call" and not frame.f_code.co_filename.startswith(WATCHED):
            return None
        steps[frame.f_code, last.get(frame, 0), frame.f_lineno] += 1
        last[frame] = frame.f_lineno
        return step

    sys.settrace(step)
    try:
        feed(target, given)
    finally:
        sys.settrace(None)
    return {(*edge, count.bit_length()) for edge, count in steps.items()}

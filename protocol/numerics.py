"""The class of a result's arithmetic: on what, and by which of a bundle's programs, it was computed.

    class   = precision "/" runtime "/" platform "/" device ["/" flags] "/" variants
    variants = variant *("+" variant)
    variant = slots "x" context

A node's class names all programs that may run, a result's those that did: only results of one class can be equal to the
bit. No check believes it. See `spec/07-bundles.md`.
"""

from __future__ import annotations

from collections.abc import Collection

from .bundle import Program


def variant(program: Program) -> str:
    """What sets the program apart from the others of its role, as far as bits go."""
    return f"{program.slots}x{program.context}"


def narrowed(whole: str, ran: Collection[str]) -> str:
    """The class with those of its variants alone that ran, in its order; the whole where none of them did."""
    machine, slash, variants = whole.rpartition("/")
    kept = [each for each in variants.split("+") if each in ran]
    return f"{machine}{slash}{'+'.join(kept)}" if kept else whole


def is_within(part: str, whole: str) -> bool:
    """Whether a result of class `part` can come from a node of class `whole`."""
    return part == narrowed(whole, part.rpartition("/")[2].split("+"))

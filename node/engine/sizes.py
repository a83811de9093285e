"""Lengths in bytes, for people."""

from __future__ import annotations

from typing import Final

MIB: Final = 2**20


def mib(length_bytes: int) -> str:
    """In whole MiB."""
    return f"{length_bytes / MIB:,.0f} MiB"

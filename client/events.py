"""What an order under way brings, in the order in which it comes: everything in it was verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..protocol.checks import Attestation
from ..protocol.envelope import Signed
from ..protocol.errors import FallowError
from ..protocol.receipts import Receipt
from ..protocol.work import Piece


@dataclass(frozen=True, slots=True)
class Delivered:
    """A piece of the result."""

    piece: Piece


@dataclass(frozen=True, slots=True)
class Receipted:
    """The executor's receipt for what was delivered since the last; it matches what arrived, and is on disk."""

    receipt: Signed[Receipt]
    added_ucr: int
    reason: str
    """Why the executor leaves, if it does."""
    arrived_ms: int
    """By our wall clock."""


@dataclass(frozen=True, slots=True)
class Attested:
    """A checker's finding; it precedes its receipt."""

    attestation: Signed[Attestation]


@dataclass(frozen=True, slots=True)
class Broken:
    """The execution ended without a final receipt. The last event."""

    error: FallowError


ExecutionEvent: TypeAlias = Delivered | Receipted | Attested | Broken

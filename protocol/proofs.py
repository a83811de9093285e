"""A proof in one file: the signed records that a verdict rests on and, if they are given, what was asked and answered.

It is no record and needs no signature: each record in it has its own, and an opening that does not fit shows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from .codec import encode
from .limits import FINDINGS_MAX, MANIFEST_BYTES_MAX, MESSAGE_BYTES_MAX
from .reading import read_untrusted
from .schema import Size, to_map

PROOF_RECORDS_MAX: Final = 16 * FINDINGS_MAX
"""Of the most orders that one piece of work may have: mandate, order, acceptance, receipts and attestation of each."""
PROOF_BYTES_MAX: Final = 64 * 1024 * 1024
"""A long answer with its openings has some megabytes, a quorum over full frames of arrays some tens."""


@dataclass(frozen=True, slots=True)
class ProofFile:
    """What is handed over so that somebody else can recompute a verdict."""

    records: Annotated[tuple[Annotated[bytes, Size(1, MANIFEST_BYTES_MAX)], ...], Size(1, PROOF_RECORDS_MAX)]
    """Envelopes, in any order."""
    openings: Annotated[tuple[Annotated[bytes, Size(1, 2 * MESSAGE_BYTES_MAX)], ...], Size(0, 2 * FINDINGS_MAX)]
    """Encoded openings: who is not to read what was asked and answered gets none."""

    def encode(self) -> bytes:
        """The bytes of the file."""
        return encode(to_map(self))


def decode_proof_untrusted(encoded: bytes) -> ProofFile:
    """Raises `RemoteProtocolError` unless `encoded` is a `ProofFile`. What is in it has not been looked at."""
    return read_untrusted(ProofFile, encoded, bytes_max=PROOF_BYTES_MAX)

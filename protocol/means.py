"""Means of payment on their way: what a payer hands over so that a debt is settled on some rail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from .codec import encode
from .limits import MEANS_BYTES_MAX
from .prices import Ucr
from .reading import read_untrusted
from .schema import Key, Size, Text, Word, to_map


@dataclass(frozen=True, slots=True)
class Means:
    """What goes from payer to payee."""

    rail: Word
    """`ledger`, `cashu` or `bank`."""
    payer: Key
    """Whose debt it settles: the key that signs vouchers."""
    reference: Text
    """The payer's name for the payment."""
    ucr: Ucr
    """What it settles."""
    body: Annotated[bytes, Size(0, MEANS_BYTES_MAX)]
    """The rail's own: a signed set-off, tokens of a mint, or the end-to-end id of a transfer."""

    def encode(self) -> bytes:
        """The bytes that are passed on."""
        return encode(to_map(self))


def decode_means_untrusted(means: bytes) -> Means:
    """Raises `RemoteProtocolError` unless these are `Means`. Whether they are worth anything is for their rail."""
    return read_untrusted(Means, means, bytes_max=MEANS_BYTES_MAX)

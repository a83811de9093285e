"""A stand-in for HPKE: it seals nothing.

HPKE draws a fresh key from the operating system each time, so that no two runs would be the same, and takes as long as two
signatures. What the protocol asks of sealing is kept: one worker's key, and one order, or it does not open. That nobody else
can read it is not shown here, but in `tests/engine/test_sealing.py`.
"""

from __future__ import annotations

from blake3 import blake3

from ....protocol.errors import Code, RemoteProtocolError


def seal_openly(hpke_key: bytes, order_id: bytes, plaintext: bytes) -> bytes:
    """`plaintext`, for the worker with that key and this order."""
    return blake3(hpke_key + order_id).digest() + plaintext


def open_openly(hpke_key: bytes, order_id: bytes, sealed: bytes) -> bytes:
    """The plaintext. Raises `RemoteProtocolError(input_mismatch)` unless it was sealed to this key and order."""
    if sealed[:32] != blake3(hpke_key + order_id).digest():
        raise RemoteProtocolError(Code.INPUT_MISMATCH, "The input is not sealed to this worker and order.")
    return sealed[32:]

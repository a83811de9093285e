"""Ed25519 signatures, checked so that every reader gives the same answer (RFC 8032, section 5.1.7, and stricter).

Verifiers disagree on edge cases (Chalkias, Garillot, Nikolaenko: "Taming the many EdDSAs", 2020); where two honest peers
disagree on a signature, evidence convinces only one of them. A signature R, S of a message by a key A holds exactly if

- A is the canonical encoding of a point of the subgroup of prime order L, other than the identity;
- R is the canonical encoding of a point that is not of small order, and S < L;
- S*B - k*A, encoded, is R byte for byte, where k = SHA-512(R, A, message): without the cofactor.

The last makes R a point of the subgroup too, since A and the base point B are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign_open
from nacl.exceptions import BadSignatureError

from .errors import Code, RemoteProtocolError

KEYS_REMEMBERED: Final = 4096
"""Keys that are not checked again, at a few hundred bytes each: more than the peers and clients of a node's day. The
check costs nearly as much as a signature's."""


def check_signature_untrusted(signature: bytes, message: bytes, key: bytes, what: str) -> None:
    """The signature holds. Raises `RemoteProtocolError(bad_signature)`, naming `what` was signed, unless it does."""
    holds = len(signature) == 64 and _may_sign(key) and _libsodium_accepts(signature, message, key)
    if not holds or (_WITH_COFACTOR and not crypto_core_ed25519_is_valid_point(signature[:32])):
        raise RemoteProtocolError(Code.BAD_SIGNATURE, f"The signature on the {what} does not hold.")


@lru_cache(maxsize=KEYS_REMEMBERED)
def _may_sign(key: bytes) -> bool:
    """libsodium's verification alone takes keys of mixed order, for some messages."""
    return len(key) == 32 and crypto_core_ed25519_is_valid_point(key)


def _libsodium_accepts(signature: bytes, message: bytes, key: bytes) -> bool:
    try:
        crypto_sign_open(signature + message, key)
    except BadSignatureError:
        return False
    return True


_WITH_COFACTOR: Final = _libsodium_accepts(
    bytes.fromhex(
        "fa53b1cd636757943b0a4e7acb1ce31c565ab0b83ebfee6870aa6fa119d76433"
        "4bf885d20cf8c23f205dff9fbb3fff58a4db30baa0aee253d64fd99fd5d1b109"
    ),
    b"",
    bytes.fromhex("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"),
)
"""Whether this PyNaCl's libsodium takes a signature whose R has a component of order 8: the one that PyNaCl 1.6 brings
does not, newer ones multiply by the cofactor. There, R is checked as well."""

"""Tokens of Cashu as means of payment: read, and known again. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from ...protocol.errors import Code, RemoteProtocolError
from ...protocol.means import Means
from .cashu_crypto import hash_to_curve, lock_of
from .rail import payment_id, read_means

NAME: Final = "cashu"
HEX: Final = re.compile(r"[0-9a-f]{16,66}")
"""A keyset's id, or a point."""
TOKENS_MAX: Final = 256
"""In one payment: twice as many as there are powers of two in any amount, and again."""


def content_of(means: Means) -> tuple[str, list[dict[str, Any]]]:
    """Mint and tokens. Raises `RemoteProtocolError(bad_encoding)` for what is none."""
    try:
        content = json.loads(means.body)
        return content["mint"], [_token(each) for each in content["proofs"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise RemoteProtocolError(Code.BAD_ENCODING, "These are no tokens of Cashu.") from None


def tokens_of(means: bytes) -> list[dict[str, Any]]:
    """Raises `RemoteProtocolError`."""
    return content_of(read_means(means, NAME))[1]


def locked_tokens(means: Means, key: str, mint: str, ucr_per_unit: int) -> list[dict[str, Any]]:
    """The tokens of the means, which are of this mint, locked to this key alone, and come to what the means say. Raises
    `RemoteProtocolError`."""
    theirs, proofs = content_of(means)
    if theirs != mint:
        raise RemoteProtocolError(Code.BAD_RECORD, "The tokens are of another mint than was agreed on.")
    if not 0 < len(proofs) <= TOKENS_MAX or len({each["secret"] for each in proofs}) != len(proofs):
        raise RemoteProtocolError(Code.BAD_RECORD, f"A payment has 1 to {TOKENS_MAX} tokens, each once.")
    if any(lock_of(each["secret"])[0] != key for each in proofs):
        raise RemoteProtocolError(
            Code.BAD_RECORD, "The tokens are not locked to our key alone, as we could spend them."
        )
    if sum(each["amount"] for each in proofs) * ucr_per_unit != means.ucr:
        raise RemoteProtocolError(Code.BAD_RECORD, "The tokens come to another amount than is said.")
    return proofs


def payment_of(means: bytes) -> bytes:
    """The payment that these means are once their payee has taken them. Raises `RemoteProtocolError`."""
    return id_of(tokens_of(means))


def until_s_of(means: bytes) -> int:
    """When (seconds since 1970) the first of the tokens may go back to who paid; 0: never. Raises `RemoteProtocolError`."""
    return min((until_s for each in tokens_of(means) if (until_s := lock_of(each["secret"])[1])), default=0)


def point_of(token: dict[str, Any]) -> str:
    """What the mint knows the token by."""
    return hash_to_curve(token["secret"].encode()).format().hex()


def id_of(tokens: Sequence[dict[str, Any]]) -> bytes:
    """The payment of these tokens. With other amounts it is another one, which the mint refuses."""
    said = sorted(f"{point_of(each)} {each['amount']} {each['id']}" for each in tokens)
    return payment_id(NAME, "\n".join(said).encode())


def _token(given: dict[str, Any]) -> dict[str, Any]:
    """What stands in the means, as a token. Raises `ValueError`, `TypeError` or `KeyError`."""
    amount, keyset, secret, signature = (given[name] for name in ("amount", "id", "secret", "C"))
    if type(amount) is not int or amount <= 0 or not isinstance(secret, str) or not secret.isascii():
        raise ValueError("no token")
    if not HEX.fullmatch(keyset) or not HEX.fullmatch(signature):
        raise ValueError("no token")
    return {"amount": amount, "id": keyset, "secret": secret, "C": signature}

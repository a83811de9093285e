"""Cashu's blind signatures (NUT-00, NUT-12) and spending conditions (NUT-11) on secp256k1, by coincurve. No I/O."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NoReturn

from coincurve import PrivateKey, PublicKey

from ...protocol.errors import Code, RemoteProtocolError

_DOMAIN: Final = b"Secp256k1_HashToCurve_Cashu_"
_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_TAGS: Final = frozenset(("sigflag", "locktime", "refund"))
"""That `locked` gives a secret."""
_SIGNED: Final = ["SIG_INPUTS"]
"""What `witness` gives: a signature on each token by itself."""
TIME_S_MAX: Final = 2**53
"""Every reader of JSON knows whole numbers up to here."""


def hash_to_curve(secret: bytes) -> PublicKey:
    """The point of a secret, of which nobody knows the logarithm."""
    head = sha256(_DOMAIN + secret).digest()
    for counter in range(2**16):
        try:
            return PublicKey(b"\x02" + sha256(head + counter.to_bytes(4, "little")).digest())
        except ValueError:
            continue
    raise AssertionError("half of all hashes are points")


@dataclass(frozen=True, slots=True)
class Blinded:
    """A secret of ours, and what hides it from the mint that signs it."""

    secret: str
    factor: bytes
    """Kept: without it, the mint's signature is worth nothing."""

    @property
    def point(self) -> str:
        """For the mint: Y + r G."""
        hidden = PublicKey.combine_keys([hash_to_curve(self.secret.encode()), PrivateKey(self.factor).public_key])
        return hidden.format().hex()

    def open(self, signature: str, mint_key: str) -> str:
        """The mint's signature on the secret itself: C_ - r K. Raises `RemoteProtocolError(bad_signature)` for no point."""
        try:
            signed, key = PublicKey(bytes.fromhex(signature)), PublicKey(bytes.fromhex(mint_key))
        except ValueError:
            raise RemoteProtocolError(
                Code.BAD_SIGNATURE, "The mint answered with something that is no point."
            ) from None
        negative = (_ORDER - int.from_bytes(self.factor, "big")).to_bytes(32, "big")
        return PublicKey.combine_keys([signed, key.multiply(negative)]).format().hex()


def check_dleq(e: str, s: str, point: str, signature: str, mint_key: str) -> None:
    """Raises `RemoteProtocolError(bad_signature)` unless the mint has signed the point with the key that it gives to everybody
    (NUT-12): a mint that signs each customer's tokens with another key knows them again."""
    try:
        challenge, answer = bytes.fromhex(e), bytes.fromhex(s)
        hidden, signed, key = (PublicKey(bytes.fromhex(each)) for each in (point, signature, mint_key))
        negative = (_ORDER - int.from_bytes(challenge, "big") % _ORDER) % _ORDER
        one = PublicKey.combine_keys([PrivateKey(answer).public_key, key.multiply(negative.to_bytes(32, "big"))])
        other = PublicKey.combine_keys([hidden.multiply(answer), signed.multiply(negative.to_bytes(32, "big"))])
        points = "".join(each.format(compressed=False).hex() for each in (one, other, key, signed))
    except ValueError:
        points = ""
        challenge = b""
    if sha256(points.encode()).digest() != challenge:
        raise RemoteProtocolError(
            Code.BAD_SIGNATURE, "The mint has not signed with the key that it gives to everybody."
        )


def check_token(secret: str, signature: str, proof: Mapping[str, object], mint_key: str) -> None:
    """Raises `RemoteProtocolError(bad_signature)` unless the mint has signed this token, by the proof that its first owner
    passed on with it (NUT-12)."""
    try:
        e, s, factor = (str(proof.get(name)) for name in ("e", "s", "r"))
        again = Blinded(secret, bytes.fromhex(factor))
        hiding = PublicKey(bytes.fromhex(mint_key)).multiply(again.factor)
        hidden = PublicKey.combine_keys([PublicKey(bytes.fromhex(signature)), hiding]).format().hex()
        point = again.point
    except ValueError:
        raise RemoteProtocolError(Code.BAD_SIGNATURE, "The token's proof is none.") from None
    check_dleq(e, s, point, hidden, mint_key)


def blinded(secret: str | None = None) -> Blinded:
    """A fresh one; of a secret of ours alone unless one is given."""
    factor = 1 + secrets.randbelow(_ORDER - 1)
    return Blinded(secret or secrets.token_hex(32), factor.to_bytes(32, "big"))


def locked(public_key: str, until_s: int = 0, refund: str = "") -> str:
    """A secret whose token only the holder of the key can spend; from `until_s` on, the holder of `refund` can as well."""
    tags = [["sigflag", *_SIGNED]]
    if until_s:
        tags += [["locktime", str(until_s)], ["refund", refund]]
    return json.dumps(
        ["P2PK", {"nonce": secrets.token_hex(32), "data": public_key, "tags": tags}], separators=(",", ":")
    )


def lock_of(secret: str) -> tuple[str, int]:
    """(key, time in seconds from when on somebody else may spend it; 0: never). ("", 0): anybody may, or a condition is set
    that we do not know, or could not fulfil: by `pubkeys` and `n_sigs`, others can spend it at once, and by SIG_ALL the holder
    has to sign the whole swap (NUT-11). Nor what another mint could read otherwise, or take for no condition at all, which
    leaves the token to whoever knows the secret."""
    try:
        kind, condition = json.loads(secret, object_pairs_hook=_each_once, parse_constant=_no_number)
        listed, data = condition.get("tags", []), condition["data"]
        tags = {name: values for name, *values in listed}
        texts = [secret, condition["nonce"], data, *(text for tag in listed for text in tag)]
        if kind != "P2PK" or not all(isinstance(text, str) and text.isascii() for text in texts):
            return "", 0
        if len(tags) != len(listed) or not _TAGS.issuperset(tags) or tags.get("sigflag", _SIGNED) != _SIGNED:
            return "", 0
        if "locktime" not in tags:
            return data, 0
        (time_s,) = tags["locktime"]
        return (data, int(time_s)) if time_s.isdecimal() and 0 < int(time_s) <= TIME_S_MAX else ("", 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "", 0


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values by one name, every reader takes another."""
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def witness(secret: str, key: PrivateKey) -> str:
    """What spends a token that is locked to the key."""
    return json.dumps({"signatures": [key.sign_schnorr(sha256(secret.encode()).digest()).hex()]})


def amounts_of(total: int) -> list[int]:
    """Powers of two, the smallest first: mints sign nothing else."""
    return [1 << bit for bit in range(total.bit_length()) if total >> bit & 1]

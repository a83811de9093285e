"""Signatures on which Ed25519 verifiers are known to disagree, made with arithmetic of their own. See `CASES`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

Point = tuple[int, int, int, int]
"""Extended coordinates X, Y, Z, T (Hisil et al., 2008) on the twisted Edwards curve -x^2 + y^2 = 1 + D x^2 y^2."""


@dataclass(frozen=True)
class Case:
    """Whether `signature` holds for `message` under `key`. `why` completes "A signature ...": it is the case's name."""

    why: str
    key: bytes
    message: bytes
    signature: bytes
    holds: bool = False


def add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(scalar: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def encoded(point: Point) -> bytes:
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def with_y(y: int) -> Point | None:
    """The point with this y and an even x, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    x = min(x, P - x, key=lambda root: root & 1)
    return x, y, 1, x * y % P


def _eighth() -> Point:
    """A point of order 8: what is left of a point of full order after multiplying by L."""
    for y in count(2):
        if (point := with_y(y)) and encoded(times(4, left := times(L, point))) != encoded(IDENTITY):
            return left
    raise AssertionError


IDENTITY: Point = (0, 1, 1, 0)
BASE = with_y(4 * pow(5, -1, P) % P) or IDENTITY
EIGHTH = _eighth()
SMALL = tuple(times(index, EIGHTH) for index in range(8))

A_SECRET = int.from_bytes(hashlib.sha512(b"the signer").digest(), "little") % L
R_SECRET = int.from_bytes(hashlib.sha512(b"the nonce").digest(), "little") % L
A, R = times(A_SECRET, BASE), times(R_SECRET, BASE)
KEY = encoded(A)


def lenient(case: Case) -> bool:
    """Whether the most lenient of verifiers takes it: any encoding, any order, any S, and with the cofactor."""
    a, r = _decoded(case.key), _decoded(case.signature[:32])
    if len(case.signature) != 64 or a is None or r is None:
        return False
    k = challenge(case.signature[:32], case.key, case.message)
    s = int.from_bytes(case.signature[32:], "little")
    return encoded(times(8, times(s, BASE))) == encoded(times(8, add(r, times(k, a))))


def _decoded(point: bytes) -> Point | None:
    number = int.from_bytes(point, "little")
    if len(point) != 32 or (even := with_y(number % 2**255 % P)) is None:
        return None
    x, y, z, t = even
    return (-x % P, y, z, -t % P) if number >> 255 else even


def challenge(r: bytes, a: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + a + message).digest(), "little")


def scalar(number: int) -> bytes:
    return number.to_bytes(32, "little")


def signature(
    message: bytes, *, r: bytes = encoded(R), a: bytes = KEY, r_secret: int = R_SECRET, a_secret: int = A_SECRET
) -> bytes:
    """R and S = r + k*a, whatever encodings of R and A are hashed."""
    return r + scalar((r_secret + challenge(r, a, message) * a_secret) % L)


def message_where(r: bytes, a: bytes, remainder: int) -> bytes:
    """A message whose challenge leaves `remainder` modulo 8, reduced modulo L or not: torsion vanishes either way."""
    for number in count():
        k = challenge(r, a, message := b"message %d" % number)
        if k % 8 == k % L % 8 == remainder:
            return message
    raise AssertionError


def _honest() -> Iterator[Case]:
    yield Case("by the signer", KEY, b"message", signature(b"message"), holds=True)
    yield Case("of no message at all", KEY, b"", signature(b""), holds=True)
    yield Case(
        "of the first test in RFC 8032",
        bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
        b"",
        bytes.fromhex(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
        holds=True,
    )
    yield Case("of another message", KEY, b"other message", signature(b"message"))
    yield Case("by another key", encoded(BASE), b"message", signature(b"message"))
    yield Case("of 63 bytes", KEY, b"message", signature(b"message")[:-1])
    yield Case("of 65 bytes", KEY, b"message", signature(b"message") + b"\0")
    yield Case("of no bytes", KEY, b"message", b"")
    yield Case("under a key of 31 bytes", KEY[:-1], b"message", signature(b"message"))
    yield Case("under a key of 33 bytes", KEY + b"\0", b"message", signature(b"message"))


def _scalars() -> Iterator[Case]:
    good = signature(b"message")
    s = int.from_bytes(good[32:], "little")
    yield Case("with S + L", KEY, b"message", good[:32] + scalar(s + L))
    yield Case("with S + 8 L", KEY, b"message", good[:32] + scalar(s + 8 * L))
    yield Case(
        "with the largest S that is the same modulo L",
        KEY,
        b"message",
        good[:32] + scalar(s + (2**256 - 1 - s) // L * L),
    )
    yield Case("with S = L", KEY, b"message", good[:32] + scalar(L))
    yield Case("with L - S, which is for -A and -R", KEY, b"message", good[:32] + scalar(L - s))


def _keys() -> Iterator[Case]:
    for index, point in enumerate(SMALL):
        a = encoded(point)
        message = message_where(encoded(R), a, 0)
        yield Case(f"under a key of small order ({index} of 8)", a, message, encoded(R) + scalar(R_SECRET))
    yield Case("under the all-zero key, all zero itself", bytes(32), b"message", bytes(64))
    for name, a in _odd_encodings():
        message = message_where(encoded(R), a, 0)
        yield Case(f"under a key that is {name}", a, message, encoded(R) + scalar(R_SECRET))
    for index in (1, 2, 4):
        a = encoded(add(A, SMALL[index]))
        whole, partial = message_where(encoded(R), a, 0), message_where(encoded(R), a, 1)
        yield Case(
            f"under a key of mixed order ({index} of 8) that holds with and without cofactor",
            a,
            whole,
            signature(whole, a=a),
        )
        yield Case(
            f"under a key of mixed order ({index} of 8) that holds with cofactor only",
            a,
            partial,
            signature(partial, a=a),
        )
        r = encoded(add(R, SMALL[-index % 8]))
        both = message_where(r, a, 1)
        yield Case(f"under a key of mixed order ({index} of 8), made up for by R", a, both, signature(both, r=r, a=a))
    yield Case("under a key that is no point", _no_point(), b"message", signature(b"message", a=_no_point()))


def _nonces() -> Iterator[Case]:
    for index, point in enumerate(SMALL):
        r = encoded(point)
        yield Case(f"with R of small order ({index} of 8)", KEY, b"message", signature(b"message", r=r, r_secret=0))
    for name, r in _odd_encodings():
        yield Case(f"with an R that is {name}", KEY, b"message", signature(b"message", r=r, r_secret=0))
    for index in range(1, 8):
        r = encoded(add(R, SMALL[index]))
        yield Case(
            f"with R of mixed order ({index} of 8), which holds with cofactor only",
            KEY,
            b"message",
            signature(b"message", r=r),
        )
    yield Case("with an R that is no point", KEY, b"message", signature(b"message", r=_no_point()))
    yield Case(
        "with the sign of R turned",
        KEY,
        b"message",
        signature(b"message", r=bytes([*encoded(R)[:31], encoded(R)[31] ^ 0x80])),
    )


def _odd_encodings() -> Iterator[tuple[str, bytes]]:
    """Encodings that only a lenient reader takes, for the points whose logarithm is known: those of small order."""
    sign = 1 << 255
    for name, number in (
        ("the identity, written with y = P + 1", P + 1),
        ("the identity, written as with an odd x", 1 | sign),
        ("the identity, written with y = P + 1 and an odd x", P + 1 | sign),
        ("of order 2, written as with an odd x", P - 1 | sign),
        ("of order 4, written with y = P", P),
        ("of order 4, written with y = P and an odd x", P | sign),
    ):
        yield name, number.to_bytes(32, "little")


def _no_point() -> bytes:
    return next(y for y in count(2) if with_y(y) is None).to_bytes(32, "little")


CASES = (*_honest(), *_scalars(), *_keys(), *_nonces())
"""Each `why` is different; those that do not hold are refused with `bad_signature`."""

"""Mandates: from node to issuer to owner, and what voids them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nacl.signing import SigningKey

from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, LocalProtocolError, RemoteProtocolError
from fallow.protocol.identity import Issuer, Mandate, check_epoch, check_issued, check_mandate
from fallow.protocol.limits import ISSUER_MS_MAX, MANDATE_MS_MAX, SKEW_MS

NODE, OWNER, ISSUER, OTHER = (SigningKey(bytes([n]) * 32) for n in range(1, 5))
NOW_MS = 1_790_000_000_000


def key(signing: SigningKey) -> bytes:
    return bytes(signing.verify_key)


def issuer(signer: SigningKey = OWNER, **changes: object) -> Signed[Issuer]:
    record = Issuer(key(OWNER), key(ISSUER), 1, NOW_MS - 10**6, NOW_MS + 10**9)
    return sign(replace(record, **changes), signer)  # type: ignore[arg-type]


def mandate(signer: SigningKey = OWNER, **changes: object) -> Signed[Mandate]:
    record = Mandate(key(NODE), key(OWNER), ("executor",), 1, NOW_MS, NOW_MS + 1000, None)
    return sign(replace(record, **changes), signer)  # type: ignore[arg-type]


def check(signed: Signed[Mandate], role: str = "executor", now_ms: int = NOW_MS) -> None:
    check_mandate(signed, key(NODE), role, now_ms)


def test_an_owners_mandate_holds() -> None:
    check(mandate())
    check(mandate(), now_ms=NOW_MS - SKEW_MS)
    check(mandate(), now_ms=NOW_MS + 1000 + SKEW_MS)
    assert check_issued(mandate(), NOW_MS) is None


def test_an_issuers_mandate_holds_while_the_owner_lets_it() -> None:
    signed = mandate(ISSUER, issuer=issuer().envelope)
    check(signed)
    assert check_issued(signed, NOW_MS) == issuer().record


@pytest.mark.parametrize(
    ("signed", "code"),
    [
        (mandate(OTHER), Code.BAD_MANDATE),
        (mandate(node=key(OTHER)), Code.BAD_MANDATE),
        (mandate(roles=("checker",)), Code.BAD_MANDATE),
        (mandate(not_before_ms=NOW_MS + SKEW_MS + 1, expires_ms=NOW_MS + 2 * SKEW_MS), Code.EXPIRED),
        (mandate(not_before_ms=NOW_MS - 2 * SKEW_MS, expires_ms=NOW_MS - SKEW_MS - 1), Code.EXPIRED),
        (mandate(ISSUER), Code.BAD_MANDATE),
        (mandate(OTHER, issuer=issuer().envelope), Code.BAD_MANDATE),
        (mandate(OWNER, issuer=issuer().envelope), Code.BAD_MANDATE),
        (mandate(ISSUER, issuer=issuer(OTHER).envelope), Code.BAD_SIGNATURE),
        (mandate(ISSUER, issuer=issuer(ISSUER).envelope), Code.BAD_SIGNATURE),
        (mandate(ISSUER, issuer=issuer(owner=key(OTHER)).envelope), Code.BAD_MANDATE),
        (mandate(ISSUER, issuer=issuer(expires_ms=NOW_MS - SKEW_MS - 1).envelope), Code.EXPIRED),
        (mandate(ISSUER, issuer=mandate().envelope), Code.BAD_SIGNATURE),
        (mandate(ISSUER, issuer=b"\xd2"), Code.BAD_ENCODING),
    ],
)
def test_other_mandates_do_not(signed: Signed[Mandate], code: Code) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check(signed)
    assert caught.value.code is code


def test_a_higher_epoch_voids_lower_ones() -> None:
    for record in (mandate(epoch=3).record, issuer(epoch=3).record):
        check_epoch(record, 2)
        check_epoch(record, 3)
        with pytest.raises(RemoteProtocolError) as caught:
            check_epoch(record, 4)
        assert caught.value.code is Code.BAD_MANDATE


def test_nobody_signs_for_longer_than_the_limits() -> None:
    mandate(expires_ms=NOW_MS + MANDATE_MS_MAX)
    issuer(not_before_ms=0, expires_ms=ISSUER_MS_MAX)
    for make in (
        lambda: mandate(expires_ms=NOW_MS + MANDATE_MS_MAX + 1),
        lambda: mandate(expires_ms=NOW_MS),
        lambda: issuer(not_before_ms=0, expires_ms=ISSUER_MS_MAX + 1),
    ):
        with pytest.raises((ValueError, LocalProtocolError)):
            make()

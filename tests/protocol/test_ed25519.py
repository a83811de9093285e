"""What verifiers disagree on is refused, whatever the libsodium underneath takes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from fallow.protocol import ed25519
from fallow.protocol.ed25519 import check_signature_untrusted
from fallow.protocol.errors import Code, RemoteProtocolError

_spec = importlib.util.spec_from_file_location("fallow_test_ed25519", Path(__file__).with_name("ed25519_cases.py"))
assert _spec and _spec.loader
cases = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


@pytest.mark.spec("I-10")
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.why)
def test_a_signature_holds_or_is_refused(case: Any) -> None:
    if case.holds:
        check_signature_untrusted(case.signature, case.message, case.key, "case")
        return
    with pytest.raises(RemoteProtocolError) as caught:
        check_signature_untrusted(case.signature, case.message, case.key, "case")
    assert caught.value.code is Code.BAD_SIGNATURE


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.why for case in cases.CASES}) == len(cases.CASES)


def test_the_cases_arithmetic_is_that_of_ed25519() -> None:
    key = SigningKey(b"\x05" * 32)
    secret = int.from_bytes(cases.hashlib.sha512(bytes(key)).digest()[:32], "little") & (2**254 - 8) | 2**254
    assert cases.encoded(cases.times(secret, cases.BASE)) == bytes(key.verify_key)
    assert cases.encoded(cases.times(cases.L, cases.BASE)) == cases.encoded(cases.IDENTITY)
    assert len({cases.encoded(point) for point in cases.SMALL}) == 8
    assert cases.encoded(cases.times(8, cases.EIGHTH)) == cases.encoded(cases.IDENTITY)


def test_what_is_refused_would_tempt_a_lenient_verifier() -> None:
    """Otherwise a case shows nothing: any verifier refuses a signature that no equation holds for."""
    plain = {
        "of another",
        "by another",
        "of 63",
        "of 65",
        "of no bytes",
        "under a key of 3",
        "with S = L",
        "with L - S",
    }
    for case in cases.CASES:
        untempting = "no point" in case.why or "sign of R" in case.why or case.why.startswith(tuple(plain))
        assert cases.lenient(case) != untempting or case.holds, case.why


def test_libsodium_alone_would_take_keys_of_mixed_order() -> None:
    """The reason for checking keys: if this fails, libsodium has become stricter, and the check may go."""
    taken = [case for case in cases.CASES if not case.holds and _libsodium_takes(case)]
    assert any("key of mixed order" in case.why for case in taken)
    assert all("mixed order" in case.why for case in taken)


def test_a_libsodium_with_cofactor_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where R is checked by itself too, the honest signatures still hold, and what is refused stays refused."""
    monkeypatch.setattr(ed25519, "_WITH_COFACTOR", True)
    for case in cases.CASES:
        test_a_signature_holds_or_is_refused(case)


def test_the_memory_of_keys_is_bounded() -> None:
    assert ed25519._may_sign.cache_info().maxsize == ed25519.KEYS_REMEMBERED


def _libsodium_takes(case: Any) -> bool:
    try:
        VerifyKey(case.key).verify(case.message, case.signature)
    except (BadSignatureError, ValueError):
        return False
    return True

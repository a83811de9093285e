"""Policies, their commitment, and what chance decides after it is made."""

from __future__ import annotations

from contextlib import suppress

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from fallow.protocol.errors import Code, Refused
from fallow.protocol.limits import CANDIDATES_MAX
from fallow.protocol.policy import Policy, check_commitment, draw

HASHES = st.binary(min_size=32, max_size=32)
TEXTS = ["none", "quorum:2/3", "quorum:2/2", "quorum:9/16", "audit:1", "audit:1000000", "committee:2/3"]
ANCHORED = [f"{text}+anchor" for text in TEXTS[1:]]


@pytest.mark.parametrize("text", TEXTS + ANCHORED)
def test_policies_are_written_as_they_are_read(text: str) -> None:
    policy = Policy.parse(text)
    assert str(policy) == text
    assert policy.checked is (text != "none")
    assert policy.anchored is text.endswith("+anchor")


@pytest.mark.parametrize(
    "text",
    [
        "", "maybe", "None", "none ", " none", "none+anchor", "quorum:1/3", "quorum:4/3", "quorum:2", "quorum:a/b",
        "quorum:02/3", "quorum:2/3+anchor+anchor", "quorum:2/3 ", "quorum:9/17", "quorum:1/1", "quorum:٢/٣",
        f"quorum:{9**999}/1", "audit:0", "audit:1000001", "audit:5%", "audit:", "committee:1/2", "committee:0/0",
        "audit:0005", "quorum:-2/3",
    ],
)  # fmt: skip
def test_a_policy_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        Policy.parse(text)
    assert caught.value.code is Code.UNSATISFIABLE_ASSURANCE


@given(st.text(max_size=20))
def test_every_text_is_a_policy_written_in_its_one_way_or_refused(text: str) -> None:
    with suppress(Refused):
        assert str(Policy.parse(text)) == text


@given(HASHES, HASHES)
def test_a_quorum_checks_everything_and_none_nothing(nonce: bytes, receipt: bytes) -> None:
    assert Policy.parse("quorum:2/3").draws(nonce, receipt)
    assert Policy.parse("audit:1000000").draws(nonce, receipt)
    assert not Policy.parse("none").draws(nonce, receipt)


@given(HASHES, HASHES, st.integers(1, 999_999))
def test_a_drawn_window_is_drawn_at_every_higher_rate(nonce: bytes, receipt: bytes, ppm: int) -> None:
    number = int.from_bytes(blake3(b"fallow/1/audit" + nonce + receipt).digest()[:8], "big")
    assert Policy.parse(f"audit:{ppm}").draws(nonce, receipt) is (number * 10**6 < ppm * 2**64)


def test_an_audit_draws_about_as_many_windows_as_it_says() -> None:
    policy, nonce = Policy.parse("audit:100000"), b"\x01" * 32
    drawn = sum(policy.draws(nonce, number.to_bytes(32, "big")) for number in range(10_000))
    assert 880 < drawn < 1120  # four standard deviations


def test_the_commitment_hides_the_policy_and_binds_to_it() -> None:
    nonce = b"\x02" * 32
    seen = {check_commitment(n, text) for n in (nonce, b"\x03" * 32) for text in TEXTS}
    assert len(seen) == 2 * len(TEXTS)
    assert check_commitment(nonce, "none") == blake3(b"fallow/1/policy" + nonce + b"none").digest()


@given(nonce=HASHES, receipt=HASHES, candidates=st.lists(HASHES, unique=True, max_size=CANDIDATES_MAX), data=st.data())
def test_a_committee_is_drawn_from_candidates_who_are_no_party(
    nonce: bytes, receipt: bytes, candidates: list[bytes], data: st.DataObject
) -> None:
    parties = data.draw(st.sets(st.sampled_from(candidates))) if candidates else set()
    eligible = set(candidates) - parties
    count = data.draw(st.integers(0, len(eligible)))
    drawn = draw(nonce, receipt, candidates, parties, count)
    assert len(drawn) == len(set(drawn)) == count
    assert set(drawn) <= eligible
    shuffled = data.draw(st.permutations(candidates))
    assert draw(nonce, receipt, shuffled, parties, count) == drawn
    assert draw(nonce, receipt, candidates, parties, len(eligible))[:count] == drawn
    with pytest.raises(Refused):
        draw(nonce, receipt, candidates, parties, len(eligible) + 1)

"""The newest version that both sides speak, and no other name, is agreed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.streams import PROTOCOLS
from fallow.protocol.versions import negotiate_untrusted, protocol_id

VERSIONS = st.sets(st.integers(1, 9999), max_size=6)


@pytest.mark.spec("J-1")
@given(ours=VERSIONS, theirs=VERSIONS, noise=st.lists(st.text(max_size=20), max_size=4))
def test_the_newest_common_version_is_agreed_on_by_both_sides(
    ours: set[int], theirs: set[int], noise: list[str]
) -> None:
    mine = [protocol_id("job", version) for version in ours]
    other = [*noise, *(protocol_id("job", version) for version in theirs)]
    if not ours & theirs:
        with pytest.raises(RemoteProtocolError) as caught:
            negotiate_untrusted("job", mine, other)
        assert caught.value.code is Code.PROTOCOL_UNSUPPORTED
        return
    assert negotiate_untrusted("job", mine, other) == protocol_id("job", max(ours & theirs))
    assert negotiate_untrusted("job", other, mine) == protocol_id("job", max(ours & theirs))


@pytest.mark.spec("J-1")
def test_versions_are_numbers_not_text() -> None:
    both = ["/fallow/job/9", "/fallow/job/10"]
    assert negotiate_untrusted("job", both, both) == "/fallow/job/10"


@pytest.mark.spec("J-1")
@pytest.mark.parametrize(
    "name",
    [
        "/fallow/job/01", "/fallow/job/0", "/fallow/job/", "/fallow/job/1/", "/fallow/job/1 ", "fallow/job/1",
        "/fallow/job/-1", "/fallow/job/\u0661", "/fallow/JOB/1", "/fallow/blob/1", "/fallow/job/10000", "/other/job/1",
        "/fallow/job/1\n",
    ],
)  # fmt: skip
def test_a_name_in_any_other_form_is_no_offer(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        negotiate_untrusted("job", [*PROTOCOLS, name], [name])


@pytest.mark.spec("J-1")
def test_the_services_are_named_by_the_rule() -> None:
    assert [negotiate_untrusted(name.split("/")[2], PROTOCOLS, PROTOCOLS) for name in PROTOCOLS] == list(PROTOCOLS)

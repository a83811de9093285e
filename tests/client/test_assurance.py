"""What a caller may ask for, and what is refused in words."""

from __future__ import annotations

import pytest

from fallow.client.assurance import read_assurance
from fallow.protocol.errors import Code, Refused


@pytest.mark.parametrize(
    ("text", "policy", "hedge"),
    [
        ("adaptive", "adaptive:20000", 1),
        ("adaptive:50000", "adaptive:50000", 1),
        ("adaptive+anchor", "adaptive:20000+anchor", 1),
        ("adaptive+hedge:2", "adaptive:20000", 2),
        ("adaptive+anchor+hedge:4", "adaptive:20000+anchor", 4),
        ("quorum:2/3+hedge:3", "quorum:2/3", 3),
        ("audit:50000", "audit:50000", 1),
        ("committee:2/3", "committee:2/3", 1),
        ("audit:50000+hedge:2", "audit:50000", 2),
        ("committee:2/3+hedge:4", "committee:2/3", 4),
        ("none+hedge:2", "none", 2),
        ("none", "none", 1),
    ],
)
def test_what_is_understood(text: str, policy: str, hedge: int) -> None:
    asked = read_assurance(text)
    assert (str(asked.policy), asked.hedge) == (policy, hedge)
    assert read_assurance(str(asked)) == asked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "most",
        "hedge:2",
        "adaptive+hedge:1",
        "adaptive+hedge:5",
        "adaptive:0",
        "none+anchor",
        "adaptive+hedge:2+anchor",
    ],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(Refused) as caught:
        read_assurance(text)
    assert caught.value.code is Code.UNSATISFIABLE_ASSURANCE

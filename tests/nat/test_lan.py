"""Hosts on one wire, with real multicast: they find each other without an address to join by, and say nothing elsewhere."""

from __future__ import annotations

import pytest

from fallow.testnet.natlab import Lab
from tests.nat.conftest import WIRE_6, Start

KEY = "serve/something/-/0"


@pytest.mark.spec("D-28", "D-29")
def test_neighbours_find_each_other_and_a_client_finds_them(built: Lab, start: Start) -> None:
    here, there, guest = built.lan(3)
    first = start(here, 1, lan=True)
    second = start(there, 2, lan=True)
    assert first.call("met", second.key) and second.call("met", first.key)
    assert second.call("provide", KEY)
    client = start(guest, 3, ["lan"], mode="client")
    assert client.call("find", KEY) == [second.key]
    assert client.call("echo", second.key) == "hello"
    assert client.call("own") == []


@pytest.mark.spec("D-28", "D-29")
def test_neighbours_that_have_ipv6_alone_find_each_other_too(built: Lab, start: Start) -> None:
    here, there = built.lan(2, ipv6=True)
    first = start(here, 1, lan=True, wire=WIRE_6)
    second = start(there, 2, lan=True, wire=WIRE_6)
    assert first.call("met", second.key) and second.call("met", first.key)
    told = [*first.call("told of", second.key), *second.call("told of", first.key)]  # by whoever has dialled
    assert told and all(each.startswith((f"/ip6/{here.ip}/", f"/ip6/{there.ip}/")) for each in told)
    assert first.call("echo", second.key) == "hello"


def test_who_does_not_want_to_be_found_is_not(built: Lab, start: Start) -> None:
    here, guest = built.lan(2)
    start(here, 1)  # it announces nothing
    with pytest.raises(AssertionError, match="ended"):
        start(guest, 3, ["lan"], mode="client")

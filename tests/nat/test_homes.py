"""Two homes behind routers, with real packets: reached through relays, directly where their routers let it be."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fallow.testnet.natlab import Lab, Nat, Place


@dataclass(frozen=True)
class Town:
    """Two relays that everybody can dial, and the addresses to join by."""

    lab: Lab
    first: Place
    second: Place
    bootstrap: list[str]


@pytest.fixture(scope="module")
def town(built, start_for_all) -> Town:
    first, second = built.public(), built.public()
    addresses = start_for_all(first, 1, relay=True).addresses
    start_for_all(second, 2, addresses, relay=True)
    return Town(built, first, second, addresses)


@pytest.mark.parametrize(("nat", "direct"), [(Nat.PRESERVING, True), (Nat.RANDOM, False)])
def test_two_homes_meet_over_a_relay_and_directly_if_their_routers_let_them(town, start, nat, direct) -> None:
    here, there = town.lab.home(nat), town.lab.home(nat)
    home = start(there, 3, town.bootstrap, way="relayed")
    addresses = home.call("addresses", "2")
    assert {town.first.ip, town.second.ip} == {address.split("/")[2] for address in addresses}
    assert all("/p2p-circuit/p2p/" in address for address in addresses)

    guest = start(here, 4, town.bootstrap, mode="client")
    assert guest.call("echo", home.key, *addresses) == "hello"
    assert guest.call("kinds", home.key) == ["relayed"]
    assert guest.call("told of", home.key) and not any(there.ip in each for each in guest.call("told of", home.key))

    home.call("go direct", guest.key)
    kinds = guest.call("direct", home.key, "20" if direct else "4")
    assert ("direct" in kinds) == direct
    assert guest.call("echo", home.key) == "hello"


def test_a_stranger_does_not_learn_where_a_home_is(town, start) -> None:
    there = town.lab.home(Nat.PRESERVING)
    home = start(there, 3, town.bootstrap, way="relayed")
    addresses = home.call("addresses", "2")
    stranger = start(town.lab.public(), 5, town.bootstrap)
    assert stranger.call("echo", home.key, *addresses) == "hello"
    stranger.call("go direct", home.key)  # it asks; a home answers none but those whom it dialled itself
    assert stranger.call("direct", home.key, "1") == ["relayed"]
    assert not any(there.ip in each for each in stranger.call("told of", home.key))


def test_who_cannot_be_dialled_finds_that_out_and_takes_relays(town, start) -> None:
    behind = start(town.lab.home(Nat.PRESERVING), 3, town.bootstrap, way="auto")
    assert behind.call("reachability") == [True, False]
    assert len(behind.call("addresses", "2")) == 2
    outside = start(town.lab.public(), 4, town.bootstrap, way="auto")
    assert outside.call("reachability") == [False, True]

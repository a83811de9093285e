"""Links that lose everything, or carry little: real packets, dropped by the kernel."""

from __future__ import annotations

from fallow.testnet.natlab import Lab
from tests.nat.conftest import Start

NARROW_BYTES_S = 250_000
KBIT_S = 8 * NARROW_BYTES_S // 1000


def test_a_peer_whose_packets_are_lost_stalls_nobody_and_comes_back(built: Lab, start: Start) -> None:
    """No reset comes, and no end: the kernel goes on sending again for minutes."""
    lost, live = built.public(), built.public()
    gone = start(lost, 1)
    here = start(live, 2, gone.addresses)
    client = start(built.public(), 3, [*gone.addresses, *here.addresses], mode="client")
    assert client.call("echo", gone.key) == client.call("echo", here.key) == "hello"
    client.begin("outlives", gone.key, here.key)
    assert client.answer() == "lose it"
    built.lose(lost)
    seen = client.answer()
    assert sorted(seen["ends"][:2]) == ["job", "question"]
    assert seen["ends"][2] == "bulk"  # its connection has the time of a bad moment
    assert seen["exchanges"] > 10  # in nine seconds
    built.clear(lost)
    assert client.call("echo", gone.key, *gone.addresses) == "hello"


def test_rates_are_those_of_the_narrowest_link_each_way(built: Lab, start: Start) -> None:
    home, site = built.public(), built.public()
    other = start(site, 1)
    node = start(home, 2, other.addresses)
    built.narrow(home, NARROW_BYTES_S)
    node.call("rates", other.key)  # what is let through at once has gone by now
    measured, up, down = node.call("rates", other.key)
    assert measured
    assert KBIT_S / 10 < up < 1.5 * KBIT_S
    assert down > 2 * up

"""Links that lose everything: real packets, dropped by the kernel."""

from __future__ import annotations

from fallow.testnet.natlab import Lab
from tests.nat.conftest import Start


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

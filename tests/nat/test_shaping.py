"""Faults of links, with real packets: made at a node's way to the wire, felt by those whom they are to befall, and undone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fallow.testnet import natlab, shaping
from fallow.testnet.natlab import Lab, Nat, Place
from fallow.testnet.record import Ground, LocalNode, Network

ECHO = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
    served.bind(("0.0.0.0", 4001))
    print("ready", flush=True)
    while True:
        served.sendto(*served.recvfrom(2048))
"""
ASK = """
import socket, sys
asked = int(sys.argv[2])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.connect((sys.argv[1], 4001))
    asking.settimeout(0.3)
    heard = set()
    for number in range(asked):
        try:
            asking.send(number.to_bytes(2, "big"))
        except OSError:
            pass
        if asked < 10 or number % 50 == 49:
            try:
                while len(heard) <= number:
                    heard.add(asking.recv(2048))
            except TimeoutError:
                pass
    print(len(heard))
"""


@dataclass(frozen=True)
class World:
    """Three hosts in public, who echo, and a home."""

    network: Network
    publics: list[LocalNode]
    home: LocalNode
    client: Place


@pytest.fixture(scope="module")
def world(built: Lab) -> Iterator[World]:
    def node(name: str, place: Place) -> LocalNode:
        return LocalNode(name, name, "host", 1, 1, "", (), False, name, place=place)

    publics = [node(f"{number}-host", built.public()) for number in range(3)]
    home, client = node("3-robot", built.home(Nat.PRESERVING)), built.public()
    echoes = []
    for each in publics:
        assert each.place
        command = each.place.command([sys.executable, "-c", ECHO])
        echoes.append(subprocess.Popen(command, stdout=subprocess.PIPE))
    try:
        for echo in echoes:
            assert echo.stdout and echo.stdout.readline() == b"ready\n"
        yield World(
            Network([*publics, home], Ground(None, built.namespaces, built.wire, client)), publics, home, client
        )
    finally:
        for echo in echoes:
            echo.kill()
            echo.communicate()


def heard(place: Place | None, node: LocalNode, asked: int = 2) -> int:
    """Of so many datagrams, those that came back."""
    assert place and node.place
    command = place.command([sys.executable, "-c", ASK, node.place.outside, str(asked)])
    return int(subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout)


def test_what_goes_into_a_black_hole_does_not_come_back(world: World) -> None:
    one, other = world.publics[:2]
    assert heard(world.client, one) == heard(world.home.place, one) == 2
    shaping.begin("blackhole", 0, world.network, [one])
    assert heard(world.client, one) == heard(world.home.place, one) == heard(one.place, other) == 0
    assert heard(world.client, other) == 2
    shaping.end("blackhole", world.network, [one])
    assert heard(world.client, one) == 2


def test_a_home_in_a_black_hole_reaches_nobody(world: World) -> None:
    shaping.begin("blackhole", 0, world.network, [world.home])
    assert heard(world.home.place, world.publics[0]) == 0
    shaping.end("blackhole", world.network, [world.home])
    assert heard(world.home.place, world.publics[0]) == 2


def test_a_part_reaches_itself_and_nobody_else(world: World) -> None:
    one, other, beyond = world.publics
    shaping.begin("partition", 0, world.network, [one, world.home])
    assert heard(world.home.place, one) == 2
    assert heard(world.client, one) == heard(one.place, beyond) == heard(world.home.place, other) == 0
    assert heard(world.client, beyond) == heard(other.place, beyond) == 2
    shaping.end("partition", world.network, [one, world.home])
    assert heard(world.client, one) == heard(world.home.place, other) == 2


def test_a_lossy_link_loses_some(world: World) -> None:
    one = world.publics[0]
    shaping.begin("lossy", 300, world.network, [one])
    # Each goes two ways: 51 % are lost. As few or as many as these are, of 400, in one run of 10^20.
    assert 100 < heard(world.client, one, 400) < 300
    shaping.end("lossy", world.network, [one])
    assert heard(world.client, one, 400) == 400


def test_a_slow_link_s_queue_is_at_both_of_its_ends_and_gone_afterwards(world: World) -> None:
    one = world.publics[0]
    assert one.place
    shaping.begin("slow", 64, world.network, [one])
    shaping.begin("slow", 256, world.network, [one])  # another rate takes the first one's place
    for namespace, device in ((one.place.gate, "outside"), (world.network.ground.wire, one.place.port)):
        assert "tbf" in queues(namespace, device) and "256Kbit" in queues(namespace, device)
    assert heard(world.client, one) == 2
    for _ in range(2):  # again is no error
        shaping.end("slow", world.network, [one])
    assert "tbf" not in queues(one.place.gate, "outside") + queues(world.network.ground.wire, one.place.port)


def queues(namespace: str, device: str) -> str:
    command = ["tc", "-n", namespace, "qdisc", "show", "dev", device]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


def test_what_never_began_ends_without_an_error(world: World) -> None:
    for fault in ("blackhole", "lossy", "partition", "slow"):
        shaping.end(fault, world.network, [world.publics[2], world.home])


def test_no_namespace_is_left_of_what_is_razed(tmp_path: Path) -> None:
    if natlab.missing():
        pytest.skip("no namespaces")
    built = natlab.new()
    built.raise_switch()
    built.home(Nat.RANDOM)
    names = built.namespaces
    natlab.raze(names)
    natlab.raze(names)  # again, as after a starter that was killed while it did
    assert not {path.name for path in Path("/run/netns").glob("*")} & set(names)

"""Jobs between homes, by the real node and the real client, with a town's relays in between."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fallow.node import control
from fallow.protocol.identity import peer_key_untrusted
from fallow.testnet.natlab import Lab, Nat, Place


class Daemon:
    """A robot in a home: a node as it comes, but for its one bundle."""

    def __init__(self, place: Place, folder: Path, home: Path, bootstrap: list[str], *, slow: bool) -> None:
        folder.mkdir()
        self.state = folder / "state"
        table: dict[str, object] = {
            "state": str(self.state), "home": str(home), "kind": "robot", "settle_s": 0, "bundles": ["tiny-chat"],
            "listen": ["/ip4/0.0.0.0/tcp/0"], "bootstrap": bootstrap, "spare_worker": False,
        }  # fmt: skip
        if slow:
            worker = str(Path(__file__).with_name("slow_worker.py"))
            table |= {"worker_command": [sys.executable, "-P", worker], "sandbox": "off"}
        config = folder / "node.toml"
        config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items()))
        command = place.command([sys.executable, "-P", "-m", "fallow.node", "--config", str(config)])
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.place = place
        self.peer_id = self.key = ""

    def ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the node did not start"
        self.peer_id = json.loads(line)["peer_id"]
        self.key = peer_key_untrusted(self.peer_id).hex()

    def hold_two_relays(self) -> None:
        """It can be reached by either."""
        for _ in range(200):  # each look waits for the node's answer; 20 s
            if len(str(control.request(self.state, control.STATUS)["relays"]).split(",")) == 2:
                return
            time.sleep(0.1)
        raise AssertionError("the robot found no second relay")


class Client:
    """A person in a home, who asks."""

    def __init__(self, place: Place, home: Path, bootstrap: list[str]) -> None:
        command = place.command([sys.executable, str(Path(__file__).with_name("ask.py")), str(home), *bootstrap])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == {"joined": True}

    def _line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, executors: list[str], **request: object) -> Any:
        self.begin(executors, **request)
        return self.answer()

    def begin(self, executors: list[str], **request: object) -> None:
        """It has been asked; with `tell`, an answer says by which relays, as soon as the text begins."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**request, "executors": executors}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        answer = self._line()
        assert "error" not in answer, answer
        return answer


@dataclass
class Street:
    """Homes with a robot each, behind routers of both kinds; nothing of theirs can be dialled."""

    lab: Lab
    home: Path
    relays: list[Any]
    robots: list[Daemon]
    bootstrap: list[str]


@pytest.fixture(scope="module")
def street(built, start_for_all, tmp_path_factory, new_home) -> Iterator[Street]:
    folder, home = tmp_path_factory.mktemp("street"), new_home()
    first = start_for_all(built.public(), 1, relay=True)
    relays = [first, *(start_for_all(built.public(), number, first.addresses, relay=True) for number in (2, 3))]
    homes = [built.home(nat) for nat in (Nat.PRESERVING, Nat.RANDOM)]
    robots = [Daemon(place, folder / f"{i}", home, first.addresses, slow=not i) for i, place in enumerate(homes)]
    try:
        for robot in robots:
            robot.ready()
        yield Street(built, home, relays, robots, first.addresses)
    finally:
        for robot in robots:
            robot.process.terminate()
        for robot in robots:
            robot.process.communicate()


@pytest.fixture
def client(street, tmp_path, request) -> Iterator[Client]:
    """In a home of its own, behind the kind of router that the test names."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "store").symlink_to(street.home / "store")
    (tmp_path / "home" / "trust.toml").write_bytes((street.home / "trust.toml").read_bytes())
    client = Client(street.lab.home(request.param), tmp_path / "home", street.bootstrap)
    yield client
    client.process.kill()
    client.process.communicate()


@pytest.mark.parametrize("client", Nat, indirect=True)
def test_a_job_between_homes(street, client) -> None:
    for robot in street.robots:
        answer = client.ask([robot.peer_id], prompt="Good morning", tokens=40)
        assert (answer["executors"], answer["tokens"]) == ([robot.key], 40)


@pytest.mark.spec("D-31")
@pytest.mark.parametrize("client", [Nat.PRESERVING], indirect=True)
def test_what_a_home_has_signed_names_relays_and_no_home(street, client) -> None:
    relays = {relay.addresses[0].split("/")[2] for relay in street.relays}
    for robot in street.robots:
        client.begin([], where=robot.peer_id)
        addresses = client.answer()
        assert {address.split("/")[2] for address in addresses} <= relays
        assert all(f"/p2p-circuit/p2p/{robot.peer_id}" in address for address in addresses)


@pytest.mark.parametrize("end", ["freeze", "kill"])
@pytest.mark.parametrize("client", [Nat.RANDOM], indirect=True)
def test_a_text_goes_on_at_the_same_node_when_the_relay_between_dies(street, client, end) -> None:
    robot, other = street.robots
    control.request(other.state, control.DRIVE)  # nobody else could go on
    robot.hold_two_relays()
    whole = client.ask([robot.peer_id], prompt="Good morning", tokens=100)
    assert (whole["executors"], whole["handovers"]) == ([robot.key], [])

    client.begin([robot.peer_id], prompt="Good morning", tokens=100, tell=True)
    (relay,) = client.answer()["relays"]
    carrier = next(each for each in street.relays if each.key == peer_key_untrusted(relay).hex())
    getattr(carrier, end)()
    answer = client.answer()
    if end == "freeze":
        carrier.thaw()
    assert (answer["text"], answer["tokens"]) == (whole["text"], 100)
    (position,) = answer["handovers"]
    assert 0 < position < 100
    assert answer["executors"] == [robot.key]
    assert answer["owed"] == whole["paid"] + answer["paid"]
    # No token is paid for twice: what more it costs is that the text so far was read again, at 1 ucr a token.
    assert answer["paid"] <= whole["paid"] + answer["prompt"] + position

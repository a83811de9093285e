"""Jobs between homes, by the real node and the real client, with a town's relays in between."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fallow.protocol.identity import peer_key_untrusted
from fallow.testnet.natlab import Lab, Nat, Place


class Daemon:
    """A robot in a home: a node as it comes, but for its one bundle."""

    def __init__(self, place: Place, folder: Path, home: Path, bootstrap: list[str]) -> None:
        folder.mkdir()
        self.state = folder / "state"
        table: dict[str, object] = {
            "state": str(self.state), "home": str(home), "kind": "robot", "settle_s": 0, "bundles": ["tiny-chat"],
            "listen": ["/ip4/0.0.0.0/tcp/0"], "bootstrap": bootstrap, "spare_worker": False,
        }  # fmt: skip
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
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**request, "executors": executors}) + "\n")
        self.process.stdin.flush()
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
    robots = [Daemon(place, folder / f"{i}", home, first.addresses) for i, place in enumerate(homes)]
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

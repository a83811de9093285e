"""A small internet of network namespaces: public hosts on one wire, and homes behind routers that translate addresses.

Nothing touches the machine's own network: every link is made between two namespaces, and all go with the lab. It needs
root, `ip` and `nft`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..protocol.errors import Code, EngineError

_PUBLIC = "198.18.0"
"""Kept for measurements of networks among themselves (RFC 2544): no real host has it."""


class Nat(StrEnum):
    """What a home's router does with the ports of those behind it."""

    PRESERVING = ""
    """They keep their number where they can, as most home routers do: holes can be punched."""
    RANDOM = "random"
    """Each connection has another one, as behind many carriers: nobody can know which to dial."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process can run: a namespace, and the address that it has there."""

    namespace: str
    ip: str
    interface: str
    """By which it is connected."""
    gate: str = ""
    """The namespace whose `outside` is the way to the public wire: its own, or its router's. Empty without such a way."""
    port: str = ""
    """The other end of that way, in the wire's namespace."""
    outside: str = ""
    """The address that others see."""

    def command(self, words: Sequence[str]) -> list[str]:
        """The command line that runs the words there."""
        return ["ip", "netns", "exec", self.namespace, *words]


def missing() -> str:
    """Why no lab can be built here, in one sentence; empty if one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if absent := [name for name in ("ip", "nft") if not shutil.which(name)]:
        return f"not installed: {', '.join(absent)} (Debian: apt-get install iproute2 nftables)"
    try:
        with lab() as built:
            built.home(Nat.PRESERVING)
    except EngineError as error:
        return error.message
    return ""


@contextmanager
def lab() -> Iterator[Lab]:
    """An empty lab; when the block ends, whatever was built is gone, and whatever still runs in it cut off.

    Raises `EngineError(worker_failed)` with the kernel's words if it cannot be built.
    """
    built = new()
    try:
        built.raise_switch()
        yield built
    finally:
        built.raze()


def new() -> Lab:
    """A lab with nothing in it yet, not even the wire; whoever makes it razes it."""
    return Lab(f"fallow-{os.getpid()}-{os.urandom(2).hex()}")


class Lab:
    """Places, each on the public wire or behind a router of its own. Made by `lab`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._namespaces: list[str] = []
        self._switch = ""
        self._homes = 0
        self._publics = 0

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All that were made so far."""
        return tuple(self._namespaces)

    @property
    def wire(self) -> str:
        """The namespace of the public wire."""
        return self._switch

    def raise_switch(self) -> None:
        """The public wire is there."""
        self._switch = self._namespace("wire")
        _ip(f"-n {self._switch} link add wire type bridge", f"-n {self._switch} link set wire up")

    def public(self) -> Place:
        """A host that everybody can reach."""
        namespace = self._namespace(f"public{self._publics}")
        port, address = self._connect(namespace)
        return Place(namespace, address, "outside", namespace, port, address)

    def home(self, nat: Nat) -> Place:
        """A host that nobody can reach: its router lets in nothing that was not asked for from inside."""
        self._homes += 1
        router, host = self._namespace(f"router{self._homes}"), self._namespace(f"home{self._homes}")
        port, address = self._connect(router)
        inside = f"192.168.{10 + self._homes}"
        _ip(
            f"link add inside netns {router} type veth peer name lan netns {host}",
            f"-n {router} addr add {inside}.1/24 dev inside",
            f"-n {host} addr add {inside}.2/24 dev lan",
            f"-n {router} link set inside up",
            f"-n {host} link set lan up",
            f"-n {host} route add default via {inside}.1",
        )
        run(["ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
        run(["ip", "netns", "exec", router, "nft", "-f", "-"], _rules(nat))
        return Place(host, f"{inside}.2", "lan", router, port, address)

    def lan(self, hosts: int, *, ipv6: bool = False) -> list[Place]:
        """So many hosts on one wire of their own, without a router; they have addresses of one kind alone."""
        self._homes += 1
        wire = self._namespace(f"lan{self._homes}")
        _ip(f"-n {wire} link add wire type bridge mcast_snooping 0", f"-n {wire} link set wire up")
        places = []
        for number in range(1, hosts + 1):
            host = self._namespace(f"lan{self._homes}-{number}")
            ip = f"fd00:{self._homes:x}::{number:x}" if ipv6 else f"192.168.{10 + self._homes}.{number}"
            _ip(
                f"link add lan netns {host} type veth peer name port{number} netns {wire}",
                f"-n {wire} link set port{number} master wire up",
                f"-n {host} addr add {ip}/64 dev lan nodad" if ipv6 else f"-n {host} addr add {ip}/24 dev lan",
                f"-n {host} link set lan up",
                f"-n {host} route add default dev lan",
            )
            places.append(Place(host, ip, "lan"))
        return places

    def lose(self, place: Place) -> None:
        """Whatever comes to the place or leaves it is lost, and nobody is told: as in a tunnel."""
        chains = "".join(
            f"chain {way} {{ type filter hook {hook} priority 0; {end} {place.interface} drop; }}\n"
            for way, hook, end in (("out", "output", "oifname"), ("in", "input", "iifname"))
        )
        run(["ip", "netns", "exec", place.namespace, "nft", "-f", "-"], f"table inet weather {{\n{chains}}}\n")

    def clear(self, place: Place) -> None:
        """Nothing is lost any more."""
        run(["ip", "netns", "exec", place.namespace, "nft", "delete", "table", "inet", "weather"])

    def raze(self) -> None:
        """No namespace of the lab is left."""
        raze(self._namespaces)
        self._namespaces.clear()

    def _namespace(self, name: str) -> str:
        namespace = f"{self._prefix}-{name}"
        _ip(f"netns add {namespace}")
        self._namespaces.append(namespace)
        _ip(f"-n {namespace} link set lo up")
        return namespace

    def _connect(self, namespace: str) -> tuple[str, str]:
        """The namespace's new port at the public wire, and its address there."""
        self._publics += 1
        port, address = f"port{self._publics}", f"{_PUBLIC}.{self._publics}"
        _ip(
            f"link add outside netns {namespace} type veth peer name {port} netns {self._switch}",
            f"-n {self._switch} link set {port} master wire up",
            f"-n {namespace} addr add {address}/24 dev outside",
            f"-n {namespace} link set outside up",
            f"-n {namespace} route add default dev outside",
        )
        return port, address


def raze(namespaces: Sequence[str]) -> None:
    """None of them is left; one that is not there is no error."""
    there = {path.name for path in Path("/run/netns").glob("*")}
    for namespace in reversed(namespaces):
        if namespace in there:
            _ip(f"netns del {namespace}")


def _rules(nat: Nat) -> str:
    """A home router's, as nft reads them: what comes from outside unasked is dropped, at the router and behind it."""
    unasked = 'iifname "outside" ct state established,related accept; iifname "outside" drop;'
    return f"""
table ip translation {{
    chain leaving {{ type nat hook postrouting priority 100; oifname "outside" masquerade {nat}; }}
}}
table ip guard {{
    chain incoming {{ type filter hook input priority 0; {unasked} }}
    chain passing {{ type filter hook forward priority 0; {unasked} }}
}}
"""


def _ip(*commands: str) -> None:
    for command in commands:
        run(["ip", *command.split()])


def run(command: Sequence[str], text: str = "") -> None:
    """The system's command was carried out. Raises `EngineError(worker_failed)` with its words if it failed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise EngineError(Code.WORKER_FAILED, f"`{' '.join(command)}` failed: {done.stderr.strip()}")

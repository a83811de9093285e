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
    built = Lab(f"fallow-{os.getpid()}-{os.urandom(2).hex()}")
    try:
        built.raise_switch()
        yield built
    finally:
        built.raze()


class Lab:
    """Places, each on the public wire or behind a router of its own. Made by `lab`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._namespaces: list[str] = []
        self._switch = ""
        self._homes = 0
        self._publics = 0

    def raise_switch(self) -> None:
        """The public wire is there."""
        self._switch = self._namespace("wire")
        _ip(f"-n {self._switch} link add wire type bridge", f"-n {self._switch} link set wire up")

    def public(self) -> Place:
        """A host that everybody can reach."""
        namespace = self._namespace(f"public{self._publics}")
        return Place(namespace, self._connect(namespace), "outside")

    def home(self, nat: Nat) -> Place:
        """A host that nobody can reach: its router lets in nothing that was not asked for from inside."""
        self._homes += 1
        router, host = self._namespace(f"router{self._homes}"), self._namespace(f"home{self._homes}")
        self._connect(router)
        inside = f"192.168.{10 + self._homes}"
        _ip(
            f"link add inside netns {router} type veth peer name lan netns {host}",
            f"-n {router} addr add {inside}.1/24 dev inside",
            f"-n {host} addr add {inside}.2/24 dev lan",
            f"-n {router} link set inside up",
            f"-n {host} link set lan up",
            f"-n {host} route add default via {inside}.1",
        )
        _run(["ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
        _run(["ip", "netns", "exec", router, "nft", "-f", "-"], _rules(nat))
        return Place(host, f"{inside}.2", "lan")

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
        _weather(place, "drop")

    def narrow(self, place: Place, bytes_per_s: int) -> None:
        """What leaves the place beyond that rate is lost, once a second's worth has gone: nft's bucket holds so much.
        (Queues that shape need kernel modules which are often missing.)"""
        _weather(place, f"limit rate over {bytes_per_s} bytes/second drop", incoming=False)

    def clear(self, place: Place) -> None:
        """Nothing is lost any more."""
        _run(["ip", "netns", "exec", place.namespace, "nft", "delete", "table", "inet", "weather"])

    def raze(self) -> None:
        """No namespace of the lab is left."""
        for namespace in reversed(self._namespaces):
            _ip(f"netns del {namespace}")
        self._namespaces.clear()

    def _namespace(self, name: str) -> str:
        namespace = f"{self._prefix}-{name}"
        _ip(f"netns add {namespace}")
        self._namespaces.append(namespace)
        _ip(f"-n {namespace} link set lo up")
        return namespace

    def _connect(self, namespace: str) -> str:
        """The namespace's new address on the public wire."""
        self._publics += 1
        address = f"{_PUBLIC}.{self._publics}"
        _ip(
            f"link add outside netns {namespace} type veth peer name port{self._publics} netns {self._switch}",
            f"-n {self._switch} link set port{self._publics} master wire up",
            f"-n {namespace} addr add {address}/24 dev outside",
            f"-n {namespace} link set outside up",
            f"-n {namespace} route add default dev outside",
        )
        return address


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


def _weather(place: Place, rule: str, *, incoming: bool = True) -> None:
    chains = [f"chain out {{ type filter hook output priority 0; oifname {place.interface} {rule}; }}"]
    if incoming:
        chains.append(f"chain in {{ type filter hook input priority 0; iifname {place.interface} {rule}; }}")
    table = f"table inet weather {{\n{chr(10).join(chains)}\n}}\n"
    _run(["ip", "netns", "exec", place.namespace, "nft", "-f", "-"], table)


def _ip(*commands: str) -> None:
    for command in commands:
        _run(["ip", *command.split()])


def _run(command: list[str], text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise EngineError(Code.WORKER_FAILED, f"`{' '.join(command)}` failed: {done.stderr.strip()}")

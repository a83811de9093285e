"""Faults of a node's link, on the wire that all share: drops by nft, rates by tc.

They are made from outside the node, at its port of the wire's bridge and, of what it sends, at its own end: its machine does
not know why nothing comes. Each kind has a table of its own, so that several may befall one node. The rate is a token
bucket's: the kernel's other way to make a link slow, `netem`, is not everywhere, and a bucket with a queue behind it delays
as real links do, by being full. A fixed delay is a process's (`lateness`), which stands in the link.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from ..protocol.errors import Code, EngineError
from . import lateness
from .natlab import Place, run
from .processes import ProcessId, process_of
from .record import LocalNode, Network

BURST_BYTES: Final = 16 * 1024
LATE: Final = "late.json"
"""In a node's folder: the process that holds up what goes to it and from it."""
LET_GO_S: Final = 5.0
QUEUE_MS: Final = 400
"""Of a slow link: what waits longer is dropped, as by a modem."""


def begin(fault: str, amount: int, network: Network, nodes: Sequence[LocalNode]) -> None:
    """The nodes' links are so from now on. Raises `EngineError(worker_failed)` with the system's words."""
    for place in _places(nodes):
        match fault:
            case "blackhole":
                _drop(network, place, fault)
            case "lossy":
                _drop(network, place, fault, *2 * (f"numgen random mod 1000 < {amount}",))
            case "partition":
                others = ", ".join(_beyond(network, nodes))
                _drop(network, place, fault, f"ip daddr {{ {others} }}", f"ip saddr {{ {others} }}")
            case "slow":
                for way in _ways(network, place):
                    run([*way[0], "replace", *way[1], "root", "tbf", *_bucket(amount)])
    if fault == "late":
        for node in nodes:
            _hold_up(network, node, amount)


def end(fault: str, network: Network, nodes: Sequence[LocalNode]) -> None:
    """The nodes' links are as they were before that fault; one that it had not befallen stays as it is."""
    if fault == "late":
        for node in nodes:
            _let_go(node)
        return
    for place in _places(nodes):
        if fault == "slow":
            for way in _ways(network, place):
                if _is_slow(way):
                    run([*way[0], "del", *way[1], "root"])
        else:
            _nft(network, _without(place, fault))


def _hold_up(network: Network, node: LocalNode, delay_ms: int) -> None:
    """What goes to and from the node comes so much later, as long as the network's parent lives."""
    _let_go(node)
    assert node.place is not None and network.ground.zygote is not None, "only what runs, and has a link, can be late"
    words = ["-P", "-m", f"{__package__}.lateness", node.place.port, str(delay_ms), str(network.ground.zygote.pid)]
    command = ["ip", "netns", "exec", network.ground.wire, sys.executable, *words]
    line = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert line.stdout is not None
    if lateness.READY.encode() not in line.stdout.readline() or not (process := process_of(line.pid)):
        line.kill()
        raise EngineError(
            Code.WORKER_FAILED, "No delay can be put into a link here: it takes taps, and `tc` with mirred."
        )
    (node.folder / LATE).write_text(json.dumps([process.pid, process.started_ticks]))
    line.stdout.close()
    line.returncode = 0  # whoever ends the fault waits for it, and that may be another process


def _let_go(node: LocalNode) -> None:
    """The node's link has no delay any more; it has none between two."""
    record = node.folder / LATE
    if record.exists():
        process = ProcessId(*json.loads(record.read_text()))
        process.send(signal.SIGTERM)
        ends = time.monotonic() + LET_GO_S
        while process.running and time.monotonic() < ends:
            time.sleep(0.01)
        record.unlink()


def _places(nodes: Sequence[LocalNode]) -> list[Place]:
    return [node.place for node in nodes if node.place and node.place.gate]


def _beyond(network: Network, nodes: Sequence[LocalNode]) -> list[str]:
    """Everybody's address but those of these nodes."""
    inside = {place.outside for place in _places(nodes)}
    clients = [network.ground.client.outside] if network.ground.client else []
    return sorted({*(place.outside for place in _places(network.nodes)), *clients} - inside)


def _drop(network: Network, place: Place, fault: str, going: str = "", coming: str = "") -> None:
    """Of what the node sends, and of what is sent to it, whatever meets the condition is dropped."""
    ports = f'"{place.port}", "{lateness.in_place_of(place.port)}"'
    rules = f"""
table bridge {_table(place, fault)} {{
    chain passing {{
        type filter hook forward priority 0
        iifname {{ {ports} }} {going} drop
        oifname {{ {ports} }} {coming} drop
    }}
}}
"""
    _nft(network, _without(place, fault) + rules)


def _without(place: Place, fault: str) -> str:
    """Rules by which there is no such table, whether there was one or not."""
    table = _table(place, fault)
    return f"table bridge {table} {{}}\ndelete table bridge {table}\n"


def _nft(network: Network, rules: str) -> None:
    run(["ip", "netns", "exec", network.ground.wire, "nft", "-f", "-"], rules)


def _table(place: Place, fault: str) -> str:
    return f"{fault}_{place.port}"


def _ways(network: Network, place: Place) -> list[tuple[list[str], list[str]]]:
    """(tc in that namespace, the device) for each direction: what the node sends, and what the wire sends it."""
    ends = ((place.gate, "outside"), (network.ground.wire, place.port))
    return [(["tc", "-n", namespace, "qdisc"], ["dev", device]) for namespace, device in ends]


def _bucket(kbit_per_s: int) -> list[str]:
    return ["rate", f"{kbit_per_s}kbit", "burst", str(BURST_BYTES), "latency", f"{QUEUE_MS}ms"]


def _is_slow(way: tuple[list[str], list[str]]) -> bool:
    command = [way[0][0], "-j", *way[0][1:], "show", *way[1]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise EngineError(Code.WORKER_FAILED, f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return any(each.get("kind") == "tbf" for each in json.loads(done.stdout or "[]"))

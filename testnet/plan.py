"""What a test network is to consist of, and each node's settings for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..node.config import KINDS
from ..protocol.errors import Code, ConfigError

BUNDLES = ("smollm2-135m-instruct", "minilm-l6")
"""What nodes serve unless told otherwise."""
KIND_COUNTS: Mapping[str, int] = {"vehicle": 2, "robot": 2, "site": 1, "host": 1}
NODES_MAX = 32
"""A node and its worker hold about half a gigabyte beside the shared weights."""
LIAR_COMMAND = [sys.executable, "-P", "-m", f"{__package__}.liar"]
_ORDER = ("host", "site", "vehicle", "robot")
"""The first node is the one that all others join by, so those that stay come first."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node to be started."""

    name: str
    kind: str
    liar: bool


def plan_nodes(nodes: int | None = None, liars: int = 0, kinds: Mapping[str, int] | None = None) -> list[NodePlan]:
    """The nodes in the order of their start; the first is the bootstrap, liars come last.

    Without `kinds`, the usual mix, as often as needed. Raises `ConfigError(bad_config)`.
    """
    counts = KIND_COUNTS if kinds is None else kinds
    named = [kind for kind in _ORDER for _ in range(counts.get(kind, 0))]
    if kinds is None and nodes is not None:
        named = sorted((named * NODES_MAX)[: max(0, nodes)], key=_ORDER.index)
    if nodes is not None and nodes != len(named):
        raise _bad(f"the kinds make {len(named)} nodes, not {nodes}")
    if not 1 <= len(named) <= NODES_MAX:
        raise _bad(f"it has 1 to {NODES_MAX} nodes, not {len(named)}")
    if not 0 <= liars < len(named):
        raise _bad(f"{liars} liars among {len(named)} nodes leave nobody to trust")
    return [NodePlan(f"{i}-{kind}", kind, i >= len(named) - liars) for i, kind in enumerate(named)]


def parse_kinds(text: str) -> dict[str, int]:
    """`vehicle=2,robot=1` as counts. Raises `ConfigError(bad_config)`."""
    counts: dict[str, int] = {}
    for part in text.split(","):
        kind, _, count = part.strip().partition("=")
        if kind not in KINDS or not count.isdecimal() or len(count) > 2:
            raise _bad(f"{part.strip()[:80]!r} is not KIND=COUNT with one of {', '.join(KINDS)}")
        counts[kind] = counts.get(kind, 0) + int(count)
    return counts


def settings(plan: NodePlan, state: Path, home: Path, bundles: Sequence[str], bootstrap: Sequence[str]) -> str:
    """The node's configuration file, in TOML."""
    values: dict[str, object] = {
        "state": str(state),
        "home": str(home.absolute()),
        "kind": plan.kind,
        "bundles": list(bundles),
        "bootstrap": list(bootstrap),
        "reach": "direct",  # all are on one machine: nobody is kept from anybody, nor has a place to hide
        "spare_worker": False,  # many nodes share this machine's memory
        "strangers_ppm": 1_000_000,  # nobody settles a test's debts
        "settle_s": 0,  # whoever parks in a test network wants to see it
    }
    if plan.liar:
        values["worker_command"] = LIAR_COMMAND
    # JSON's strings, numbers and lists are TOML's too.
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def _bad(problem: str) -> ConfigError:
    return ConfigError(Code.BAD_CONFIG, f"This is no test network: {problem}.")

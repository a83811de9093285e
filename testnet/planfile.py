"""A plan as a file: TOML that a person writes, or the JSON that a run leaves beside its report.

bundles = ["tiny-chat"]
namespaces = false
day_s = 600                     # a day of the scripts below takes ten minutes

[[nodes]]
kind = "vehicle"
count = 2
owner = "ada"                   # both are hers; without it each node has an owner of its own
region = "u33"
day = "08:00 drive, 18:00 park" # or the name of a script of `days`; or instead of it
# sensors = "commuter"          # a day of signals that its own rules follow, by name or file, as long as the others
settings = { jobs_max = 2, prices = { generate = { output_token_ucr = 8 } } }
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from ..node.config import KINDS
from ..node.sensors.config import SHIPPED
from ..node.sensors.scripted import load_day
from ..node.settings import SettingError
from ..protocol.errors import Code, ConfigError
from .adversaries import Seat, find
from .days import script
from .natlab import Nat
from .plan import BUNDLES, NODES_MAX, NodePlan, Plan, bad

_PLAN: Final = ("bundles", "namespaces", "day_s", "seed", "clients", "nodes")
_NODE: Final = (
    "kind", "count", "name", "adversary", "owner", "region", "nat", "day", "sensors", "token_ms", "settings",
)  # fmt: skip
DAY_S_MAX: Final = 30 * 24 * 3600.0
TOKEN_MS_MAX: Final = 10_000
"""Half of what an order lets pass between two tokens."""


def load(path: Path) -> Plan:
    """The plan in the file. Raises `ConfigError(bad_config)` naming what is wrong with it."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(Code.BAD_CONFIG, f"Cannot read the plan {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(Code.BAD_CONFIG, f"{path} is not TOML: {error}.") from None
    return parse(table)


def parse(table: Mapping[str, Any]) -> Plan:
    """The plan that the table says. Raises `ConfigError(bad_config)`."""
    _only(table, _PLAN, "a plan")
    groups = _typed(table, "nodes", list, [])
    nodes = [node for number, group in enumerate(groups) for node in _group(group, number)]
    if not 1 <= len(nodes) <= NODES_MAX:
        raise bad(f"it has 1 to {NODES_MAX} nodes, not {len(nodes)}")
    named = tuple(_named(nodes))
    if len({node.name for node in named}) < len(named):
        raise bad("two of its nodes have the same name")
    if named[0].adversary:
        raise bad("the first node is the one that all others join by, and must be honest")
    day_s = _typed(table, "day_s", (int, float), 0)
    if not 0 <= day_s <= DAY_S_MAX:
        raise bad(f"day_s is from 0 to {DAY_S_MAX:.0f}")
    clients = tuple(_texts(table, "clients"))
    if wrong := [name for name in clients if find(name).seat is not Seat.CLIENT]:
        raise bad(f"{wrong[0]} is no client")
    return Plan(
        named,
        tuple(_texts(table, "bundles")) or BUNDLES,
        _typed(table, "namespaces", bool, False),
        float(day_s),
        _typed(table, "seed", int, 0),
        clients,
    )


def as_table(plan: Plan) -> dict[str, Any]:
    """What `parse` makes this plan of, fit for JSON."""
    nodes = [{name: value for name, value in asdict(node).items() if value is not None} for node in plan.nodes]
    return {**asdict(plan), "bundles": list(plan.bundles), "clients": list(plan.clients), "nodes": nodes}


def _group(group: object, number: int) -> list[NodePlan]:
    if not isinstance(group, Mapping):
        raise bad("`nodes` is a list of tables ([[nodes]])")
    _only(group, _NODE, f"nodes {number + 1}")
    kind = _typed(group, "kind", str, "")
    if kind not in KINDS:
        raise bad(f"the kind of nodes {number + 1} is one of {', '.join(KINDS)}")
    adversary, nat = _typed(group, "adversary", str, ""), group.get("nat")
    if adversary and find(adversary).seat is Seat.CLIENT:
        raise bad(f"{adversary} is no node: it belongs to `clients`")
    if nat is not None and nat not in list(Nat):
        raise bad(f"nat is one of {', '.join(repr(str(each)) for each in Nat)}")
    count, token_ms = _typed(group, "count", int, 1), _typed(group, "token_ms", int, 0)
    if not 1 <= count <= NODES_MAX or not 0 <= token_ms <= TOKEN_MS_MAX:
        raise bad(f"count is from 1 to {NODES_MAX}, token_ms from 0 to {TOKEN_MS_MAX}")
    day = _typed(group, "day", str, "")
    script(day, kind)
    node = NodePlan(
        _typed(group, "name", str, ""), kind, adversary, _typed(group, "owner", str, ""),
        _typed(group, "region", str, ""), nat, day, _sensors(group), token_ms, _typed(group, "settings", dict, {}),
    )  # fmt: skip
    if any("/" in word or word.startswith(".") for word in (node.name, node.owner)):
        raise bad("names of nodes and owners become names of files: no slash, no dot at the beginning")
    return [node] * count


def _sensors(group: Mapping[str, Any]) -> str:
    """The scripted day of signals, by its name or as an absolute path."""
    day = _typed(group, "sensors", str, "")
    if not day:
        return ""
    if group.get("day"):
        raise bad("a node has either a `day` or `sensors`")
    try:
        load_day(day)
    except SettingError as error:
        raise bad(f"`sensors`: {error.message}") from None
    return day if day in SHIPPED else str(Path(day).absolute())


def _named(nodes: Sequence[NodePlan]) -> list[NodePlan]:
    """Nodes without a name have their place and kind."""
    return [node if node.name else replace(node, name=f"{index}-{node.kind}") for index, node in enumerate(nodes)]


def _only(table: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    if strange := sorted(set(table) - set(known)):
        raise bad(f"{what} has no `{strange[0]}`; it has {', '.join(known)}")


def _typed(table: Mapping[str, Any], name: str, kind: Any, default: Any) -> Any:
    value = table.get(name, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise bad(f"`{name}` is of another type")
    return value


def _texts(table: Mapping[str, Any], name: str) -> list[str]:
    texts = _typed(table, name, list, [])
    if not all(isinstance(text, str) for text in texts):
        raise bad(f"`{name}` is a list of texts")
    return list(texts)

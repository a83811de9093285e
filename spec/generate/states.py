"""State machines as the code has them: a Mermaid diagram, the literal table, and what each state means."""

from __future__ import annotations

import ast
from enum import StrEnum
from typing import Any

from .source import documented, source
from .tables import table


def states(name: str) -> str:
    """The machine of a module whose `TABLE` maps (state, party, event) to the next state, the first key's being the start.

    Raises `LookupError` if the module has none.
    """
    module = source(name).module
    moves: dict[tuple[StrEnum, StrEnum, StrEnum], StrEnum] | None = getattr(module, "TABLE", None)
    if not moves:
        raise LookupError(f"fallow.protocol.{name} has no TABLE")
    kind = type(next(iter(moves))[0])
    literal = table(
        ("State", "By", "Event", "Next state"),
        [(f"`{state}`", party, f"`{event}`", f"`{after}`") for (state, party, event), after in moves.items()],
    )
    return "\n\n".join((_diagram(moves), literal, _meanings(name, kind)))


def _diagram(moves: dict[Any, Any]) -> str:
    """One arrow for all that one party may say between two states."""
    arrows: dict[tuple[str, str, str], list[str]] = {}
    for (state, party, event), after in moves.items():
        arrows.setdefault((state, after, party), []).append(event)
    first = next(iter(moves))[0]
    leaving = {state for state, _, _ in moves}
    ends = dict.fromkeys(after for after in moves.values() if after not in leaving)
    lines = [
        f"[*] --> {first}",
        *(f"{state} --> {after}: {party} {', '.join(said)}" for (state, after, party), said in arrows.items()),
        *(f"{end} --> [*]" for end in ends),
    ]
    return "\n".join(("```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```"))


def _meanings(name: str, kind: type[StrEnum]) -> str:
    tree = source(name).tree
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    return table(("State", "Meaning"), [(f"`{kind[each.name]}`", each.meaning) for each in documented(body)])

"""What the source of `fallow.protocol` says besides its values: docstrings under fields and constants, names of aliases.

Python forgets both at run time: `Hash` and `Key` are the same object there, and a string under a field is nothing.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import fallow.protocol


@dataclass(frozen=True)
class Documented:
    """A name that is bound at the top of a module or class, with the expression or type behind it and what stands under it."""

    name: str
    expression: ast.expr
    """The value of a constant or alias; the annotation of a field."""
    meaning: str
    """Its docstring on one line; empty if there is none."""


@dataclass(frozen=True)
class Source:
    """One module of the protocol, as it runs and as it is written."""

    module: ModuleType
    tree: ast.Module


@cache
def sources() -> tuple[Source, ...]:
    """Every module of the protocol, by name."""
    prefix = f"{fallow.protocol.__name__}."
    names = sorted(found.name for found in pkgutil.walk_packages(fallow.protocol.__path__, prefix))
    return tuple(map(_source, names))


def source(name: str) -> Source:
    """One module of the protocol. Raises `LookupError` if there is none of that name."""
    for each in sources():
        if each.module.__name__ == f"fallow.protocol.{name}":
            return each
    raise LookupError(f"fallow.protocol has no module {name!r}")


def first_line(kind: type) -> str:
    """The first line of a class's docstring."""
    return (kind.__doc__ or "").strip().partition("\n")[0]


def field_notes(kind: type) -> dict[str, Documented]:
    """The fields of a dataclass by name."""
    tree = next(each.tree for each in sources() if each.module.__name__ == kind.__module__)
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    return {each.name: each for each in documented(body)}


@cache
def alias(name: str) -> tuple[Documented, Any]:
    """A type alias of the protocol as it is written and as it runs. Raises `LookupError` unless there is exactly one."""
    found = [
        (each, getattr(home.module, name))
        for home in sources()
        for each in documented(home.tree.body)
        if each.name == name
    ]
    if len(found) != 1:
        raise LookupError(f"{len(found)} definitions of the type {name} in fallow.protocol: its rule needs exactly one")
    return found[0]


def documented(body: list[ast.stmt], *, shared: bool = False) -> Iterator[Documented]:
    """What a module's or a class's statements bind, in their order.

    With `shared`, a docstring is also that of the lines right above it that have none of their own.
    """
    bare: list[tuple[str, ast.expr]] = []
    line = 0
    for statement in body:
        if binding := _binding(statement):
            if not shared or statement.lineno > line + 1:
                yield from (Documented(*each, "") for each in bare)
                bare = []
            bare.append(binding)
        else:
            meaning = _text(statement)
            yield from (Documented(*each, meaning) for each in bare)
            bare = []
        line = statement.end_lineno or statement.lineno
    yield from (Documented(*each, "") for each in bare)


def _source(name: str) -> Source:
    module = importlib.import_module(name)
    return Source(module, ast.parse(Path(str(module.__file__)).read_text("utf-8")))


def _binding(statement: ast.stmt) -> tuple[str, ast.expr] | None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
            return name, annotation
    return None


def _text(statement: ast.stmt) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.split())
    return ""

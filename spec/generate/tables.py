"""The tables of the pages: what records and messages hold, and the registries of errors, limits and protocols."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass

from fallow.protocol import errors, limits, records

from .cddl import Entry, Schema, message_kinds
from .source import Documented, documented, first_line, source, sources

SIGNERS = {
    "issuer": "owner",
    "mandate": "owner, or an issuer of the owner",
    "capability-profile": "node",
    "connectivity-profile": "node",
    "worker-key": "node",
    "manifest": "publisher",
    "channel": "payer",
    "job-order": "client",
    "accept": "executor",
    "receipt": "executor",
    "voucher": "payer",
    "attestation": "checker",
    "verdict": "verifier",
    "evidence": "whoever found it",
    "shed-order": "grid key",
    "feeder-roster": "grid key",
    "feeder-lease": "lender",
    "witness": "witness",
    "dispute": "either side of the order",
    "plea": "accused",
    "hearing": "claimant",
    "decision": "verifier",
}
"""Who signs a record: the one thing about it that its class does not say."""

_UNITS = {"BYTES": "bytes", "MS": "ms", "TOKENS": "tokens", "UCR": "ucr", "PPM": "ppm", "W": "W", "WATTS": "W"}
_LARGER = {
    "bytes": ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")),
    "ms": ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")),
}


def record_table(name: str) -> str:
    """The fields of a signed record. Raises `LookupError` if there is none of that name."""
    if name not in records.RECORDS:
        raise LookupError(f"there is no record {name!r}")
    return _fields(records.RECORDS[name])


def message_table(name: str) -> str:
    """The fields of the message of a kind. Raises `LookupError` if there is none."""
    kind = next((kind for kind in message_kinds() if name == kind.KIND), None)
    if kind is None:
        raise LookupError(f"there is no message {name!r}")
    return _fields(kind, Entry("t", False, f'"{name}"', "The message's kind."))


def struct_table(name: str) -> str:
    """The fields of a structure by the name of its class. Raises `LookupError` unless the protocol has exactly one."""
    found = {
        kind for home in sources() if isinstance(kind := getattr(home.module, name, None), type) and is_dataclass(kind)
    }
    if len(found) != 1:
        raise LookupError(f"there are {len(found)} structures {name!r}")
    return _fields(found.pop())


def records_table(pages: Mapping[str, str]) -> str:
    """Every signed record, who signs it, and the page that has its table."""
    rows = []
    for name in records.RECORDS:
        page = next((page for page, text in pages.items() if f"<!-- generated: record:{name} -->" in text), None)
        if name not in SIGNERS:
            raise LookupError(f"spec/generate/tables.py does not say who signs a {name}")
        rows.append((f"`{name}`", SIGNERS[name], f"[{page.removesuffix('.md')}]({page})" if page else ""))
    return table(("Record", "Signed by", "Page"), rows)


def messages_table() -> str:
    """Every message with its sender, as the first line of its docstring has them."""
    rows = []
    for kind in message_kinds():
        line = first_line(kind)
        sender = re.match(r"(\w+): ", line)
        says = line[sender.end() :] if sender else line
        rows.append((f"`{kind.KIND}`", sender[1].lower() if sender else "", says[:1].upper() + says[1:]))
    return table(("Message", "Sender", "Says"), rows)


def protocols_table() -> str:
    """Every protocol id: the constants of the protocol that end in `_PROTOCOL`."""
    rows = [
        (f"`{getattr(home.module, each.name)}`", each.meaning)
        for home in sources()
        for each in documented(home.tree.body)
        if each.name.endswith("_PROTOCOL")
    ]
    return table(("Protocol", "Meaning"), rows)


def errors_table() -> str:
    """The registry of error codes."""
    rows = [(f"`{e.code}`", e.side, e.disposition.value, e.advice) for e in errors.REGISTRY.values()]
    return table(("Code", "Side", "Disposition", "Advice"), rows)


def limits_table() -> str:
    """Every bound with its unit and reason."""
    rows = [(f"`{each.name}`", _quantity(each), each.meaning)
            for each in documented(source("limits").tree.body, shared=True)]  # fmt: skip
    return table(("Limit", "Value", "Reason"), rows)


def _quantity(limit: Documented) -> str:
    value = getattr(limits, limit.name)
    unit = next((_UNITS[word] for word in reversed(limit.name.split("_")) if word in _UNITS), "")
    larger = next(((size, word) for size, word in _LARGER.get(unit, ()) if value >= size and value % size == 0), None)
    also = f" ({value // larger[0]} {larger[1]})" if larger else ""
    return f"{value} {unit}".rstrip() + also


def _fields(kind: type, *before: Entry) -> str:
    rows = [
        (f"`{each.name}`", f"`{each.cddl}`" + (", optional" if each.optional else ""), each.meaning)
        for each in (*before, *Schema().entries(kind))
    ]
    return f"{first_line(kind)}\n\n" + table(("Field", "Type", "Meaning"), rows)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

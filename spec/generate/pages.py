"""The generated parts of a page: what stands between `<!-- generated: NAME -->` and `<!-- end generated -->`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from . import tables
from .states import states

_BLOCK = re.compile(r"(?<=^<!-- generated: )([\w:-]+)( -->\n).*?(?=^<!-- end generated -->$)", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"^\s*<!-- (?:end )?generated", re.MULTILINE)

_OF: dict[str, Callable[[str], str]] = {
    "record": tables.record_table,
    "message": tables.message_table,
    "struct": tables.struct_table,
    "states": states,
}
_WHOLE: dict[str, Callable[[], str]] = {
    "messages": tables.messages_table,
    "protocols": tables.protocols_table,
    "errors": tables.errors_table,
    "limits": tables.limits_table,
}


def fill(text: str, pages: Mapping[str, str]) -> str:
    """A page with its generated parts as the code has them now. `pages` are all pages by file name, for the index.

    Raises `LookupError` for a name that nothing generates, and for marks that do not pair.
    """
    filled, blocks = _BLOCK.subn(lambda found: f"{found[1]}{found[2]}{block(found[1], pages)}\n", text)
    if len(_MARK.findall(text)) != 2 * blocks:
        raise LookupError("a generated part has no beginning, no name or no end on a line of its own")
    return filled


def block(name: str, pages: Mapping[str, str]) -> str:
    """What belongs into the generated part of a name. Raises `LookupError` if nothing does."""
    what, _, of = name.partition(":")
    if of and what in _OF:
        return _OF[what](of)
    if name == "records":
        return tables.records_table(pages)
    if name in _WHOLE:
        return _WHOLE[name]()
    raise LookupError(f"nothing generates {name!r}")

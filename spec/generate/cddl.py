"""The protocol's dataclasses as CDDL (RFC 8610): one rule for each record, message, structure and type alias."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from fallow.protocol import records, work
from fallow.protocol.codec import INTEGER_MAX
from fallow.protocol.limits import PUBLISHED_BYTES_MAX
from fallow.protocol.messages.codec import Message
from fallow.protocol.opening import Opening
from fallow.protocol.schema import Between, Size

from .source import alias, field_notes, first_line

_PRELUDE = {"uint": "uint63", "text": "short-text"}
"""CDDL has names of its own that our aliases would redefine; theirs are wider."""

_HEADER = """\
; Fallow's protocol, version 1: every record, message and sealed plaintext. Generated from the code: do not edit.
;
; What is said here is necessary, not sufficient: the encoding is deterministic (page 00), and rules that join several
; fields stand in the pages. All is nested at most 16 deep, and bounded in bytes (page 09).
;
; The subset of CDDL (RFC 8610) in this file, for readers of few lines. A comment is a line that begins with ";".
;   name = TYPE                a rule on one line, or
;   name = {                   a map, one entry on each line, "}" alone on the last. An entry ends with "," and is
;     field: TYPE,               a field that must be there,
;     ? field: TYPE,             a field that may be absent (it is never null), or
;     * opt => value,            any other field, if the rule `opt` takes its name: a reader ignores it. All else is refused
;   }
;   name = [                   an array of exactly these items, "]" alone on the last line; the names are for people
;     name: TYPE,
;   ]
;   name = #6.18([             the same in a CBOR tag, "])" alone on the last line
;   name = a / b / c           a choice of rules, all on one line
; TYPE is one of
;   name                       another rule, or bool
;   bstr | tstr                of any size, in `value`, `sig-structure` and `signed-record` only
;   bstr .size 32              bytes, exactly so many
;   bstr .size (1..64)         bytes, from so many to so many
;   tstr .size (1..64)         text; the size is that of its UTF-8 in bytes
;   bstr .cbor name            bytes that are the encoding of that rule's value
;   0..9                       an integer, both ends included
;   "order" | -19              exactly this value
;   [1*8 TYPE]                 an array of 1 to 8 items
;   {}                         the empty map
; `opt` and `value`, the rules for fields of later versions, use more and are best written by hand.
"""

_OPEN = f"""\
; A field of a later version that a reader of this one may overlook: its name begins with "opt_". ("[^x]|x" is any
; character, line ends too.)
opt = tstr .regexp "opt_([^x]|x)*"

; Whatever the encoding allows, for such a field: no floats, no tags, no undefined, maps with text keys only.
value = null / bool / int64 / bstr / tstr / [* value] / {{ * tstr => value }}
int64 = {-INTEGER_MAX - 1}..{INTEGER_MAX}
"""

_SIGNED = """\
; COSE_Sign1 (RFC 9052). Its BLAKE3 hash is the record's id.
signed-record = #6.18([
  protected: bstr .cbor protected-header,
  unprotected: {},
  payload: bstr .cbor record,
  signature: signature,
])

; Algorithm -19 is Ed25519 (RFC 9864); 4 is the signer's public key.
protected-header = {
  1: -19,
  4: key,
}

; What is signed: the bytes of the two parts as they are in the envelope; external-aad is "fallow/1/<record>" in UTF-8.
sig-structure = [
  context: "Signature1",
  protected: bstr .cbor protected-header,
  external-aad: bstr,
  payload: bstr .cbor record,
]
"""


@dataclass(frozen=True)
class Entry:
    """One field of a structure."""

    name: str
    optional: bool
    cddl: str
    """Its type."""
    meaning: str


class Schema:
    """The rules that the types met so far need."""

    def __init__(self) -> None:
        self.structures: dict[str, type] = {}
        self.aliases: dict[str, str] = {}

    def entries(self, kind: type) -> list[Entry]:
        """The fields of a dataclass in their order. Raises `TypeError` for a type that the protocol does not use."""
        hints, written = get_type_hints(kind, include_extras=True), field_notes(kind)
        return [self._entry(written[each.name].expression, hints[each.name], each.name, written[each.name].meaning)
                for each in fields(kind)]  # fmt: skip

    def spell(self, written: ast.expr, hint: Any) -> str:
        """A type in CDDL. `written` is what the source calls it, `hint` what it is."""
        if is_dataclass(hint) and isinstance(hint, type):
            return self._structure(hint)
        match written:
            case ast.Name(id="bool"):
                return "bool"
            case ast.Name(id=name):
                return self.alias(name)
            case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, *_])):
                base, bound = get_args(hint)
                return self._bounded(inner, base, bound)
        raise TypeError(f"no CDDL for the type {ast.unparse(written)}")

    def alias(self, name: str) -> str:
        """The rule of a type alias."""
        rule = _PRELUDE.get(kebab(name), kebab(name))
        if rule not in self.aliases:
            written, hint = alias(name)
            self.aliases[rule] = ""  # keeps its place before the aliases that it needs itself
            comment = f"; {written.meaning}\n" if written.meaning else ""
            self.aliases[rule] = f"{comment}{rule} = {self.spell(written.expression, hint)}\n"
        return rule

    def _entry(self, written: ast.expr, hint: Any, name: str, meaning: str) -> Entry:
        optional = get_origin(hint) in (Union, types.UnionType)
        if optional:
            (hint,) = (arm for arm in get_args(hint) if arm is not type(None))
            assert isinstance(written, ast.BinOp)
            written = written.left
        return Entry(name, optional, self.spell(written, hint), meaning)

    def _structure(self, kind: type) -> str:
        rule = kebab(kind.__name__)
        if self.structures.setdefault(rule, kind) is not kind:
            raise TypeError(f"two structures are called {rule}")
        return rule

    def _bounded(self, inner: ast.expr, base: Any, bound: Size | Between) -> str:
        if isinstance(bound, Between):
            return f"{bound.least}..{bound.most}"
        if get_origin(base) is tuple and isinstance(inner, ast.Subscript) and isinstance(inner.slice, ast.Tuple):
            return f"[{bound.least}*{bound.most} {self.spell(inner.slice.elts[0], get_args(base)[0])}]"
        size = str(bound.least) if bound.least == bound.most else f"({bound.least}..{bound.most})"
        return f"{'bstr' if base is bytes else 'tstr'} .size {size}"


def kebab(name: str) -> str:
    """`JobOrder` as `job-order`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def message_rule(kind: type[Message]) -> str:
    """The rule of a message."""
    return f"message-{kind.KIND}"


def message_kinds() -> tuple[type[Message], ...]:
    """Every message, in the order of its union."""
    return get_args(Message)


def whole() -> str:
    """The text of `fallow.cddl`."""
    schema = Schema()
    signed = [_map(schema, name, kind) for name, kind in records.RECORDS.items()]
    said = [_map(schema, message_rule(kind), kind, tag=kind.KIND) for kind in message_kinds()]
    sealed = [_map(schema, kebab(kind.__name__), kind) for kind in (work.Work, work.Input, work.Piece)]
    opening = _map(schema, "opening", Opening)
    envelope, _ = schema.alias("Envelope"), schema.alias("Signature")
    nested: list[str] = []
    while len(nested) < len(schema.structures):  # a structure's own fields may bring more
        rule, kind = list(schema.structures.items())[len(nested)]
        nested.append(_map(schema, rule, kind))
    text = "\n".join(
        (
            _HEADER,
            "fallow = signed-record / message / published\n",
            _title("Signed records"),
            _SIGNED,
            '; A record is signed under the name of its rule: a mandate with external-aad "fallow/1/mandate".\n'
            + _choice("record", records.RECORDS),
            *signed,
            _title("Messages: one frame on a stream each"),
            "; `t` says which.\n" + _choice("message", map(message_rule, message_kinds())),
            *said,
            _title("Plaintexts: what is sealed between client and worker"),
            *sealed,
            _title("Values that are no messages"),
            f"; A node's value in the DHT: both profiles, at most {PUBLISHED_BYTES_MAX} bytes in all.\n"
            f"published = [\n  capability: {envelope},\n  connectivity: {envelope},\n]\n",
            "; What was asked and answered under one order, in plain, for whoever is to judge it.\n" + opening,
            _title("Structures within those above"),
            *nested,
            _title("Types"),
            *schema.aliases.values(),
            _OPEN,
        )
    )
    _check_names(text)
    return text


def _map(schema: Schema, rule: str, kind: type, tag: str | None = None) -> str:
    lines = [f'  t: "{tag}",'] if tag else []
    lines += [f"  {'? ' if each.optional else ''}{each.name}: {each.cddl}," for each in schema.entries(kind)]
    return "\n".join((f"; {first_line(kind)}", f"{rule} = {{", *lines, "  * opt => value,", "}", ""))


def _choice(rule: str, of: Iterable[str]) -> str:
    return f"{rule} = {' / '.join(of)}\n"


def _title(text: str) -> str:
    return f"; ---- {text} ----\n"


def _check_names(text: str) -> None:
    """Raises `TypeError` if two rules share a name: a record, a structure and an alias may be called alike in Python."""
    names = re.findall(r"^([a-z][a-z0-9-]*) = ", text, re.MULTILINE)
    if twice := {name for name in names if names.count(name) > 1}:
        raise TypeError(f"two rules are called {', '.join(sorted(twice))}")

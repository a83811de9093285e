"""`fallow verify`: any signed record, offline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.markup import escape

from ..protocol.checks import Verdict
from ..protocol.envelope import Signed
from ..protocol.errors import Code, ConfigError, FallowError, RemoteProtocolError, StoreError
from ..protocol.evidence import Evidence
from ..protocol.identity import cid, peer_id
from ..protocol.limits import MANIFEST_BYTES_MAX, MESSAGE_BYTES_MAX
from ..protocol.opening import Opening, decode_opening_untrusted
from ..protocol.proofs import PROOF_BYTES_MAX, decode_proof_untrusted
from ..protocol.records import AnyRecord, check_evidence_untrusted, contradiction, identify_untrusted
from ..verifier.verdict import recompute, same
from .environment import AsJson, usable
from .output import Json, line, print_json, stdout

if TYPE_CHECKING:
    from .recheck import Rerun

PEERS = {"node", "executor", "payee", "witness"}
"""Fields whose key is a node's, written as its peer id. Other keys are written in hex."""
TIMES = {"issued_ms", "created_ms", "opened_ms", "not_before_ms", "expires_ms"}
"""Fields of milliseconds since 1970; others are durations."""
NOT_RECOMPUTED = "not recomputed"
OPENING = ".opening"
PROOF = ".proof"
OPENING_BYTES_MAX = 2 * MESSAGE_BYTES_MAX
SHOWN_ITEMS_MAX = 6
"""Of a list: a receipt's 32 proof values say nothing to a person."""
TEXT_SHOWN_MAX = 200


@dataclass(frozen=True, slots=True)
class _Checked:
    file: Path
    signed: Signed[AnyRecord] | None
    problem: FallowError | None
    borne_out: str = ""
    """Of a verdict or evidence: what came of holding it against the records that it rests on."""


def verify(
    files: Annotated[list[Path], Parameter(name="FILE", negative=())],
    /,
    *,
    recheck: Annotated[
        bool, Parameter(help="Run opened work again on this machine, which needs the bundle and the node's packages.")
    ] = False,
    json: AsJson = False,
) -> int:
    """Exit code 0 if every file holds a valid signed record, and what can be recomputed comes out the same.

    Parameters
    ----------
    files
        Signed records, or proofs (*.proof); of a directory, every *.cose and *.proof file in it, and every *.opening file:
        what was asked and answered.
    """
    expanded = _expand(files)
    opened = [_opening(file) for file in expanded if file.suffix == OPENING]
    proofs = [_proof(file) for file in expanded if file.suffix == PROOF]
    openings = [opening for opening in opened if isinstance(opening, Opening)]
    openings += [each for proof in proofs for each in proof.openings]
    single = [_check(file) for file in expanded if file.suffix not in (OPENING, PROOF)]
    checked = _refute([*single, *(each for proof in proofs for each in proof.checked)])
    known = {one.signed.id: one.signed for one in checked if one.signed and not one.problem}
    checked = [_bear_out(one, known, openings) for one in checked]
    checked += [one for one in opened if isinstance(one, _Checked)]
    reruns: list[Rerun] = []
    if recheck:
        from .recheck import recheck as run_again

        try:
            reruns = run_again(known.values(), openings)
        except ConfigError:
            if all(one.problem is None for one in checked):
                raise  # else what is wrong with the files is what to say: it is why there is nothing to run
    valid = all(c.problem is None for c in checked) and not any(again.objection for again in reruns)
    if json:
        said: dict[str, Json] = {"valid": valid, "files": [_as_json(c) for c in checked]}
        if recheck:
            said["rerun"] = [
                {"order": r.order.hex(), "node": peer_id(r.node), "entry": r.entry, "objection": r.objection or None}
                for r in reruns
            ]
        print_json(said)
    else:
        for one in checked:
            _show(one)
        for again in reruns:
            line(f"{'REFUTED' if again.objection else 'borne out'}  {again}")
    return 0 if valid else 1


def _expand(files: list[Path]) -> list[Path]:
    expanded: list[Path] = []
    for file in files:
        with usable("FILE", file):
            kinds = ("*.cose", f"*{OPENING}", f"*{PROOF}")
            found = sorted(each for kind in kinds for each in file.glob(kind)) if file.is_dir() else [file]
        if not found:
            raise StoreError(Code.BAD_CONFIG, f"The directory {file} holds no signed record (*.cose).")
        expanded += found
    return expanded


@dataclass(frozen=True, slots=True)
class _Proof:
    """What one file holds, record by record; or why it is no proof."""

    checked: list[_Checked]
    openings: list[Opening] = field(default_factory=list)


def _proof(file: Path) -> _Proof:
    try:
        with file.open("rb") as stream:
            whole = decode_proof_untrusted(stream.read(PROOF_BYTES_MAX + 1))
        openings = [decode_opening_untrusted(each) for each in whole.openings]
    except OSError as error:
        problem = StoreError(Code.CORRUPT_STORE, f"The file cannot be read: {error.strerror}.")
        return _Proof([_Checked(file, None, problem)])
    except RemoteProtocolError as error:
        return _Proof([_Checked(file, None, error)])
    return _Proof([_checked_record(file / f"{n:03d}", each) for n, each in enumerate(whole.records)], openings)


def _checked_record(name: Path, envelope: bytes) -> _Checked:
    try:
        return _Checked(name, identify_untrusted(envelope), None)
    except RemoteProtocolError as error:
        return _Checked(name, None, error)


def _check(file: Path) -> _Checked:
    try:
        with file.open("rb") as stream:
            return _checked_record(file, stream.read(MANIFEST_BYTES_MAX + 1))
    except OSError as error:
        return _Checked(file, None, StoreError(Code.CORRUPT_STORE, f"The file cannot be read: {error.strerror}."))


def _refute(checked: list[_Checked]) -> list[_Checked]:
    """Records that others among the files speak against are not valid either."""
    known = {c.signed.id: c.signed for c in checked if c.signed}
    result: list[_Checked] = []
    for one in checked:
        why = contradiction(one.signed, known) if one.signed else None
        error = RemoteProtocolError(Code.BAD_SIGNATURE, f"It contradicts another of the files: {why}.") if why else None
        result.append(_Checked(one.file, one.signed, one.problem or error))
    return result


def _opening(file: Path) -> Opening | _Checked:
    """What the file holds, or why it is no opening."""
    try:
        with file.open("rb") as stream:
            return decode_opening_untrusted(stream.read(OPENING_BYTES_MAX + 1))
    except OSError as error:
        return _Checked(file, None, StoreError(Code.CORRUPT_STORE, f"The file cannot be read: {error.strerror}."))
    except RemoteProtocolError as error:
        return _Checked(file, None, error)


def _bear_out(one: _Checked, known: dict[bytes, Signed[AnyRecord]], openings: list[Opening]) -> _Checked:
    """A verdict is recomputed, and evidence is checked for what it proves."""
    if one.signed is None or one.problem:
        return one
    match one.signed.record:
        case Verdict() as verdict:
            try:
                borne_out = same(recompute(verdict, known.values(), openings), verdict)
            except RemoteProtocolError as error:
                return replace(one, borne_out=f"{NOT_RECOMPUTED}: {error.message}")
            if borne_out:
                return replace(one, borne_out="recomputed from the records beside it: the same")
            return replace(
                one, problem=RemoteProtocolError(Code.REJECTED, "The records beside it support another verdict.")
            )
        case Evidence() as evidence:
            try:
                check_evidence_untrusted(evidence)
            except RemoteProtocolError as error:
                return replace(one, problem=error)
            return replace(one, borne_out="the records in it prove it")
        case _:
            return one


def _show(checked: _Checked) -> None:
    if checked.problem is not None:
        stdout.print(f"[bold red]NOT VALID[/]  {escape(str(checked.file))}", soft_wrap=True)
        line(f"  {checked.problem.message} [{checked.problem.code}]")
        return
    assert checked.signed is not None
    signed = checked.signed
    word = (
        "[bold yellow]signed, not recomputed[/]"
        if checked.borne_out.startswith(NOT_RECOMPUTED)
        else "[bold green]valid[/]"
    )
    stdout.print(f"{word}  {escape(str(checked.file))}: {signed.record.RECORD}", soft_wrap=True)
    rows = {"says": _meaning(signed.record), "signed by": f"{peer_id(signed.signer)} (key {signed.signer.hex()})"}
    if checked.borne_out:
        rows["borne out"] = checked.borne_out
    for name, words in (*rows.items(), ("id", signed.id.hex()), *_in_words(signed.record)):
        line(f"  {name:<20} {words}".rstrip())


def _as_json(checked: _Checked) -> Json:
    if checked.problem is not None:
        problem: Json = {"code": str(checked.problem.code), "message": checked.problem.message}
        return {"file": str(checked.file), "valid": False, "error": problem}
    assert checked.signed is not None
    signed = checked.signed
    return {
        "file": str(checked.file),
        "valid": True,
        "record": signed.record.RECORD,
        "says": _meaning(signed.record),
        "signer": {"peer_id": peer_id(signed.signer), "key": signed.signer.hex()},
        "id": signed.id.hex(),
        "borne_out": checked.borne_out or None,
        "fields": plain("", signed.record),
    }


def _meaning(record: AnyRecord) -> str:
    """What such a record says: the sentence with which its class is documented."""
    return (type(record).__doc__ or "").partition("\n")[0]


def _in_words(part: object) -> Iterator[tuple[str, str]]:
    """Each field's name and value; fields of what is nested stand below it, further in."""
    for each in fields(part):  # type: ignore[arg-type]  # a record or a part of one
        name, value = each.name.replace("_", " "), getattr(part, each.name)
        parts = [item for item in (value if isinstance(value, tuple) else (value,)) if is_dataclass(item)]
        if not parts:
            yield name, _words(each.name, value)
        for number, inner in enumerate(parts[:SHOWN_ITEMS_MAX], 1):
            yield name + (f" {number} of {len(parts)}" if isinstance(value, tuple) else ""), ""
            yield from ((f"  {label}", words) for label, words in _in_words(inner))


def _words(name: str, value: object) -> str:
    if isinstance(value, tuple):
        shown = "; ".join(_words(name, item) for item in value[:SHOWN_ITEMS_MAX])
        return shown + (f"; ... ({len(value)} in all)" if len(value) > SHOWN_ITEMS_MAX else "") or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name in TIMES:
        return _time(value)
    text = "not said" if value is None or value == "" else str(plain(name, value))
    return text if len(text) <= TEXT_SHOWN_MAX else f"{text[:TEXT_SHOWN_MAX]!r}... ({len(text)} characters)"


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # a record may name any 64-bit number; calendars end
        return f"{ms} ms after 1970"


def plain(name: str, value: object) -> Json:
    """For programs: everything, keys of nodes as peer ids, bundles as CIDs, other bytes in hex."""
    if isinstance(value, bytes):
        return peer_id(value) if name in PEERS else cid(value) if name == "bundle" else value.hex()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, tuple):
        return [plain(name, item) for item in value]
    return {field.name: plain(field.name, getattr(value, field.name)) for field in fields(value)}  # type: ignore[arg-type]  # a record or a part of one

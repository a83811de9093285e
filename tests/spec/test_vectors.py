"""Every vector, through the library's public functions; and whether the vectors cover what they have to."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fallow.protocol import errors
from fallow.protocol.errors import FallowError
from fallow.protocol.messages.codec import Message
from fallow.protocol.records import RECORDS
from spec.vectors.make.__main__ import main
from tests.spec.readers import judging, records, rules, sharing
from tests.spec.readers.notation import value_of, written

ROOT = Path(__file__).parent.parent.parent
FILES = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "spec/vectors").glob("*.json"))}
CASES = [(kind, case) for kind, file in FILES.items() for case in file["cases"]]

READERS: dict[str, Callable[..., dict[str, Any]]] = {
    "codec": records.codec,
    "framing": records.framing,
    "ed25519": records.ed25519,
    "envelope": records.envelope,
    "record": records.record,
    "message": records.message,
    "plaintext": records.plaintext,
    "identity": rules.identity,
    "names": rules.names,
    "published": rules.published,
    "digest": rules.digest,
    "transcript": rules.transcript,
    "price": rules.price,
    "policy": rules.policy,
    "audit": rules.audit,
    "sortition": rules.sortition,
    "mandate": rules.mandate,
    "profile": rules.profile,
    "witness": rules.witness,
    "order": rules.order,
    "job": rules.job,
    "delivery": rules.delivery,
    "channel": sharing.channel,
    "grid": sharing.grid,
    "evidence": sharing.evidence,
    "agreement": judging.agreement,
    "opening": judging.opening,
    "verdict": judging.verdict,
    "dispute": judging.dispute,
    "settlement": judging.settlement,
}


@pytest.mark.parametrize(("kind", "case"), [pytest.param(*each, id=each[1]["id"]) for each in CASES])
def test_vector(kind: str, case: dict[str, Any]) -> None:
    assert written(_read(kind, value_of(case["input"]))) == case["expect"]


def _read(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    try:
        return READERS[kind](**given)
    except FallowError as error:
        return {"code": str(error.code)}


def test_files_are_as_the_generator_writes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_stale_and_strange_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], tmp_path) == 0
    (tmp_path / "codec.json").write_text("{}", "utf-8")
    (tmp_path / "zebra.json").write_text("{}", "utf-8")
    capsys.readouterr()
    assert main(["--check"], tmp_path) == 1
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["codec.json", "zebra.json"]


def test_files_have_the_form_that_the_format_says() -> None:
    for kind, file in FILES.items():
        assert set(file) == {"format", "kind", "about", "cases"}
        assert (file["format"], file["kind"]) == (1, kind)
        assert any("code" in case["expect"] for case in file["cases"]) or kind in _NEVER_REFUSED, kind
    for kind, case in CASES:
        assert set(case) == {"id", "about", "requirements", "input", "expect"}
        assert case["id"].startswith(f"{kind}/")
        assert "code" not in case["expect"] or set(case["expect"]) <= {"code", "at"}


_NEVER_REFUSED = {"transcript", "price", "digest", "agreement"}
"""Kinds that compute something from any input."""


def test_there_are_enough_and_a_third_are_refused() -> None:
    ids = Counter(case["id"] for _, case in CASES)
    assert max(ids.values()) == 1
    assert len(CASES) >= 250
    assert 3 * sum("code" in case["expect"] for _, case in CASES) >= len(CASES)


def test_every_record_and_message_is_covered() -> None:
    for kind in ("record", "envelope"):
        good, bad = _covered(kind, "record")
        assert good == bad == set(RECORDS)
    read = {case["expect"]["kind"] for kind, case in CASES if kind == "message" and "kind" in case["expect"]}
    assert read == {message.KIND for message in Message.__args__}
    assert _covered("plaintext", "struct") == ({"Work", "Input", "Piece"},) * 2


def _covered(kind: str, name: str) -> tuple[set[str], set[str]]:
    """What the accepted and the refused cases of a kind are about."""
    sides: tuple[set[str], set[str]] = set(), set()
    for case in FILES[kind]["cases"]:
        sides["code" in case["expect"]].add(case["input"][name])
    return sides


def test_every_code_is_covered_that_a_rule_gives() -> None:
    """All that the pure packages raise; what only a running node says (busy, replayed, ...) is no rule of theirs."""
    modules = [path for package in ("protocol", "verifier") for path in sorted((ROOT / package).rglob("*.py"))]
    raised = {
        errors.Code[node.attr]
        for path in modules
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"
    }
    refused = {case["expect"]["code"] for _, case in CASES if "code" in case["expect"]}
    assert refused == {str(code) for code in raised}

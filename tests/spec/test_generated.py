"""What the specification takes from the code is what the code says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fallow.protocol.records import RECORDS
from spec.generate.__main__ import main
from spec.generate.cddl import message_kinds
from spec.generate.pages import block, fill
from spec.generate.source import documented
from spec.generate.tables import SIGNERS


def test_nothing_that_is_generated_is_stale(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_stale_files_are_named_and_then_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "09-limits.md"
    page.write_text("<!-- generated: limits -->\n<!-- end generated -->\n", "utf-8")
    assert main(["--check"], tmp_path) == 1
    assert [line.split()[1].rpartition("/")[2] for line in capsys.readouterr().out.splitlines()] == [
        "fallow.cddl",
        page.name,
    ]
    assert not (tmp_path / "fallow.cddl").exists()
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    assert "| `SKEW_MS` | 120000 ms (2 min) | Tolerance" in page.read_text("utf-8")


def test_an_error_says_which_page_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "01-page.md").write_text("<!-- generated: x -->\n<!-- end generated -->\n", "utf-8")
    with pytest.raises(LookupError, match=r"01-page\.md: nothing generates 'x'"):
        main([], tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *(f"record:{name}" for name in RECORDS),
        *(f"message:{kind.KIND}" for kind in message_kinds()),
        "struct:Price", "records", "messages", "protocols", "errors", "limits", "states:job", "states:channel",
    ],
)  # fmt: skip
def test_every_part_of_a_page_can_be_generated_and_stays_as_it_is(name: str) -> None:
    page = f"before\n<!-- generated: {name} -->\nstale\n<!-- end generated -->\nafter\n"
    filled = fill(page, {"01-page.md": page})
    assert filled.startswith(f"before\n<!-- generated: {name} -->\n")
    assert filled.endswith("|\n<!-- end generated -->\nafter\n")
    assert "stale\n" not in filled
    assert fill(filled, {"01-page.md": filled}) == filled


def test_the_index_of_records_links_the_page_that_has_the_table() -> None:
    page = "<!-- generated: record:mandate -->\n<!-- end generated -->\n"
    assert "| `mandate` | owner, or an issuer of the owner | [01-page](01-page.md) |" in block(
        "records", {"01-page.md": page}
    )
    assert set(SIGNERS) == set(RECORDS)


@pytest.mark.parametrize("name", ["record:nothing", "message:nothing", "struct:Nothing", "states:limits", "x"])
def test_a_name_that_nothing_generates_is_an_error(name: str) -> None:
    with pytest.raises(LookupError):
        block(name, {})


@pytest.mark.parametrize(
    "page",
    [
        "<!-- generated: limits -->\n",
        "<!-- end generated -->\n",
        "<!-- generated: limits -->\n<!-- generated: errors -->\n<!-- end generated -->\n",
        "<!-- generated -->\n<!-- end generated -->\n",
    ],
)
def test_marks_that_do_not_pair_are_an_error(page: str) -> None:
    with pytest.raises(LookupError):
        fill(page, {})


def test_docstrings_are_those_under_a_name_and_shared_only_with_lines_right_above() -> None:
    body = ast.parse(
        'A = 1\n"""Of A,\n   in two lines."""\nB: int = 2\nC = 3\n"""Of C."""\n\nD = 4\n\nE = 5\n"""Of E."""'
    ).body
    alone = {each.name: each.meaning for each in documented(body)}
    assert alone == {"A": "Of A, in two lines.", "B": "", "C": "Of C.", "D": "", "E": "Of E."}
    shared = {each.name: each.meaning for each in documented(body, shared=True)}
    assert shared == {**alone, "B": "Of C."}

"""Every MUST of the specification has an id that a test or a vector names, and every id that is named stands in a page.

A requirement is a list item that begins with its id, `- **[J-3]** The executor MUST ...`. A test names the ids that it
proves with `@pytest.mark.spec("J-3")`, a case of a vector file in its `requirements`.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = {path.name: path.read_text("utf-8") for path in sorted((ROOT / "spec").glob("[0-9][0-9]-*.md"))}
PREFIXES = dict(zip("NIDJAPGBELSW", range(12), strict=True))
"""The letter of an id -> the number of the page that it belongs to."""

_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
_ID = re.compile(r"\*\*\[([A-Z]-\d+)\]\*\* ")
_GENERATED = re.compile(r"^<!-- generated: .*?^<!-- end generated -->$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^([ \t]*)(```+|~~~+)[^\n]*\n.*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+).+?\1")


@dataclass(frozen=True)
class Paragraph:
    """Some lines of a page that belong together: a list item or a paragraph of prose."""

    where: str
    """Page and line, as an editor takes them."""
    text: str

    @property
    def demands(self) -> bool:
        return re.search(r"\bMUST\b", _CODE.sub("", self.text)) is not None

    @property
    def id(self) -> str | None:
        item = _ITEM.match(self.text)
        found = item and _ID.match(self.text, item.end())
        return found[1] if found else None


def paragraphs(page: str, text: str) -> Iterator[Paragraph]:
    """The paragraphs of a page in its own words: no code, no tables, no quotes, nothing generated."""
    for aside in (_GENERATED, _FENCED):
        text = aside.sub(lambda found: re.sub(r"[^\n]", "", found[0]), text)  # lines keep their numbers
    begun, lines = 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        aside_line = line.lstrip().startswith(("|", ">", "#"))
        if lines and (not line.strip() or aside_line or _ITEM.match(line)):
            yield Paragraph(f"spec/{page}:{begun}", "\n".join(lines))
            lines = []
        if line.strip() and not aside_line:
            begun = begun if lines else number
            lines.append(line)


def faults(pages: Mapping[str, str], named: Iterable[str]) -> list[str]:
    """Everything that is wrong between the pages and the ids that tests and vectors name; empty if all is well."""
    every = [each for page, text in pages.items() for each in paragraphs(page, text)]
    found = [f"{each.where}: a MUST without an id" for each in every if each.demands and not each.id]
    found += [f"{each.where}: {each.id} demands nothing" for each in every if each.id and not each.demands]
    found += [f"{each.where}: {each.id} belongs to another page" for each in every if each.id and not _at_home(each)]
    ids, named = Counter(each.id for each in every if each.id), set(named)
    found += [f"{id} stands {count} times" for id, count in ids.items() if count > 1]
    found += [f"{id} is named by no test and no vector" for id in ids if id not in named]
    written = {int(page[:2]) for page in pages}
    # A page that is still to be written has nothing to hold an id against.
    unknown = {id for id in named - ids.keys() if PREFIXES.get(id[:1], -1) in written or id[:1] not in PREFIXES}
    return found + [f"{id} is named, and no page has it" for id in sorted(unknown)]


def _at_home(paragraph: Paragraph) -> bool:
    number = paragraph.where.removeprefix("spec/")[:2]
    return PREFIXES.get(str(paragraph.id)[:1]) == int(number)


def named_by_test(source: str) -> Iterator[str]:
    """The ids in every `pytest.mark.spec(...)` of a test file that reaches a test: on `test_*`, on its cases, on its class,
    or as `pytestmark`. On anything else pytest runs nothing because of it."""
    yield from _named_in(ast.parse(source).body)


def _named_in(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name.startswith("test_"):
                yield from _markers(node.decorator_list)
            case ast.ClassDef() if node.name.startswith("Test"):
                tests = list(_named_in(node.body))
                runs = any(getattr(each, "name", "").startswith("test_") for each in node.body)
                yield from [*tests, *(_markers(node.decorator_list) if runs else ())]
            case ast.Assign(targets=[ast.Name(id="pytestmark")]):
                yield from _markers([node.value])
            case _:
                pass


def _markers(parts: Iterable[ast.AST]) -> Iterator[str]:
    for node in (each for part in parts for each in ast.walk(part)):
        match node:
            case ast.Call(func=ast.Attribute(attr="spec", value=ast.Attribute(attr="mark")), args=ids):
                yield from (id.value for id in ids if isinstance(id, ast.Constant) and isinstance(id.value, str))


def named_by_vectors(text: str) -> Iterator[str]:
    """The ids that the cases of a vector file name."""
    for case in json.loads(text)["cases"]:
        yield from case["requirements"]


def test_every_requirement_is_named_and_every_named_id_is_a_requirement() -> None:
    tests = (id for path in (ROOT / "tests").rglob("*.py") for id in named_by_test(path.read_text("utf-8")))
    vectors = (
        id for path in (ROOT / "spec/vectors").glob("*.json") for id in named_by_vectors(path.read_text("utf-8"))
    )
    found = faults(PAGES, {*tests, *vectors})
    assert not found, "\n".join(found)


PAGE = """\
# Jobs
> The word MUST is used as in RFC 2119.

- **[J-1]** The executor MUST answer
  within two seconds.
- **[J-2]** A client MUST NOT wait
  1. **[J-3]** and MUST say `MUST`.

| MUST | in a table |

```
MUST in code
```
<!-- generated: errors -->
MUST, generated.
<!-- end generated -->
A node may say `MUST` in code.
"""


def test_requirements_are_found_in_their_own_words_only() -> None:
    assert [each.id for each in paragraphs("03-jobs.md", PAGE)] == ["J-1", "J-2", "J-3", None]
    assert faults({"03-jobs.md": PAGE}, ["J-1", "J-2", "J-3"]) == []


@pytest.mark.parametrize(
    ("text", "named", "fault"),
    [
        ("A node MUST answer.", [], "spec/03-jobs.md:1: a MUST without an id"),
        ("\n- A node MUST answer.", [], "spec/03-jobs.md:2: a MUST without an id"),
        ("```\n\n```\n- A node\n  MUST answer.", [], "spec/03-jobs.md:4: a MUST without an id"),
        ("**[J-1]** A node MUST answer.", [], "spec/03-jobs.md:1: a MUST without an id"),
        ("- **[J-1]** A node answers.", ["J-1"], "spec/03-jobs.md:1: J-1 demands nothing"),
        ("- **[P-1]** A node MUST answer.", ["P-1"], "spec/03-jobs.md:1: P-1 belongs to another page"),
        ("- **[J-1]** MUST a.\n- **[J-1]** MUST b.", ["J-1"], "J-1 stands 2 times"),
        ("- **[J-1]** A node MUST answer.", [], "J-1 is named by no test and no vector"),
        ("Nothing.", ["J-9"], "J-9 is named, and no page has it"),
        ("Nothing.", ["X-1"], "X-1 is named, and no page has it"),
        ("Nothing.", ["J"], "J is named, and no page has it"),
    ],
)
def test_what_is_wrong_is_said_once_with_its_place(text: str, named: list[str], fault: str) -> None:
    assert faults({"03-jobs.md": text}, named) == [fault]


def test_a_page_that_is_not_written_yet_has_no_ids_to_miss() -> None:
    assert faults({"03-jobs.md": "Nothing."}, ["P-1"]) == []


def test_ids_are_read_from_markers_of_functions_cases_and_modules() -> None:
    source = """
pytestmark = pytest.mark.spec("N-1")

@pytest.mark.parametrize("case", [pytest.param(1, marks=pytest.mark.spec("J-1"))])
@pytest.mark.spec("J-2", "J-3")
def test_it(case): ...
"""
    assert set(named_by_test(source)) == {"N-1", "J-1", "J-2", "J-3"}


def test_a_marker_that_reaches_no_test_names_nothing() -> None:
    source = """
@pytest.mark.spec("N-1")
def histories(draw): ...

@pytest.mark.spec("N-2")
class Model: ...

@pytest.mark.spec("N-3")
class TestNothing:
    @pytest.mark.spec("N-4")
    def step(self): ...

def test_it():
    pytest.mark.spec("N-5")

class TestIt:
    pytestmark = pytest.mark.spec("J-1")

    @pytest.mark.spec("J-2")
    async def test_that(self): ...
"""
    assert set(named_by_test(source)) == {"J-1", "J-2"}


def test_ids_are_read_from_vectors() -> None:
    text = '{"cases": [{"requirements": ["I-1"]}, {"requirements": ["I-2", "N-4"]}, {"requirements": []}]}'
    assert list(named_by_vectors(text)) == ["I-1", "I-2", "N-4"]

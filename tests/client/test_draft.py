"""What the reader is shown: only what is new, and a withdrawal only where the text really changes."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.client.answers import Chunk
from fallow.client.draft import Draft
from fallow.client.tokenizer import Tokenizer

END = 0
NODE = b"\x01" * 32


class Letters:
    """A tokenizer of one letter a token; the end is not shown. The real ones are tested with their bundles."""

    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(96 + token) for token in tokens if token != END)


def draft(max_tokens: int = 10, stop: tuple[str, ...] = ()) -> Draft:
    return Draft(cast(Tokenizer, Letters()), [END], max_tokens, stop)


def write(target: Draft, letters: str) -> list[Chunk]:
    shown = []
    for letter in letters:
        target.add((ord(letter) - 96,), (-1,))
        if chunk := target.show(NODE):
            shown.append(chunk)
    return shown


def read(chunks: list[Chunk]) -> str:
    """What somebody sees who follows the chunks."""
    text = ""
    for chunk in chunks:
        assert chunk.retracted or chunk.length == len(text)
        text = text[: chunk.length] + chunk.text
    return text


def test_chunks_add_up_to_the_text() -> None:
    target = draft()
    assert read(write(target, "hello")) == target.text == "hello"
    assert target.finish_reason is None and not target.ended


def test_rewriting_the_same_shows_nothing_twice() -> None:
    target = draft()
    chunks = write(target, "hello")
    target.cut(2)
    assert write(target, "llo") == []
    chunks += write(target, "x")
    assert read(chunks) == "hellox" and not any(chunk.retracted for chunk in chunks)


def test_another_text_withdraws_from_where_it_differs() -> None:
    target = draft()
    chunks = write(target, "hello")
    target.cut(2)
    chunks += write(target, "lp")
    assert [(c.text, c.length) for c in chunks if c.retracted] == [("p", 3)]
    assert read(chunks) == "help"


def test_a_shorter_end_is_withdrawn_too() -> None:
    target = draft(stop=("z",))
    chunks = write(target, "hello")
    target.cut(2)
    chunks += write(target, "z")
    assert read(chunks) == target.text == "he" and target.finish_reason == "stop"


@pytest.mark.parametrize(
    ("letters", "stop", "text", "reason"),
    [
        ("abcdefghij", (), "abcdefghij", "length"),
        ("abc`", (), "abc", "stop"),
        ("abcd", ("c",), "ab", "stop"),
        ("abcd", ("cd", "bc"), "a", "stop"),
        ("abc", ("x",), "abc", None),
    ],
)
def test_how_a_text_ends(letters: str, stop: tuple[str, ...], text: str, reason: str | None) -> None:
    target = draft(stop=stop)
    write(target, letters)
    assert (target.text, target.finish_reason) == (text, reason)


@given(st.lists(st.tuples(st.integers(0, 8), st.text("abc", max_size=5)), max_size=6))
def test_whatever_is_cut_and_rewritten_the_reader_ends_with_the_text(history: list[tuple[int, str]]) -> None:
    target = draft(max_tokens=8)
    chunks: list[Chunk] = []
    for position, letters in history:
        target.cut(position)
        chunks += write(target, letters[: 8 - len(target.tokens)])
    target.cut(0)
    chunks += write(target, "abcabcab")
    assert read(chunks) == target.text == "abcabcab"


def test_what_is_verified_is_told_in_characters() -> None:
    target = draft()
    write(target, "abc")
    target.verified = 2
    assert write(target, "d")[0].verified_length == 2

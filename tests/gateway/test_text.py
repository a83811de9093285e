"""Settled text: what is given out is never taken back, and in the end all of the text has been given out."""

from hypothesis import given
from hypothesis import strategies as st

from fallow.client.answers import Chunk
from fallow.client.gateway_text import SettledText


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Chunk], str]:
    """A text as a client streams it: it grows, is settled up to somewhere, and may be cut back to there."""
    text, settled, chunks = "", 0, []
    for piece in draw(st.lists(st.text("abc", max_size=4), max_size=12)):
        kept = draw(st.integers(settled, len(text)))
        chunk_text, text = piece, text[:kept] + piece
        settled = draw(st.integers(settled, len(text)))
        chunks.append(Chunk(chunk_text, "peer", kept, kept < len(text), settled))
    return chunks, text + draw(st.text("abc", max_size=3))


@given(streams())
def test_given_text_is_a_prefix_of_the_answer_and_finally_all_of_it(stream: tuple[list[Chunk], str]) -> None:
    chunks, answer = stream
    settled, given_out = SettledText(), ""
    for chunk in chunks:
        given_out += settled.take(chunk)
        assert len(given_out) == chunk.verified_length
        assert answer.startswith(given_out)
    assert given_out + settled.finish(answer) == answer

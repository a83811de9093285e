"""Classes of arithmetic: what of a node's class a result may claim."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fallow.protocol.numerics import is_within, narrowed

VARIANTS = ("1x256", "1x1024", "4x256", "8x256")
WHOLE = "float32/jaxlib-0.10.2/cpu/avx512/" + "+".join(VARIANTS)
TEXTS = st.text("/+x14", max_size=8)


@given(st.sets(st.sampled_from((*VARIANTS, "16x256"))))
def test_what_ran_is_within_what_may_run(ran: set[str]) -> None:
    part = narrowed(WHOLE, ran)
    assert is_within(part, WHOLE)
    kept = part.rpartition("/")[2].split("+")
    assert kept == [each for each in VARIANTS if each in ran] or (kept == list(VARIANTS) and not ran & set(VARIANTS))


@given(TEXTS, TEXTS)
def test_nothing_else_is(part: str, whole: str) -> None:
    """By another way: the machine's part is the same, and the variants are some of the whole's, in its order."""
    machine, slash, variants = part.rpartition("/")
    of_machine, of_slash, of_variants = whole.rpartition("/")
    names, wanted = of_variants.split("+"), variants.split("+")
    chosen = [each for each in names if each in wanted]
    expected = (machine, slash) == (of_machine, of_slash) and wanted == chosen
    assert is_within(part, whole) is expected

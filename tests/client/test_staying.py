"""Whom a client has seen leave is asked less, by this process and the next; and nothing of it is published."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from fallow.client.scheduler import EXPLORE, Experience, choose
from fallow.client.team import Team
from fallow.node.book import BOOK, Book, Profile

from .test_scheduler import BUNDLE, NEED, node


async def test_who_leaves_often_is_asked_less_and_the_next_process_knows(tmp_path: Path) -> None:
    stays, leaves = node(1, rtt_ms=50.0), node(2, rtt_ms=1.0)
    forgotten: list[bytes] = []
    with closing(Book(tmp_path / BOOK, lambda: 1)) as book:
        experience = Experience(met=book.get)
        discovery, desk = SimpleNamespace(forget=forgotten.append), SimpleNamespace(book=book)
        team = Team(cast(Any, desk), cast(Any, discovery), experience, Random(1), *cast(Any, (None, None, None)))
        for each in (stays, leaves):
            book.answered(each.key, (), (BUNDLE,), 1000, Profile(b"", b"", b""))
            for _ in range(8):
                book.worked(each.key, well=True)  # every receipt was paid, the last one of those who left, too
        before = [
            choose([stays, leaves], NEED, Experience(met=book.get), set(), (), 0, Random(seed)) for seed in range(200)
        ]
        for _ in range(8):
            team.left(leaves, 10, 100)
        assert forgotten == [leaves.key] * 8
        assert experience.recent_failures(leaves.key, 0) > 0
    with closing(Book(tmp_path / BOOK, lambda: 2)) as book:
        picks = [
            choose([stays, leaves], NEED, Experience(met=book.get), set(), (), 0, Random(seed)) for seed in range(500)
        ]
    assert sum(pick is leaves for pick in before) > 100
    assert 0 < sum(pick is leaves for pick in picks) < 500 * EXPLORE

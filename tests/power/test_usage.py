"""What jobs used, kept for the owner's statement: each figure with what counted it, or which model stood in."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fallow.node.books import period_of, statement
from fallow.node.power.account import CALIBRATED, GUESS, MODEL, Account, Used
from fallow.node.power.usage import KEPT_MS, USAGE, UsageBook, UsedBy, used_between
from fallow.node.rules.worth import Draw

YEAR = period_of("2026")


@pytest.fixture(autouse=True)
def in_2026(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fallow.node.power.usage.wall_ms", lambda: YEAR.begins_ms + 1)


def test_each_source_has_its_sum_and_says_whether_it_measured(tmp_path: Path) -> None:
    price = [300_000.0]
    book = UsageBook(tmp_path, lambda: price[0])
    assert used_between(tmp_path, 0, 2**62) == ()
    book.note(b"1", Used(3_600.0, "rapl+nvml"))
    price[0] = 600_000.0  # dearer at this hour
    book.note(b"2", Used(7_200.0, "rapl+nvml"))
    book.note(b"3", Used(360.0, GUESS))
    book.write()
    book.note(b"3", Used(360.0, GUESS))  # told twice, it is one job all the same
    book.write()
    measured, guessed = used_between(tmp_path, YEAR.begins_ms, YEAR.ends_ms)
    assert measured == UsedBy("rapl+nvml", 2, 10_800_000, pytest.approx(300.0 + 1_200.0))
    assert guessed == UsedBy(GUESS, 1, 360_000, pytest.approx(60.0))
    assert (measured.measured, guessed.measured) == (True, False)
    assert str(measured) == "3.000 Wh of 2 jobs measured by rapl+nvml"
    assert str(guessed) == "0.100 Wh of 1 jobs estimated (guess)"
    assert used_between(tmp_path, YEAR.ends_ms, 2**62) == ()
    assert (tmp_path / USAGE).stat().st_mode & 0o777 == 0o600


def test_every_model_says_that_it_is_one() -> None:
    assert [UsedBy(source, 1, 1, 0.0).measured for source in (MODEL, CALIBRATED, GUESS, "rapl", "nvml", "battery")] == [
        False, False, False, True, True, True,
    ]  # fmt: skip


async def test_a_job_that_ends_is_noted_with_its_order(tmp_path: Path) -> None:
    heard: list[tuple[bytes, Used]] = []
    account = Account([], Draw(0, 60), Draw(0, 1), clock := Clock())
    account.on_used = lambda order, used: heard.append((order, used))
    begun = await account.begin()
    clock.now_s = 5.0
    await account.end(begun, b"order")
    assert heard == [(b"order", Used(300.0, MODEL))]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_statement_reckons_with_it_unless_the_owner_knows_better(tmp_path: Path) -> None:
    assert statement(tmp_path, YEAR).totals.energy_ucr is None
    book = UsageBook(tmp_path, lambda: 300_000.0)
    book.note(b"1", Used(3_600.0, "battery"))
    book.write()
    found = statement(tmp_path, YEAR)
    assert (found.totals.energy_ucr, found.totals.net_ucr, found.used[0].source) == (300, -300, "battery")
    assert statement(tmp_path, YEAR, 7).totals.energy_ucr == 7


def test_a_file_that_is_none_costs_its_figures_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / USAGE).write_bytes(b"no database" * 100)
    book = UsageBook(tmp_path, lambda: 1.0)
    book.note(b"1", Used(1.0, "rapl"))
    book.write()
    assert used_between(tmp_path, 0, 2**62) == ()


def test_old_figures_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = UsageBook(tmp_path, lambda: 1.0)
    for at_ms in (YEAR.begins_ms, YEAR.begins_ms + KEPT_MS + 1):
        monkeypatch.setattr("fallow.node.power.usage.wall_ms", lambda at_ms=at_ms: at_ms)
        book.note(at_ms.to_bytes(8), Used(1.0, "rapl"))
        book.write()
    with closing(sqlite3.connect(tmp_path / USAGE)) as db:
        assert db.execute("SELECT count(*) FROM used").fetchone() == (1,)

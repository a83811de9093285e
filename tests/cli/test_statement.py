"""`fallow statement`: to the micro-credit, each with its receipt, and in the words of other people's books."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
from collections import Counter
from contextlib import closing
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fallow.cli import ledger_text, run
from fallow.node.books import Statement, period_of, statement
from fallow.node.earnings import earnings
from fallow.node.journal import Journal
from fallow.node.paid import Payment
from fallow.protocol.errors import ConfigError
from fallow.protocol.limits import SKEW_MS

from .test_settle import PAYER, Say, fill, say

__all__ = ["say"]

NOVEMBER, DECEMBER = period_of("2026-11"), period_of("2026-12")
PAYER_KEY = bytes(PAYER.verify_key)
JUDGE_KEY = bytes([9]) * 32
SECOND = SigningKey(bytes([2] * 32))


def pay(state: Path, ucr: int, fee_ucr: int = 0, *, at_ms: int = NOVEMBER.begins_ms, reference: str = "x") -> None:
    with closing(Journal(state)) as journal:
        number = len(reference).to_bytes(32, "big")
        journal.add_payment(Payment(number, PAYER_KEY, "bank", ucr, fee_ucr, reference, at_ms))


RELEASE_MS = DECEMBER.begins_ms + 5 * 86_400_000


def hold(state: Path) -> None:
    """Two payers' jobs of November, half of whose pay is held until December, and some of one's forfeited; each has another job
    that is not paid for."""
    fill(state, (1_000, 600, 7), held_ppm=500_000, release_ms=RELEASE_MS, forfeited_ucr=80)
    fill(state, (400, 3), payer_key=SECOND, held_ppm=500_000, release_ms=RELEASE_MS)


def test_what_was_held_at_the_months_end_is_called_released_once_it_is(tmp_path: Path, say: Say) -> None:
    hold(tmp_path)
    held = statement(tmp_path, NOVEMBER, now_ms=NOVEMBER.ends_ms).totals
    assert (held.owed_ucr, held.unpaid_ucr) == (2_010, 10)
    assert (held.due_ucr, held.held_ucr, held.released_ucr, held.forfeited_ucr) == (1_000, 920, 0, 80)
    later = statement(tmp_path, NOVEMBER, now_ms=RELEASE_MS + SKEW_MS).totals
    assert (later.due_ucr, later.held_ucr, later.released_ucr, later.forfeited_ucr) == (1_920, 0, 920, 80)
    assert later.net_ucr == 1_920
    said = say("statement", "--month", "2026-11", "--state", tmp_path)["totals"]
    assert said["forfeited_ucr"] == 80
    assert said["due_ucr"] + said["held_ucr"] == 1_920


def judge(state: Path, party: bytes, ucr: int, *, at_ms: int = NOVEMBER.begins_ms, number: int = 0) -> None:
    with closing(Journal(state)) as journal:
        journal.add_fees(number.to_bytes(32, "big"), {party: ucr}, at_ms)


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "26-11", "2026-1", "2026-11-01", "november", "", "٢٠٢٦"])
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(ConfigError):
        period_of(text)


def test_months_fill_their_year() -> None:
    months = [period_of(f"2026-{month:02d}") for month in range(1, 13)]
    assert all(one.ends_ms == next.begins_ms for one, next in pairwise(months))
    year = period_of("2026")
    assert (year.begins_ms, year.ends_ms) == (months[0].begins_ms, months[-1].ends_ms)
    assert period_of("2024-02").ends_ms - period_of("2024-02").begins_ms == 29 * 86_400_000


def test_a_month_names_every_receipt_and_payment(tmp_path: Path, say: Say) -> None:
    fill(tmp_path, (100, 50, 7))
    pay(tmp_path, 120, 2)
    said = say("statement", "--month", "2026-11", "--state", tmp_path, "--energy-wh", "3", "--kwh-ucr", "1500")
    assert said["totals"] == {
        "owed_ucr": 157, "due_ucr": 150, "held_ucr": 0, "released_ucr": 0, "forfeited_ucr": 0, "unpaid_ucr": 7,
        "settled_ucr": 120, "fee_ucr": 2, "energy_ucr": 5, "net_ucr": 143,
    }  # fmt: skip
    receipts = [line["id"] for line in said["lines"] if line["kind"] == "credit"]
    assert receipts == [row.receipt.hex() for row in earnings(tmp_path)]
    assert list(said["payers"]) == [PAYER_KEY.hex()]
    assert say("statement", "--month", "2026-12", "--state", tmp_path)["lines"] == []


def test_the_fee_of_a_dispute_is_a_line_of_its_own(tmp_path: Path, say: Say) -> None:
    fill(tmp_path, (100, 50))
    judge(tmp_path, PAYER_KEY, 9)
    for number in (1, 2):
        judge(tmp_path, bytes([number]) * 32, -3)
    said = say("statement", "--month", "2026-11", "--state", tmp_path)
    assert (said["totals"]["fee_ucr"], said["totals"]["net_ucr"]) == (-3, 103)
    assert {key: totals["fee_ucr"] for key, totals in said["payers"].items()} == {
        PAYER_KEY.hex(): -9, (bytes([1]) * 32).hex(): 3, (bytes([2]) * 32).hex(): 3,
    }  # fmt: skip
    owed = say("settle", "--state", tmp_path)["debts"]
    assert [(row["payer"], row["owed_ucr"], row["open_ucr"]) for row in owed] == [(PAYER_KEY.hex(), 159, 109)]


def test_a_spreadsheet_gets_the_same_and_no_formula(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, (100, 50, 7))
    pay(tmp_path, 120, 2, reference='=HYPERLINK("x")')
    assert run(["statement", "--year", "2026", "--state", str(tmp_path), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sum(int(row["due_ucr"]) for row in rows) == 150
    assert [row["reference"] for row in rows if row["settled_ucr"] != "0"] == ['\'=HYPERLINK("x")']


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--month", "2026-11", "--year", "2026"),
        ("--month", "2026-11", "--csv", "--hledger"),
        ("--month", "2026-11", "--columns", "x.toml", "--out", "x"),
        ("--year", "2026", "--columns", "x.toml"),
        ("--month", "2026-11", "--energy-wh", "-1"),
    ],
)
def test_what_is_asked_for_in_two_ways_is_not_given(tmp_path: Path, say: Say, words: tuple[str, ...]) -> None:
    assert "[bad_config]" in say("statement", *words, "--state", tmp_path, code=1)


FORM = """
rows_max = 1
currency_per_credit = "0.5"
[[column]]
name = "Payer"
field = "payer"
[[column]]
name = "Box 1"
field = "due"
decimals = 6
[[column]]
name = "Form"
text = "NEC"
"""


def test_a_year_in_the_columns_of_a_form(tmp_path: Path) -> None:
    fill(tmp_path, (100, 50, 7))
    (tmp_path / "form.toml").write_text(FORM)
    words = ["--year", "2026", "--state", str(tmp_path), "--columns", str(tmp_path / "form.toml")]
    assert run(["statement", *words, "--out", str(tmp_path / "forms")]) == 0
    (path,) = (tmp_path / "forms").iterdir()
    assert path.name == "2026-1.csv"
    assert path.read_text().splitlines() == ["Payer,Box 1,Form", f"{PAYER_KEY.hex()},0.000075,NEC"]


def test_a_form_that_is_full_is_followed_by_another(tmp_path: Path) -> None:
    hold(tmp_path)
    (tmp_path / "form.toml").write_text(FORM)
    words = ["--year", "2026", "--state", str(tmp_path), "--columns", str(tmp_path / "form.toml")]
    assert run(["statement", *words, "--out", str(tmp_path / "forms")]) == 0
    rows = [path.read_text().splitlines() for path in sorted((tmp_path / "forms").iterdir())]
    due = {key.hex(): totals.due_ucr for key, totals in statement(tmp_path, period_of("2026")).payers().items()}
    assert [head for head, _ in rows] == ["Payer,Box 1,Form"] * 2
    assert [row for _, row in rows] == [f"{key},{ucr / 2_000_000:.6f},NEC" for key, ucr in due.items()]


@pytest.mark.parametrize(
    "form",
    [
        "", "rows_max = 0\n[[column]]\nname='a'\ntext='b'", "[[column]]\nname='a'", "[[column]]\nname='a'\nfield='all'",
        "currency_per_credit = '0'\n[[column]]\nname='a'\ntext='b'", "other = 1",
        "[[column]]\nname='a'\nfield='due'\ndecimals=9",
        "currency_per_credit = 'much'\n[[column]]\nname='a'\ntext='b'", "column = 3", "[", "[[column]]\nname=1\ntext='b'",
    ],
)  # fmt: skip
def test_a_form_that_is_none(tmp_path: Path, say: Say, form: str) -> None:
    (tmp_path / "form.toml").write_text(form)
    words = ("--year", "2026", "--state", tmp_path, "--columns", tmp_path / "form.toml", "--out", tmp_path / "forms")
    assert "form.toml" in say("statement", *words, code=1)


AMOUNTS = st.lists(st.integers(1, 3_000_000), min_size=1, max_size=6)
PAID = st.lists(st.tuples(st.integers(1, 3_000_000), st.integers(0, 100)), max_size=3)
JUDGED = st.lists(st.tuples(st.booleans(), st.integers(-9_000, 9_000)), max_size=3)
DAYS = st.integers(0, 60)


@settings(max_examples=25, deadline=None)
@given(AMOUNTS, PAID, JUDGED, DAYS)
def test_sums_reconcile_to_the_micro_credit(
    amounts: list[int], paid: list[tuple[int, int]], judged: list[tuple[bool, int]], days: int
) -> None:
    """Periods with the whole, lines with sums, and both kinds of ledger with the statement."""
    with TemporaryDirectory() as folder:
        state = Path(folder)
        fill(state, tuple(amounts), at_ms=NOVEMBER.begins_ms + days * 86_400_000)
        for number, (ucr, fee_share) in enumerate(paid):
            pay(state, ucr, ucr * fee_share // 100, at_ms=NOVEMBER.begins_ms + number, reference="x" * (number + 1))
        for number, (of_payer, ucr) in enumerate(judged):
            judge(
                state,
                PAYER_KEY if of_payer else JUDGE_KEY,
                ucr,
                at_ms=NOVEMBER.begins_ms + number * 86_400_000,
                number=number,
            )
        rows = earnings(state)
        months = [statement(state, period_of(f"2026-{month:02d}")).totals for month in (11, 12)]
        year = statement(state, period_of("2026"), 12_345)
    totals = year.totals
    for name in ("owed_ucr", "due_ucr", "held_ucr", "forfeited_ucr", "unpaid_ucr", "settled_ucr", "fee_ucr"):
        assert getattr(totals, name) == sum(getattr(month, name) for month in months)
    assert totals.owed_ucr == sum(row.owed_ucr for row in rows) == sum(amounts)
    assert totals.owed_ucr == totals.due_ucr + totals.held_ucr + totals.forfeited_ucr + totals.unpaid_ucr
    assert totals.net_ucr == totals.due_ucr - totals.fee_ucr - 12_345
    for text in (ledger_text.hledger(year), ledger_text.beancount(year)):
        assert booked(text) == expected(year)


def expected(year: Statement) -> dict[str, int]:
    totals, due, held = year.totals, Counter[str](), Counter[str]()
    for key, each in year.payers().items():
        due[f"Assets:Due:P{key.hex()[:16]}"] = each.due_ucr - each.settled_ucr
        held[f"Assets:Held:P{key.hex()[:16]}"] = each.held_ucr
    for fee in year.fees:
        due[f"Assets:Due:P{fee.party.hex()[:16]}" if fee.ucr > 0 else "Assets:Rails:Ledger"] += fee.ucr
    return {
        account: ucr
        for account, ucr in {
            **due, **held, "Income:Work": -totals.due_ucr - totals.held_ucr - totals.forfeited_ucr,
            "Expenses:Forfeited": totals.forfeited_ucr, "Expenses:Fees": totals.fee_ucr,
            "Expenses:Energy": totals.energy_ucr or 0, "Liabilities:Energy": -(totals.energy_ucr or 0),
            "Assets:Rails:Bank": totals.settled_ucr - sum(payment.fee_ucr for payment in year.payments),
        }.items()
        if ucr
    }  # fmt: skip


def booked(text: str) -> dict[str, int]:
    """What stands on each account in the end, by the text alone; every transaction comes to nothing, with accounts that
    were opened before."""
    balance, one, opened = Counter[str](), 0, set[str]()
    for line in text.splitlines():
        if found := re.match(r"account (\S+)$|\d{4}-\d\d-\d\d open (\S+) FCR$", line):
            opened.add(found[1] or found[2])
        elif found := re.match(r"  +([A-Z][A-Za-z0-9:-]*)  (-?\d+\.\d{6}) FCR$", line):
            assert found[1] in opened
            ucr = int(Decimal(found[2]) * 1_000_000)
            balance[found[1]] += ucr
            one += ucr
        elif not line:
            assert one == 0
    assert one == 0
    return {account: ucr for account, ucr in balance.items() if ucr}


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        if os.environ.get("FALLOW_NEED_ALL"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed: `apt-get install {name}` on Debian")
    return path


def test_hledger_accepts_it_and_comes_to_the_same(tmp_path: Path) -> None:
    hledger = tool("hledger")
    state, journal = tmp_path / "state", tmp_path / "november.journal"
    fill(state, (1_234_567, 50, 7), held_ppm=250_000, release_ms=RELEASE_MS, forfeited_ucr=1_234)
    fill(state, (400, 3), payer_key=SECOND)
    pay(state, 1_000_000, 12)
    judge(state, PAYER_KEY, 9)
    judge(state, JUDGE_KEY, -3, number=1)
    found = statement(state, NOVEMBER, 99, now_ms=NOVEMBER.ends_ms)
    assert min(found.totals.held_ucr, found.totals.forfeited_ucr, found.totals.fee_ucr) > 0
    journal.write_text(ledger_text.hledger(found))
    subprocess.run([hledger, "-f", journal, "check", "--strict", "ordereddates"], check=True, timeout=60)
    shown = subprocess.run(
        [hledger, "-f", journal, "balance", "--flat", "--no-total", "-O", "csv"],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    rows = {row["account"]: row["balance"] for row in csv.DictReader(io.StringIO(shown))}
    assert {
        account: int(Decimal(text.split()[0].replace(",", "")) * 1_000_000) for account, text in rows.items()
    } == expected(found)

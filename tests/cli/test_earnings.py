"""`fallow earnings` by day and month, and what other preferences would have brought, to the micro-credit."""

from __future__ import annotations

from pathlib import Path

import pytest

from fallow.node import whatif
from fallow.node.diary import Diary, Passed
from fallow.node.income import begin_ms, day_name, local_day
from fallow.node.log import wall_ms
from fallow.node.rules.hours import Now
from fallow.node.rules.policy import Rules
from fallow.node.rules.preferences import parse
from fallow.node.rules.replay import Moment
from fallow.node.rules.signals import Signal
from fallow.node.rules.worth import Draw

from .test_settle import Say, fill, say

__all__ = ["say"]

MINUTE = 60_000
YESTERDAY = local_day(wall_ms()) - 1
NOON = begin_ms(YESTERDAY) + 12 * 60 * MINUTE


def keep_diary(state: Path) -> None:
    """Yesterday, from noon on: two hours lent at 60 %, which cost 12 ucr, and two more at 45 %."""
    wants = parse({"preferences": {"battery_charge_min_pct": 50}}, "vehicle", sensed=True)
    kept = Diary(state, whatif.kept_rules(Rules("vehicle", wants, 0, Draw(0, 100), sensed=True)))
    for minute in range(4 * 60 + 1):
        soc = 60 if minute < 120 else 45
        known = (("car", Signal.SPEED_KMH, 0.0), ("car", Signal.SOC_PCT, float(soc)), ("car", Signal.PLUGGED, True))
        lent = 0 < minute <= 120
        passed = Passed(MINUTE if minute else 0, lent, 36.0 * lent, 0.08 * lent, 0.02 * lent)
        now = Now(10**6 + minute * MINUTE, NOON + minute * MINUTE, -begin_ms(0))
        kept.write(
            Moment(now, kept.run, known, draw=Draw(0, 100)),
            frozenset() if soc == 60 else frozenset({"soc_pct"}),
            passed,
        )
    kept.close()


def test_days_and_months_have_what_fell_due_and_what_it_cost(tmp_path: Path, say: Say) -> None:
    fill(tmp_path, (100, 50, 7), at_ms=NOON)
    keep_diary(tmp_path)
    found = say("earnings", "--state", tmp_path, "--by", "day", "--days", "2")
    (day,) = found["sums"]
    assert day == {
        "name": day_name(YESTERDAY), "receipts": 3, "due_ucr": 150, "held_ucr": 0, "unpaid_ucr": 7, "energy_ucr": 10,
        "wear_ucr": 3, "energy_wh": 1, "lent_min": 120, "withheld_min": 120, "net_ucr": 137,
    }  # fmt: skip
    assert found["total"] == {**day, "name": "total"}
    (month,) = say("earnings", "--state", tmp_path, "--by", "month")["sums"]
    assert month == {**day, "name": day_name(YESTERDAY)[:7]}


def test_without_a_diary_the_costs_are_not_known(tmp_path: Path, say: Say) -> None:
    fill(tmp_path, (100, 7), at_ms=NOON)
    (day,) = say("earnings", "--state", tmp_path, "--by", "day")["sums"]
    assert (day["due_ucr"], day["net_ucr"], day["energy_ucr"], day["lent_min"]) == (100, 100, None, None)
    assert "No diary" in say("earnings", "--state", tmp_path, "--what-if", "margin_pct=3", code=1)


def test_a_lower_floor_would_have_lent_twice_as_long(tmp_path: Path, say: Say) -> None:
    fill(tmp_path, (100, 50, 7), at_ms=NOON)
    keep_diary(tmp_path)
    asked = ("earnings", "--state", tmp_path, "--what-if", "battery_charge_min_pct=40")
    found = say(*asked)
    assert (found["lent_h"], found["would_h"], found["changes"]) == (2, 4, {"battery_charge_min_pct": 40})
    # 150 ucr less 13 of costs in two hours; two hours more.
    assert (found["more_ucr"], found["withheld_alone_h"]) == (137, {"soc_pct": 2})
    assert found["assumption"] == whatif.ASSUMPTION
    both = say(*asked, "--what-if", "unplugged_charge_min_pct=45", "--days", "3")
    assert both["changes"] == {"battery_charge_min_pct": 40, "unplugged_charge_min_pct": 45}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--what-if", "soc_floor=40"), "no such preference"),
        (("--what-if", "battery_charge_min_pct=400"), "from 0 to 100"),
        (("--days", "0"), "one to"),
        (("--days", "100000"), "one to"),
    ],
)
def test_a_wrong_question_is_told_why(tmp_path: Path, say: Say, words: tuple[str, ...], why: str) -> None:
    keep_diary(tmp_path)
    assert why in say("earnings", "--state", tmp_path, *words, code=1)


def test_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fallow.cli import run

    fill(tmp_path, (100, 50, 7), at_ms=NOON)
    keep_diary(tmp_path)
    assert run(["earnings", "--state", str(tmp_path), "--by", "day"]) == 0
    assert day_name(YESTERDAY) in capsys.readouterr().out
    assert run(["earnings", "--state", str(tmp_path), "--what-if", "battery_charge_min_pct=40"]) == 0
    said = capsys.readouterr().out
    assert (
        "With battery_charge_min_pct = 40 it would have been lent 2.0 h more than the 2.0 h that it was: about 137 ucr"
        in said
    )
    assert "2.0 h it was not lent for `soc_pct` alone." in said

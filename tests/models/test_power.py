"""A tolerance against everybody who might cheat, with a tiny bundle; and one that separates nothing is not published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fallow.models.calibrating import calibrated, republished
from fallow.models.plot import histograms
from fallow.node.engine.bundles import BundleStore
from fallow.node.trust import TrustList
from fallow.verifier.compare import refutes


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    return new_home()


def test_adversaries_are_told_apart_and_published_with_their_rates(home: Path) -> None:
    before = BundleStore(home / "store").find("tiny-chat")
    assert before is not None
    report = calibrated(
        home, "tiny-chat", 4, 34, refutes=refutes, anew=False, on_progress=lambda _stage, _fraction: None
    )
    assert {"honest", "int8-weights", "int4-weights", "bfloat16-weights", "fine-tuned-model", "truncated-context",
            "other-seed", "other-temperature", "other-top-p", "output-of-another-prompt", "flipped-tokens",
            "early-stop", "cheap-text-scored-by-the-full-model"} >= set(report.seen)  # fmt: skip
    assert not any(report.seen["honest"].refuted)
    assert report.problems() == []
    for name in ("int4-weights", "fine-tuned-model", "output-of-another-prompt", "truncated-context"):
        assert report.seen[name].answer_power == 1, name
    drawn = histograms(
        "tiny", "micro-nats", {k: s.value_micro for k, s in report.seen.items()}, report.tolerance.value_micro
    )
    assert drawn.count("<text") > len(report.seen)

    cid = republished(home, report)
    assert cid != before.cid
    assert TrustList.load(home).resolve("tiny-chat").cid == cid
    after = BundleStore(home / "store").open(cid).manifest
    assert after.tolerance.samples == len(report.seen["honest"].refuted)
    assert {cheat.name for cheat in after.tolerance.cheats} == {
        k for k, s in report.seen.items() if k != "honest" and s.refuted
    }
    assert replace(after, tolerance=before.manifest.tolerance) == before.manifest


def test_a_tolerance_that_lets_everything_pass_is_none(home: Path) -> None:
    report = calibrated(
        home, "tiny-chat", 2, 20, refutes=refutes, anew=False, on_progress=lambda _stage, _fraction: None
    )
    blind = replace(report, seen={k: replace(s, refuted=[False] * len(s.refuted), answers=[False] * len(s.answers))
                                  for k, s in report.seen.items()})  # fmt: skip
    assert any("int8-weights pass" in problem for problem in blind.problems())

"""A tolerance against everybody who might cheat, with a tiny bundle; and one that separates nothing is not published."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fallow.cli import run
from fallow.models import power
from fallow.models.calibrating import calibrated, republished
from fallow.models.plot import Panel, histograms
from fallow.node.engine.bundles import BundleStore
from fallow.node.trust import TrustList
from fallow.protocol.work import Parameters
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
            "early-stop", "smaller-model", "cheap-text-scored-by-the-full-model"} == set(report.seen)  # fmt: skip
    assert not any(report.seen["honest"].refuted)
    assert report.problems() == []
    assert any(int(variant.partition("x")[0]) > 1 for variant in report.variants), "under load, wider programs run"
    # These state the full model's own values: what tells is what it would have written.
    for name in ("early-stop", "flipped-tokens"):
        assert max(report.seen[name].value_micro) <= report.tolerance.value_micro
        assert report.seen[name].answer_power == 1, name
    assert all(seen.refuted for seen in report.seen.values()), "each was tried"
    for name in ("int4-weights", "smaller-model", "fine-tuned-model", "output-of-another-prompt", "truncated-context"):
        assert report.seen[name].answer_power == 1, name
    panel = Panel("micro-nats", {k: s.value_micro for k, s in report.seen.items()}, report.tolerance.value_micro)
    assert all(sum(panel.counts(kind)) == len(seen.value_micro) for kind, seen in report.seen.items())
    drawn = histograms("tiny", {kind: f"{kind}: seen" for kind in report.seen}, [panel])
    assert all(f">{kind}: seen<" in drawn for kind in report.seen)

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


def test_an_answer_that_is_what_was_ordered_is_no_cheat_however_it_was_sampled(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hardly(p: Parameters) -> Parameters:
        return replace(p, temperature_milli=p.temperature_milli + 1)

    monkeypatch.setattr(power, "_SAMPLINGS", {"hardly-another-temperature": hardly})
    report = calibrated(
        home, "tiny-chat", 4, 3, refutes=refutes, anew=False, on_progress=lambda _stage, _fraction: None
    )
    assert report.seen["hardly-another-temperature"].answers == []
    assert report.seen["flipped-tokens"].answers
    assert not [problem for problem in report.problems() if "temperature" in problem]


def cid_of(home: Path) -> str:
    found = BundleStore(home / "store").find("tiny-chat")
    assert found is not None and TrustList.load(home).resolve("tiny-chat").cid == found.cid
    return found.cid


def test_the_command_draws_publishes_and_refuses(
    new_home: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, drawing = new_home(), tmp_path / "seen.svg"
    monkeypatch.setenv("FALLOW_HOME", str(home))
    before = cid_of(home)
    with monkeypatch.context() as generous:
        generous.setattr(power, "ROOM", 10**7)  # nothing that honest windows differ by tells them from anybody's
        assert run(["bundle", "calibrate", "tiny-chat", "--prompts", "2", "--tokens", "2", "--publish"]) == 1
    said = capsys.readouterr().err
    assert "Not published: " in said and "fine-tuned-model pass" in said and "The bundle is as it was." in said
    assert cid_of(home) == before

    words = ["bundle", "calibrate", "tiny-chat", "--prompts", "4", "--tokens", "34"]
    assert run([*words, "--plot", str(drawing), "--publish", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["separates"], told["problems"], told["cid"]) == (True, [], cid_of(home))
    assert told["cid"] != before
    shown, drawn = told["kinds"], drawing.read_text("utf-8")
    assert drawn.startswith("<svg") and drawn.endswith("</svg>\n")
    assert all(f">{kind}: " in drawn for kind in shown)
    assert shown["honest"]["window_power"] == 0 and shown["smaller-model"]["answer_power"] == 1
    manifest = BundleStore(home / "store").open(told["cid"]).manifest
    assert manifest.tolerance.value_micro == told["tolerance"]["value_micro"]
    assert {cheat.name for cheat in manifest.tolerance.cheats} == shown.keys() - {"honest"}

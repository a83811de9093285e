"""What simulated machines say of one another: faults go round, slander does not, and judges hear whoever is not paid."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fallow.client import tribunal
from fallow.node import gossip, spreading
from fallow.protocol.evidence import Evidence, Fault, Proven
from fallow.testnet.simnet.scenario import Scenario
from fallow.testnet.simnet.scenario_file import load
from fallow.testnet.simnet.tasks.simulation import simulate_tasks

ALL = load("accusations")


@dataclass
class Seen:
    """What a simulation left in its trace, and who objected to it."""

    objections: Sequence[str]
    lines: Sequence[Sequence[str]]

    @property
    def objected(self) -> set[str]:
        return {each.partition(":")[0] for each in self.objections}

    def count(self, what: str, *columns: int) -> Counter[tuple[str, ...]]:
        """How often what happened, by some of what it was told with."""
        return Counter(tuple(line[each] for each in columns) for line in self.lines if line[1] == what)


def _seen(scenario: Scenario, folder: Path, seed: int = 1) -> Seen:
    violations = simulate_tasks(scenario, seed, folder / "trace").violations
    return Seen(violations, [line.split()[1:] for line in (folder / "trace").read_text().splitlines()])


def _with(**faults: float) -> Scenario:
    """As the scenario, with these alone who break rules."""
    return replace(
        ALL, faults=replace(Scenario().faults, **faults), load=replace(ALL.load, clients=4, jobs_per_hour=600)
    )


@pytest.mark.parametrize("seed", [2, 5])
def test_no_checker_objects(tmp_path: Path, seed: int) -> None:
    seen = _seen(ALL, tmp_path, seed)
    assert seen.objections == (), f"replay: fallow simulate accusations --seed {seed}"
    assert seen.count("heard", 2) and seen.count("judged", 2)


def test_true_words_reach_everybody_and_false_ones_cost(tmp_path: Path) -> None:
    seen = _seen(ALL, tmp_path)
    assert seen.objections == (), "replay: fallow simulate accusations --seed 1"
    assert {fault for (fault,) in seen.count("heard", 2)} == {str(Fault.RETRACTION), str(Fault.EQUIVOCATION)}
    assert {outcome for _, outcome in seen.count("judged", 2, 3)} == {"upheld", "dismissed"}
    slanders = {
        trick: stopped_by for trick, stopped_by in seen.count("attacked", 2, 5) if trick in ("two-windows", "anothers")
    }
    assert set(slanders) == {"two-windows", "anothers"} and "-" not in slanders.values()
    # Who has taken back a promise is lent nothing by nodes that it has never met.
    assert seen.count("attacked", 2, 5)["again", "prepay"] > 0


def test_a_payer_who_opens_another_prompt_pays_for_the_trial(tmp_path: Path) -> None:
    seen = _seen(_with(misopeners=0.5), tmp_path)
    assert seen.objected == set()
    # What nobody can show to have come is dismissed, and costs neither side anything.
    judged = seen.count("judged", 2, 3, 4)
    assert {each for each in judged if each[2] != "0"} == {("unpaid", "upheld", "9"), ("mismatched", "upheld", "9")}


def test_a_slanderer_is_let_in_no_more(tmp_path: Path) -> None:
    long = replace(_with(slanderers=0.5), load=replace(ALL.load, clients=4, jobs_per_hour=4000))
    seen = _seen(long, tmp_path)
    assert seen.objected == set()
    slanderers = {line[0] for line in seen.lines if line[1] == "attacked"}
    assert {banned for (banned,) in seen.count("bans", 2)} <= slanderers != set()
    assert seen.count("bans", 2)


def test_a_node_that_believes_whatever_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def believed(evidence: Evidence) -> Proven:
        return Proven(Fault(evidence.fault), evidence.accused)

    monkeypatch.setattr(gossip, "check_evidence_untrusted", believed)
    assert _seen(_with(slanderers=0.5), tmp_path).objected >= {"nobody_honest_is_blamed", "false_words_cost"}


def test_a_fault_that_is_told_to_one_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "FANOUT", 1)
    monkeypatch.setattr(spreading, "SPREAD_S", 0.1)
    assert "faults_reach_everybody" in _seen(_with(double_spenders=0.5), tmp_path).objected


def test_a_judge_that_counts_more_than_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tribunal, "share_ucr", lambda fee_ucr: fee_ucr)
    assert "fees_conserved" in _seen(_with(non_payers=0.5), tmp_path).objected


def test_judges_who_find_good_work_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tribunal, "disowned", lambda part, piece, tolerance: "it is wrong")
    payers_answer = _seen(_with(double_spenders=0.5), tmp_path)
    assert "judgements_are_true" in payers_answer.objected

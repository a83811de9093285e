"""What a run's figures are made of."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import pytest

from fallow.protocol.policy import Policy
from fallow.testnet import errands
from fallow.testnet.books import Books
from fallow.testnet.errands import Errand, Job
from fallow.testnet.plan import Plan, plan_nodes
from fallow.testnet.report import CONFIDENCE, LINE, bound, passes_max, report, spread
from fallow.testnet.watching import EVERY_S, MIB, Growth, Sample, growth

PLAN = Plan(tuple(plan_nodes(6, liars=1)))
EVEN = Books({"ada": 7}, {}, {"ada": 7})
DONE = Job(0, 0, Errand("text", 1, 24), 1, 900, 40, verdict="accepted", tokens=(1, 2), done=True)


def figures(jobs: list[Job], wrong: list[Job] = [], books: Books = EVEN, assurance: str = "quorum:2/3"):  # noqa: B006
    return report(PLAN, assurance, 2, jobs, wrong, books, (), faults={"kill": 1}, crashed=(), broken=(), seconds=1.0)


def test_a_job_is_completed_or_lost_and_verified_or_not() -> None:
    unchecked = replace(DONE, number=1, verdict="")
    resumed = replace(DONE, number=2, gaps_ms=(300, 500), handovers=("yield", "dead"))
    refused = replace(DONE, number=3, code="no_executor", message="nobody")
    hanging = replace(DONE, number=4, done=False)
    found = figures([DONE, unchecked, resumed, refused, hanging])
    assert (found.asked, found.completed, found.verified, found.resumed, found.lost) == (5, 3, 2, 1, 2)
    assert [loss["code"] for loss in found.losses] == ["no_executor", "unfinished"]
    assert (found.handover_ms.count, found.handover_ms.most) == (2, 500)
    assert not found.sound


def test_the_one_line_has_its_nine_fields() -> None:
    line = json.loads(figures([DONE]).line())
    assert tuple(line) == LINE
    assert (line["asked"], line["lost"], line["first_token_ms"]["p50"], line["credits_conserved"]) == (1, 0, 40, True)


def test_a_run_is_sound_if_nothing_came_out_that_must_not() -> None:
    assert figures([DONE]).sound
    assert not figures([DONE], [DONE]).sound
    assert figures([DONE], [replace(DONE, verdict="")], assurance="none").sound
    apart = figures([DONE], books=Books({"ada": 7, "eve": 1}, {}, {"ada": 8}))
    assert not apart.sound and apart.credits_apart_ucr == {"ada": -1, "eve": 1}


def test_percentiles_are_times_that_were_measured() -> None:
    found = spread(list(range(1, 101)))
    assert (found.p50, found.p95, found.p99, found.most) == (50, 95, 99, 100)
    assert asdict(spread([])) == {"p50": 0, "p95": 0, "p99": 0, "most": 0, "count": 0}
    assert spread([5]).p99 == 5


def test_a_quorum_s_bound_is_nought_unless_a_plot_is_one() -> None:
    quorum = Policy.parse("quorum:2/3")
    assert bound(PLAN, quorum, 2).results == 0
    assert bound(Plan(tuple(plan_nodes(6, adversaries={"sybil": 1}))), quorum, 2).results == 0
    assert bound(Plan(tuple(plan_nodes(6, adversaries={"colluder": 1}))), quorum, 2).results is None
    assert bound(PLAN, Policy.parse("none"), 2).results is None
    assert bound(Plan(tuple(plan_nodes(6))), Policy.parse("audit:50000"), 2).results == 0


def test_the_audits_bound_is_kept_in_so_many_of_a_thousand_runs() -> None:
    most = bound(PLAN, Policy.parse("audit:50000"), 2).results
    assert most == passes_max(2, 0.05)
    chance = random.Random(1)

    def passes() -> int:
        passed = 0
        for _ in range(2):
            while chance.random() >= 0.05:
                passed += 1
        return passed

    kept = sum(passes() <= most for _ in range(20_000)) / 20_000
    assert kept > CONFIDENCE - 0.001
    assert passes_max(3, 1.0) == 0


def life(node: str, pid: int, grows_bytes: int, count: int = 60) -> list[Sample]:
    chance = random.Random(pid)
    return [
        Sample(round(n * EVERY_S * 1000), node, pid, 50 * MIB + n * grows_bytes + chance.randrange(MIB), 9 * MIB, 40, 9)
        for n in range(count)
    ]


def test_a_process_that_takes_ever_more_is_found_and_noise_is_not() -> None:
    found = growth([*life("a", 1, 0), *life("b", 2, MIB), *life("c", 3, MIB, count=5)])
    grew = {(each.node, each.what): each.grew for each in found}
    assert grew["b", "daemon_bytes"]
    assert not any(value for key, value in grew.items() if key != ("b", "daemon_bytes"))


def test_of_a_node_that_was_restarted_the_longest_life_counts() -> None:
    found = growth([*life("a", 1, MIB, count=30), *life("a", 2, 0, count=60)])
    assert found[0] == Growth("a", "daemon_bytes", found[0].first, found[0].last, found[0].rise, False)


def test_a_worker_that_was_replaced_is_not_taken_for_one_that_grew() -> None:
    """Its owner drove: the daemon stayed, and the next worker took its memory anew."""
    first, second = life("a", 1, 0, count=30), life("a", 1, 0, count=30)
    later = [replace(s, time_ms=s.time_ms + 150_000, worker_pid=10, worker_bytes=90 * MIB) for s in second]
    (worker,) = [each for each in growth([*first, *later]) if each.what == "worker_bytes"]
    assert not worker.grew and abs(worker.rise) < MIB


def test_a_worker_that_loads_its_programs_is_not_taken_for_one_that_grows_and_one_that_goes_on_is() -> None:
    def rises(until: int) -> Growth:
        samples = life("a", 1, 0, count=90)
        rising = [replace(s, worker_bytes=(100 + 10 * min(n, until)) * MIB) for n, s in enumerate(samples)]
        return next(each for each in growth(rising) if each.what == "worker_bytes")

    assert not rises(until=60).grew
    assert rises(until=90).grew


def test_errands_are_a_function_of_seed_and_client() -> None:
    first = list(islice(errands.errands(7, 0), 50))
    assert first == list(islice(errands.errands(7, 0), 50))
    assert first != list(islice(errands.errands(7, 1), 50))
    assert {errand.what for errand in first} == {"text", "vectors"}


def test_jobs_are_read_as_of_their_last_line(tmp_path: Path) -> None:
    asked = replace(DONE, done=False, verdict="", tokens=())
    hanging = replace(asked, number=1)
    (tmp_path / "jobs.jsonl").write_text(asked.line() + hanging.line() + DONE.line())
    assert errands.read(tmp_path / "jobs.jsonl") == [DONE, hanging]


def test_vectors_survive_their_way_through_json() -> None:
    rows = [(0.5, -1.25), (3.0, 0.0)]
    assert errands.unpacked(errands.packed(rows), 2) == rows


@pytest.mark.parametrize(("pairs", "rate"), [(1, 0.5), (4, 0.05), (64, 0.01)])
def test_more_liars_or_fewer_audits_pass_more(pairs: int, rate: float) -> None:
    assert passes_max(pairs, rate) < passes_max(2 * pairs, rate) < passes_max(2 * pairs, rate / 2)

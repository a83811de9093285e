"""Dishonest clients and daemons, and audits by record: the real rules hold, and the checkers object once one is taken out."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import cast

import pytest
import trio
from nacl.signing import SigningKey

from fallow.client.auditing import Auditor
from fallow.client.events import Receipted
from fallow.client.reception import Reception
from fallow.node import credit
from fallow.protocol import channel, job, receipts
from fallow.protocol.identity import peer_id
from fallow.testnet.adversaries.customer import Attack, Customer, Outcome
from fallow.testnet.simnet.population import CHARACTERS, populate
from fallow.testnet.simnet.scenario import Assurance, Faults, Load, Scenario
from fallow.testnet.simnet.tasks import cheats
from fallow.testnet.simnet.tasks.chance import chance_for
from fallow.testnet.simnet.tasks.cheats import attacks_by_client
from fallow.testnet.simnet.tasks.checkers import wrong_max
from fallow.testnet.simnet.tasks.simulation import simulate_tasks
from fallow.verifier import quorum

ADAPTIVE = Assurance("adaptive")
TEXTS = Load(900, clients=2, input_tokens=20, output_tokens=96)


def _run(scenario: Scenario, trace: Path, seed: int = 1) -> tuple[set[str], list[list[str]]]:
    """Who objected, and the words of what happened."""
    outcome = simulate_tasks(scenario, seed, trace)
    return {each.partition(":")[0] for each in outcome.violations}, [
        line.split()[1:] for line in trace.read_text().splitlines()
    ]


def _attacks(lines: list[list[str]]) -> Counter[tuple[str, str]]:
    """How often each trick was stopped by what."""
    return Counter((line[2], line[5]) for line in lines if line[1] == "attacked")


def test_shares_of_clients_are_counted() -> None:
    attacks = attacks_by_client(Faults(double_spenders=0.2, non_payers=0.3), 10, Random(1))
    assert Counter(attacks) == {"": 5, "double_spenders": 2, "non_payers": 3}


def test_double_spenders_are_stopped_at_every_trick(calm: Scenario, tmp_path: Path) -> None:
    objected, lines = _run(replace(calm, load=TEXTS, faults=Faults(double_spenders=0.5)), tmp_path / "trace")
    assert objected == set()
    assert {trick for trick, _ in _attacks(lines)} == {"again", "takes-back", "elsewhere"}
    tried = [line[3:] for line in lines if line[1] == "attacked"]
    assert all(stopped_by != "-" or owed == paid for owed, paid, stopped_by in tried)


def test_a_node_that_takes_any_voucher(calm: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel.ChannelState, "check", lambda state, voucher, claim, now_ms: None)
    objected, _ = _run(replace(calm, load=TEXTS, faults=Faults(double_spenders=0.5)), tmp_path / "trace")
    assert "credits_conserved" in objected


def test_who_does_not_pay_gets_two_windows(calm: Scenario, tmp_path: Path) -> None:
    objected, lines = _run(replace(calm, load=TEXTS, faults=Faults(non_payers=0.5)), tmp_path / "trace")
    assert objected == set()
    assert {trick for trick, _ in _attacks(lines)} == {"takes"}
    assert ("takes", "-") not in _attacks(lines)


def test_a_node_that_goes_on_unpaid(calm: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "UNPAID_RECEIPTS_MAX", 4)
    objected, _ = _run(replace(calm, load=TEXTS, faults=Faults(non_payers=0.5)), tmp_path / "trace")
    assert "work_unpaid_bounded" in objected


def test_a_node_that_lends_to_whoever_never_paid(
    calm: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credit, "UNANSWERED_WINDOWS_MAX", 0)
    monkeypatch.setattr(credit.Credit, "answers", lambda books, payer, allowed_ucr: None)
    one_at_a_time = tuple(replace(crowd, jobs_max=1) for crowd in calm.population)
    long = replace(calm, nodes=4, duration_h=0.05, load=TEXTS, population=one_at_a_time, faults=Faults(non_payers=0.5))
    objected, _ = _run(long, tmp_path / "trace")
    assert "work_unpaid_bounded" in objected


def test_what_is_judged_after_its_job_has_ended_is_paid(
    calm: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pay_later(customer: Customer, wanted: bytes | None) -> list[Outcome]:
        node, paid = await customer.node(), list[int]()
        async with trio.open_nursery() as nursery:
            async with customer.job(node, 40) as execution:
                async for event in execution.events:
                    if isinstance(event, Receipted):
                        break
            assert isinstance(event, Receipted)
            nursery.start_soon(execution.pay, event)
            paid.append(event.added_ucr)
        return [Outcome("late", "pays", peer_id(node.key), 40, sum(paid), sum(paid), "")]

    monkeypatch.setitem(cast(dict[str, Attack], cheats.ATTACKS), "non_payers", pay_later)
    objected, lines = _run(replace(calm, faults=Faults(non_payers=0.5)), tmp_path / "trace")
    assert objected == set()
    assert [line for line in lines if line[1] == "attacked"]


def test_who_signs_two_receipts_for_a_window_ends_its_job(calm: Scenario, tmp_path: Path) -> None:
    two_faced = replace(calm, load=TEXTS, assurance=Assurance("none"), faults=Faults(equivocators=0.25))
    objected, lines = _run(two_faced, tmp_path / "trace")
    assert objected == set()
    assert ["done", "0"] in [line[3:] for line in lines if line[1] == "ended"]
    assert any(line[1] == "job_ended" and "state=broken" in line for line in lines)


def test_a_client_that_believes_every_receipt(calm: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts.Delivery, "received", receipts.Delivery.issued)
    monkeypatch.setattr(Reception, "_compare", lambda *_: None)
    two_faced = replace(calm, load=TEXTS, assurance=Assurance("none"), faults=Faults(equivocators=0.5))
    objected, _ = _run(two_faced, tmp_path / "trace")
    assert "credits_conserved" in objected


def test_who_accuses_falsely_bears_the_fee_though_one_judge_is_corrupt(calm: Scenario, tmp_path: Path) -> None:
    accused = Faults(false_accusers=0.5, corrupt_judges=0.34)
    objected, lines = _run(replace(calm, load=TEXTS, faults=accused), tmp_path / "trace")
    assert objected == set()
    found = _attacks(lines)
    assert found["accuses", "dismissed"] > 0
    assert found.keys() <= {("accuses", "dismissed"), ("accuses", "unpaid"), ("accuses-again", "unpaid")}


def test_a_committee_of_whom_most_are_corrupt(calm: Scenario, tmp_path: Path) -> None:
    accused = Faults(false_accusers=0.5, corrupt_judges=0.67)
    objected, _ = _run(replace(calm, load=TEXTS, faults=accused), tmp_path / "trace")
    assert objected == {"judges_are_just"}


def test_who_signs_nothing_is_not_paid(calm: Scenario, tmp_path: Path) -> None:
    objected, lines = _run(replace(calm, load=TEXTS, faults=Faults(deniers=0.25)), tmp_path / "trace")
    assert objected == set()
    assert ["done", "0"] in [line[3:] for line in lines if line[1] == "ended"]


def test_whoever_has_a_record_is_looked_at_less_often(calm: Scenario) -> None:
    long = replace(calm, load=TEXTS, duration_h=0.03)
    always = simulate_tasks(long, 1).figures
    seldom = simulate_tasks(replace(long, assurance=ADAPTIVE), 1)
    assert seldom.violations == ()
    assert seldom.figures.verification_overhead is not None
    assert always.verification_overhead is not None
    assert seldom.figures.verification_overhead < 0.8 * always.verification_overhead


def test_a_liar_with_a_record_is_found_and_looked_back_at(calm: Scenario, tmp_path: Path) -> None:
    turned = Faults(liars=0.34, lies_after_jobs=10)
    few = replace(calm, nodes=6, load=TEXTS, duration_h=0.08, assurance=ADAPTIVE, faults=turned)
    objected, lines = _run(few, tmp_path / "trace", 5)
    assert objected == set()
    late = [line[2:] for line in lines if line[1] == "late"]
    assert sum(int(looked_at) for looked_at, _ in late) > 0
    assert sum(int(wrong) for _, wrong in late) > 0
    forfeited = [[int(word) for word in line[2:]] for line in lines if line[1] == "forfeited"]
    assert any(ucr > 0 and judges >= 2 for _, ucr, judges, _ in forfeited)
    assert sum(int(tried) for _, _, tried, _ in (line for line in lines if line[1] == "spots")) > 0


def test_a_client_that_never_audits(calm: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Auditor, "rate_ppm", lambda *_: 0)
    objected, _ = _run(replace(calm, assurance=ADAPTIVE, faults=Faults(liars=0.4)), tmp_path / "trace")
    assert "wrong_results_bounded" in objected


@pytest.mark.parametrize(("believes", "expected"), [(False, set()), (True, {"wrong_results_bounded"})])
def test_audits_at_a_rate_keep_to_its_bound(
    calm: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, believes: bool, expected: set[str]
) -> None:
    if believes:
        monkeypatch.setattr(quorum, "values_disagreement", lambda *evidence: None)
        monkeypatch.setattr(quorum, "choice_disagreement", lambda *evidence: None)
    many = replace(calm, load=Load(3000, clients=2, input_tokens=20, output_tokens=40))
    audited = replace(many, assurance=Assurance("audit:900000"), faults=Faults(liars=0.4))
    assert _run(audited, tmp_path / "trace")[0] == expected


def test_the_bound_of_audits_grows_with_pairs_and_falls_with_the_rate(calm: Scenario) -> None:
    def most(policy: str, pairs: int, faults: Faults) -> int:
        return wrong_max(replace(calm, assurance=Assurance(policy), faults=faults), 10_000, pairs)

    liars = Faults(liars=0.2, lies=0.5)
    assert most("audit:500000", 1, liars) == 9  # of 1,000 coins that show heads first after ten throws, one
    assert most("audit:500000", 10, liars) > most("audit:900000", 10, liars) > most("audit:1000000", 10, liars) == 0
    assert most("adaptive", 10, Faults(liars=0.2)) == 0
    assert most("adaptive", 1, liars) > 300


def test_two_of_one_mind_cannot_have_an_honest_checker_blamed(
    calm: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two confirm each other's windows, and others are tried by these: whoever has other figures for them is right."""
    blamed: list[tuple[bytes, str]] = []
    failed = Auditor.failed

    async def noting(self: Auditor, node: bytes, owner: bytes, reason: str) -> None:
        blamed.append((node, reason))
        await failed(self, node, owner, reason)

    monkeypatch.setattr(Auditor, "failed", noting)
    pair = replace(calm, load=TEXTS, duration_h=0.05, assurance=ADAPTIVE, faults=Faults(colluders=0.17))
    for seed in range(1, 9):  # in a few minutes, not every mesh has somebody tried by such a window
        blamed.clear()
        _run(pair, tmp_path / "trace", seed)
        characters = [CHARACTERS[number] for number in populate(pair, seed).character]
        keys = [bytes(SigningKey(chance_for(seed, "node key", n).randbytes(32)).verify_key) for n in range(pair.nodes)]
        assert characters.count("colluders") == 2
        assert {characters[keys.index(node)] for node, _ in blamed} == {"colluders"}
        # By those who looked at that window again.
        if "confirmed what the majority rejects" in [why for _, why in blamed]:
            return
    pytest.fail("nobody was tried by a window that the two had confirmed")

"""Days are pure functions: one node's are those that it has among a million."""

import numpy as np
import pytest

from fallow.testnet.simnet import days
from fallow.testnet.simnet.events.timeline import Timeline
from fallow.testnet.simnet.lots import bells, lots, seeds_of
from fallow.testnet.simnet.population import CHARACTERS, populate
from fallow.testnet.simnet.scenario import Event, Faults, Scenario
from fallow.testnet.simnet.scenario_file import changed

SEEDS = seeds_of(7, 400)


def test_chance_is_even_and_belongs_to_the_seed() -> None:
    drawn = lots(seeds_of(1, 100_000), 3, 4)
    assert 0 <= drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.005
    assert np.array_equal(lots(seeds_of(1, 10), 3, 4), drawn[:10])
    assert not np.array_equal(lots(seeds_of(1, 10), 4, 3), drawn[:10])
    rung = bells(seeds_of(1, 100_000), 5)
    assert abs(rung.mean()) < 0.02
    assert abs(rung.std() - 1) < 0.02


@pytest.mark.parametrize("model", days.MODELS)
def test_one_node_has_the_day_that_it_has_among_many(model: str) -> None:
    for day in (0, 5, 9):
        begins, ends = days.absences(model, SEEDS, day)
        for number in (0, 17, 399):
            alone = days.absences_of(model, int(SEEDS[number]), day)
            there = np.isfinite(begins[number])
            assert alone == tuple(
                sorted(zip(begins[number][there].tolist(), ends[number][there].tolist(), strict=True))
            )
            assert all(day * days.DAY_S <= begin < end < (day + 2) * days.DAY_S for begin, end in alone)


@pytest.mark.parametrize("model", days.MODELS)
def test_changes_tell_the_same_as_looking_at_any_time(model: str) -> None:
    begin_s, lasts_s = 1.25 * days.DAY_S, 2.0 * days.DAY_S
    for number in (1, 2, 3):
        stands, turns = days.changes(model, int(SEEDS[number]), begin_s, lasts_s)
        assert [at for at, _ in turns] == sorted(at for at, _ in turns)
        for look_s in np.arange(0.0, lasts_s, 1777.0):
            now = stands if not turns or look_s < turns[0][0] else [state for at, state in turns if at <= look_s][-1]
            assert now is not bool(days.away(model, SEEDS[number : number + 1], begin_s + look_s)[0])


def test_commuters_leave_on_workdays_and_stand_at_night() -> None:
    def away(day: int, hour: float) -> float:
        return float(days.away("commuter", SEEDS, day * days.DAY_S + hour * 3600).mean())

    assert away(0, 3) == 0
    assert away(0, 8) > 0.3
    assert away(5, 8) < 0.05


def test_a_storm_passes_its_districts_in_turn() -> None:
    [storm] = days.storms(3, 0, 0, 1.0)
    assert days.storms(3, 0, 0, 1.0) == (storm,)
    begins, ends = days.storm_outages(storm, SEEDS, 1.0)
    hit = np.isfinite(begins)
    behind = (days.districts(SEEDS) - storm.first) % days.DISTRICTS
    assert np.array_equal(hit, behind < storm.width)
    assert (begins[hit] >= storm.begin_s + behind[hit] * days.FRONT_S).all()
    assert (ends[hit] > begins[hit]).all()


def test_shares_are_counted_and_not_thrown() -> None:
    scenario = Scenario(nodes=50, newcomers=0.4, faults=Faults(liars=0.2, stallers=0.1, sybils=0.06), index_share=0.3)
    for seed in (1, 2):
        population = populate(scenario, seed)
        counted = {name: int(population.is_a(name).sum()) for name in CHARACTERS}
        assert counted == {
            name: {"liars": 10, "stallers": 5, "sybils": 3, "honest": 32}.get(name, 0) for name in CHARACTERS
        }
        assert population.newcomer.sum() == 20
        assert population.index.sum() == 15
        assert len(np.unique(population.owner[population.is_a("sybils")])) == 1


def test_times_down_are_the_union_of_everything_that_happens() -> None:
    events = (
        Event(what="shed", at_h=1, lasts_s=600, share=0.5),
        Event(what="outage", at_h=1.05, lasts_s=1200, share=0.5),
    )
    scenario = Scenario(nodes=300, start="mon 06:00", duration_h=6, events=events)
    scenario = changed(changed(scenario, "kills_per_day", 20.0), "churn", 0.3)
    population = populate(scenario, 4)
    timeline = Timeline(scenario, population, 4)
    same = timeline.nodes[1:] == timeline.nodes[:-1]
    assert (timeline.ends > timeline.begins).all()
    assert (timeline.begins[1:][same] > timeline.ends[:-1][same]).all()
    nodes = np.arange(300)
    for at_s in (21_000.0, 100.0, 3700.0, 3900.0, 9_000.0):  # back and forth
        now = np.full(300, at_s)
        down = np.zeros(300, dtype=bool)
        inside = (timeline.begins <= at_s) & (at_s < timeline.ends)
        down[timeline.nodes[inside]] = True
        assert np.array_equal(timeline.down(nodes, now), down)
        assert timeline.up_share(now[:1])[0] == pytest.approx(1 - down.mean())
        up = nodes[~down]
        later = {
            int(node): float(at)
            for node, at in zip(timeline.nodes[::-1], timeline.begins[::-1], strict=True)
            if at > at_s
        }
        expected = [later.get(int(node), np.inf) for node in up]
        assert timeline.next_down(up, np.full(len(up), at_s))[0].tolist() == expected
    local_s = scenario.start_s + float(population.zone_s[0]) + 7200.0
    away = days.away("commuter", population.seeds, local_s)
    assert timeline.down(nodes[away], np.full(int(away.sum()), 7200.0)).all()

"""Sweeps: the same rows wherever they run, kept and drawn."""

import math
from pathlib import Path

import pytest

from fallow.protocol.errors import ConfigError
from fallow.testnet.simnet import results, sweeps
from fallow.testnet.simnet.scenario import Scenario

SMALL = Scenario(name="small", nodes=60, duration_h=0.05, index_share=0.3)
PLAN = sweeps.planned(SMALL, range(3, 5), [("churn", (0.0, 6.0))])


def test_every_value_meets_every_seed() -> None:
    assert [(run.number, dict(run.swept)["churn"], run.seed) for run in PLAN] == [
        (0, 0, 3),
        (1, 0, 4),
        (2, 6, 3),
        (3, 6, 4),
    ]
    grown = sweeps.planned(SMALL, [1], [("nodes", (60.0, 600.0))])
    assert "jobs_per_hour = 10000.0" in grown[1].text
    with pytest.raises(ConfigError):
        sweeps.planned(SMALL, [1], [("churn", (-1.0,))])


def test_on_cores_the_rows_are_the_same_as_here() -> None:
    assert dict(sweeps.on_cores(PLAN, 2)) == {run.number: run.row() for run in PLAN}


@pytest.mark.timeout(600)  # a cluster of its own is started: 7 s on an idle machine, two minutes on a busy one
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX, where another test has loaded it
def test_on_ray_the_rows_are_the_same_as_here() -> None:
    pytest.importorskip("ray")
    assert dict(sweeps.on_ray(PLAN[:2], sweeps.LOCAL)) == {run.number: run.row() for run in PLAN[:2]}


def test_results_are_kept_as_parquet_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("matplotlib")
    from fallow.testnet.simnet import plots

    rows = [run.row() for run in PLAN]
    results.write_parquet(rows, tmp_path / "rows.parquet")
    assert results.read_parquet(tmp_path / "rows.parquet") == rows
    plots.over_sweep(rows, ["churn"], "small", tmp_path / "sweep.png")
    outcome_series = sweeps.simulate(SMALL, 3).series
    plots.over_time(outcome_series, "small", tmp_path / "time.png")
    for name in ("sweep.png", "time.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_growth_is_the_slope_of_the_logarithms() -> None:
    assert results.exponent([10, 100, 1000], [3, 30, 300]) == pytest.approx(1.0)
    assert results.exponent([10, 1000], [5, 5]) == pytest.approx(0.0)
    assert math.isnan(results.middle([{"a": None}], "a")[0])
    assert results.middle([{"a": 3}, {"a": 1}, {"a": 2}], "a") == (2, 1, 3)

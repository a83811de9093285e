"""`fallow simulate`: the mesh under virtual time, once or many times over."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..protocol.errors import Code, ConfigError
from .environment import AsJson, usable
from .output import Json, line, needing, print_json, progress, remark, table

if TYPE_CHECKING:
    from ..testnet.simnet.figures import Outcome
    from ..testnet.simnet.scenario import Scenario
    from ..testnet.simnet.sweeps import Value

EXTRA = "simulate"
COLUMNS = 6
"""Points of a sweep beside each other, on a terminal."""
TOGETHER = "--shrink and --trace are of one simulation, not of a sweep"


def simulate(
    scenario: Annotated[str, Parameter(help="A shipped scenario's name, or a TOML file.")],
    *,
    seed: Annotated[int, Parameter(help="Of everything that is left to chance.")] = 1,
    fidelity: Annotated[
        str | None, Parameter(help="`events` (arrays) or `tasks` (the real code), not the scenario's.")
    ] = None,
    nodes: Annotated[int | None, Parameter(help="So many, with clients and jobs in proportion.")] = None,
    set_: Annotated[
        list[str] | None, Parameter(name="--set", help="NAME=VALUE: one setting by its dotted name; may be repeated.")
    ] = None,
    seeds: Annotated[int | None, Parameter(help="So many simulations, with the seeds from --seed on.")] = None,
    sweep: Annotated[
        list[str] | None, Parameter(help="NAME=FROM:TO:COUNT or NAME=A,B,C: each value in turn; may be repeated.")
    ] = None,
    workers: Annotated[int | None, Parameter(help="Processes of a sweep; all cores unless said.")] = None,
    ray: Annotated[str | None, Parameter(help="Run the sweep on the Ray cluster there; `local` starts one.")] = None,
    out: Annotated[Path | None, Parameter(help="A folder for figures, Parquet and pictures.")] = None,
    trace: Annotated[Path | None, Parameter(help="Keep every line of what happens in this file (tasks only).")] = None,
    shrink: Annotated[bool, Parameter(help="Find a smaller scenario that fails as this one (tasks only).")] = False,
    trace_hash: Annotated[bool, Parameter(help="End with the hash over all that happened.")] = False,
    json: AsJson = False,
) -> int:
    """Figures of a simulation, or of a sweep. 1 if an invariant of the design did not hold."""
    with needing(EXTRA):
        from ..testnet.simnet import scenario_file, sweeps

        chosen = sweeps.scaled(sweeps.at_fidelity(scenario_file.load(scenario), _known(fidelity)), nodes)
        for text in set_ or ():
            chosen = _set(chosen, text)
        chosen = scenario_file.checked(chosen)
        if seeds is None and not sweep:
            return _once(chosen, scenario, seed, out, trace, shrink=shrink, trace_hash=trace_hash, as_json=json)
        if trace is not None or shrink or trace_hash:
            raise ConfigError(Code.BAD_CONFIG, f"{TOGETHER}; nor is --trace-hash, which is a column of its results.")
        swept = [scenario_file.sweep(text) for text in sweep or ()]
        return _sweep(chosen, range(seed, seed + _count(seeds)), swept, workers, ray, out, as_json=json)


def _once(
    scenario: Scenario,
    named: str,
    seed: int,
    out: Path | None,
    trace: Path | None,
    *,
    shrink: bool,
    trace_hash: bool,
    as_json: bool,
) -> int:
    from ..testnet.simnet.run import simulate as run

    if shrink:
        return _shrink(scenario, seed)
    with progress(f"simulating {scenario.nodes} nodes"), usable("--trace", trace or Path()):
        outcome = run(scenario, seed, trace)
    if as_json:
        print_json(_as_json(scenario, seed, outcome))
    else:
        _show(outcome)
    if out is not None:
        _keep(scenario, seed, outcome, out)
    if outcome.violations:
        for violation in outcome.violations:
            remark(violation)
        remark(f"replay: {_replay(scenario, named, seed)}")
    if trace_hash:
        line(outcome.trace_hash)
    return 1 if outcome.violations else 0


def _shrink(scenario: Scenario, seed: int) -> int:
    from ..testnet.simnet.scenario_file import dumps
    from ..testnet.simnet.tasks.shrinking import shrink

    with progress("shrinking"):
        smaller = shrink(scenario, seed)
    path = Path(f"{scenario.name}-{seed}.toml")
    with usable("this folder", Path.cwd()):
        path.write_text(dumps(smaller))
    line(f"fallow simulate {path} --seed {seed} --fidelity tasks")
    return 0


def _sweep(
    scenario: Scenario,
    seeds: range,
    swept: list[tuple[str, tuple[float, ...]]],
    workers: int | None,
    ray: str | None,
    out: Path | None,
    *,
    as_json: bool,
) -> int:
    from ..testnet.simnet import plots, results, sweeps

    runs = math.prod(len(points) for _, points in swept) * len(seeds)
    if runs > sweeps.RUNS_MAX:
        raise ConfigError(Code.BAD_CONFIG, f"A sweep has at most {sweeps.RUNS_MAX} simulations, not {runs}.")
    plan = sweeps.planned(scenario, seeds, swept)
    rows: list[dict[str, Value]] = [{} for _ in plan]
    with progress(f"{runs} simulations") as show, needing("ray" if ray else EXTRA):
        ended = sweeps.on_ray(plan, ray) if ray else sweeps.on_cores(plan, workers)
        for done, (number, row) in enumerate(ended, 1):
            rows[number] = row
            show(f"{done} of {runs} simulations", done / runs)
    names = [name for name, _ in swept]
    if as_json:
        print_json({"scenario": scenario.name, "swept": names, "runs": [dict(row) for row in rows]})
    else:
        _table(rows, names)
    if out is not None:
        with usable("--out", out):
            out.mkdir(parents=True, exist_ok=True)
            results.write_parquet(rows, out / f"{scenario.name}.parquet")
            if names:
                title = f"{scenario.name}, {len(seeds)} seeds"
                plots.over_sweep(rows, names, title, out / f"{scenario.name}-sweep.png")
    failed = [row for row in rows if row["violations"]]
    for row in failed[:10]:
        remark(f"seed {row['seed']}: {row['violations']}")
    return 1 if failed else 0


def _table(rows: list[dict[str, Value]], swept: list[str]) -> None:
    """A column for each point of the sweep, with the median over its seeds, the least and the most."""
    from ..testnet.simnet import results

    found = sorted(results.points(rows, swept).items())
    for begin in range(0, len(found), COLUMNS):
        few = found[begin : begin + COLUMNS]
        titles = [", ".join(f"{name} {value:g}" for name, value in zip(swept, point, strict=True)) for point, _ in few]
        cells = [[name, *(_cell(results.middle(each, name)) for _, each in few)] for name in results.SHOWN]
        table(["figure", *(f"{title} " for title in titles)], [row for row in cells if any(row[1:])])


def _keep(scenario: Scenario, seed: int, outcome: Outcome, out: Path) -> None:
    from ..testnet.simnet import plots, results

    with usable("--out", out):
        out.mkdir(parents=True, exist_ok=True)
        results.write_parquet([{"seed": seed, **outcome.figures.flat()}], out / f"{scenario.name}.parquet")
        if outcome.series:
            plots.over_time(outcome.series, f"{scenario.name}, seed {seed}", out / f"{scenario.name}.png")


def _show(outcome: Outcome) -> None:
    rows = [(name, _number(value)) for name, value in outcome.figures.flat().items() if value is not None]
    table(("figure", "value "), rows)


def _as_json(scenario: Scenario, seed: int, outcome: Outcome) -> dict[str, Json]:
    return {
        "scenario": scenario.name,
        "fidelity": scenario.fidelity,
        "seed": seed,
        **outcome.figures.flat(),
        "violations": list(outcome.violations),
        "trace_hash": outcome.trace_hash,
    }


def _replay(scenario: Scenario, named: str, seed: int) -> str:
    """The command that does the same again, whatever this one's options were."""
    from ..testnet.simnet.scenario_file import dumps, load

    if load(named) != scenario:
        path = Path(f"{scenario.name}-{seed}.toml")
        with usable("this folder", Path.cwd()):
            path.write_text(dumps(scenario))
        named = str(path)
    return f"fallow simulate {shlex.quote(named)} --seed {seed}"


def _set(scenario: Scenario, text: str) -> Scenario:
    from ..testnet.simnet.scenario_file import changed

    name, _, value = text.partition("=")
    if value in ("true", "false"):
        return changed(scenario, name, value == "true")
    try:
        return changed(scenario, name, float(value))
    except ValueError:
        return changed(scenario, name, value)


def _known(fidelity: str | None) -> str | None:
    from ..testnet.simnet.scenario import FIDELITIES

    if fidelity is not None and fidelity not in FIDELITIES:
        raise ConfigError(Code.BAD_CONFIG, f"{fidelity[:40]!r} is no fidelity; there are {' and '.join(FIDELITIES)}.")
    return fidelity


def _count(seeds: int | None) -> int:
    if seeds is not None and seeds < 1:
        raise ConfigError(Code.BAD_CONFIG, "--seeds is a number from 1 on.")
    return seeds or 1


def _cell(figure: tuple[float, float, float]) -> str:
    median, least, most = figure
    if math.isnan(median):
        return ""
    return _number(median) if least == most else f"{_number(median)} ({_number(least)} to {_number(most)})"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.4g}"

"""How a new bundle of hundreds of chunks spreads, with every task and message: `python benchmarks/spread.py [--seed N]`.

One machine publishes 32 MB, and within half a minute nearly all others want it; links are a fiftieth of what they are, and
chunks a sixteenth, as if it were 500 MB. Once as it is, and once with nodes that do not name what they have.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from fallow.protocol import limits

limits.CHUNK_BYTES = 64 * 1024  # type: ignore[misc]  # before anybody reads it

from fallow.node import blobs  # noqa: E402
from fallow.testnet.simnet.events import spreading  # noqa: E402
from fallow.testnet.simnet.scenario import Bundle, Crowd, Event, Faults, Load, Scenario  # noqa: E402
from fallow.testnet.simnet.tasks.simulation import simulate_tasks  # noqa: E402

APPEARS_H = 0.02


def scenario(nodes: int) -> Scenario:
    return Scenario(
        name="news",
        fidelity="tasks",
        nodes=nodes,
        start="wed 12:00",
        duration_h=0.12,
        index_share=0.4,
        population=(Crowd("host"), Crowd("site")),
        bundles=(Bundle("chat", demand=0.0), Bundle("news", demand=0.0, held=0.0, wanted=0.95, size_mb=32.0)),
        faults=Faults(bandwidth_factor=0.02),
        load=Load(jobs_per_hour=0.0),
        events=(Event("appear", at_h=APPEARS_H, share=0.0, bundle="news"),),
    )


def came_s(nodes: int, seed: int, folder: Path) -> list[float]:
    """After how many seconds each had it, but for the publisher."""
    trace = folder / "trace"
    simulate_tasks(scenario(nodes), seed, trace)
    lines = [line.split() for line in trace.read_text().splitlines()]
    at_s = [int(line[0]) / 1e6 for line in lines if line[2] == "fetched" and line[4] != "bytes=0"]
    return sorted(at - APPEARS_H * 3600 for at in at_s)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    vars(spreading)["HEARD_S"] = 30.0
    medians = []
    with tempfile.TemporaryDirectory() as folder:
        for named in (limits.NAMED_MAX, 0):
            vars(blobs)["NAMED_MAX"] = named
            found = came_s(options.nodes, options.seed, Path(folder))
            medians.append(statistics.median(found))
            print(
                f"names {named:2}: {len(found)} had it, {found[0]:.0f} to {found[-1]:.0f} s, median {medians[-1]:.0f} s",
                flush=True,
            )
    print(f"ratio of the medians: {medians[0] / medians[1]:.2f}")


if __name__ == "__main__":
    main()

"""Coverage-guided fuzzing: `python fuzz/run.py TARGET... [--seconds N] [--jobs N] [--keep]`, or `--all` for every target.

Needs atheris (the extra `fuzz`); without it this says so and exits 0. New inputs go to build/fuzz/<target>/; `--keep` leaves
in fuzz/corpus/<target>/ the smallest set that reaches as far. `--replay FILE` feeds one input to the one target named.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock

HERE = Path(__file__).parent
CORPUS, WORK = HERE / "corpus", HERE.parent / "build" / "fuzz"
KEPT_BYTES_MAX = 40_000
"""Of one target's corpus in the repository: all of them together stay below a megabyte."""
INPUT_BYTES_MAX = 4096
FORKED = multiprocessing.get_context("forkserver")
REAPING = Lock()
"""Whoever begins a process looks which others have ended, and so does whoever waits for one; how it ended can be read once."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seconds", type=int, default=10, help="for each target")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--keep", action="store_true", help="leave what was found in fuzz/corpus")
    parser.add_argument("--replay", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    from targets import TARGETS

    names = list(
        TARGETS if chosen.all else dict.fromkeys(chosen.targets)
    )  # each has one folder, and one file of what it says
    if not names or not set(names) <= TARGETS.keys():
        parser.error(f"name one or more of {', '.join(TARGETS)}, or --all")
    if chosen.replay:
        TARGETS[names[0]].run(chosen.replay.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed (pip install 'fallow[fuzz]'): nothing was fuzzed")
        return 1 if os.environ.get("FALLOW_NEED_ALL") else 0
    # Python 3.11 does not give the process that forks its own path, and says nothing of what it then cannot import.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    FORKED.set_forkserver_preload(["inside"])
    with ThreadPoolExecutor(chosen.jobs) as pool:
        return max(
            pool.map(lambda name: abs(fuzz(name, chosen.seconds, chosen.keep)), names)
        )  # a signal counts below 0


def fuzz(name: str, seconds: int, keep: bool) -> int:
    """0 if `seconds` of fuzzing the target found nothing."""
    found, start = WORK / name, WORK / f"{name}-start"
    for directory in (found, start, CORPUS / name):
        directory.mkdir(parents=True, exist_ok=True)
    _write_seeds(name, start)
    limits = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=10", "-rss_limit_mb=2048"]
    outputs = [f"-artifact_prefix={found}-", "-print_final_stats=1", "-verbosity=1"]
    status, said = _inside(name, *limits, *outputs, str(found), str(CORPUS / name), str(start))
    executed = re.search(r"number_of_executed_units: *(\d+)", said)
    reached = re.findall(r"cov: (\d+) ft: (\d+)", said) or [("?", "?")]
    print(
        f"{name:14} {executed[1] if executed else '?':>9} inputs, {reached[-1][0]} edges, {reached[-1][1]} features",
        flush=True,
    )
    if status:
        _, _, what = said.partition("=== Uncaught Python exception: ===")
        broken_by = re.search(r"Test unit written to (\S+)", said)
        print((what.partition("==")[0] or said)[-4000:])
        print(f"fuzz: {name} broke. To repeat it: python fuzz/run.py {name} --replay {broken_by and broken_by[1]}")
    elif keep:
        _keep(name, found, start)
    return status


def _write_seeds(name: str, start: Path) -> None:
    from seeds import seeds

    for index, seed in enumerate(seeds()[name]):
        (start / f"seed-{index}").write_bytes(seed)


def _keep(name: str, *more: Path) -> None:
    """The corpus is the smallest inputs that reach what any input of this run or of the former corpus reaches."""
    from smallest import smallest
    from targets import TARGETS

    corpus = CORPUS / name
    kept = smallest(TARGETS[name], [path.read_bytes() for each in (corpus, *more) for path in each.iterdir()])
    shutil.rmtree(corpus)
    corpus.mkdir()
    left = KEPT_BYTES_MAX
    for given in kept:
        left -= len(given)
        if left >= 0:
            (corpus / hashlib.sha256(given).hexdigest()[:16]).write_bytes(given)


def _inside(name: str, *arguments: str) -> tuple[int, str]:
    """How a process ended in which libFuzzer ran, and what it said. libFuzzer ends its process when it is done."""
    printed = WORK / f"{name}.txt"
    printed.unlink(missing_ok=True)  # of an earlier time: a process that ends at once says nothing
    status = ended(FORKED.Process(target=_begin, args=(name, printed, arguments)))
    return status, printed.read_text(errors="replace") if printed.exists() else ""


def ended(process: BaseProcess) -> int:
    """How the process ended, which is begun here. In as many threads as there are."""
    with REAPING:
        process.start()
    wait([process.sentinel])
    with REAPING:
        process.join()
    assert process.exitcode is not None, "it was waited for"
    return process.exitcode


def _begin(name: str, printed: Path, arguments: Sequence[str]) -> None:
    import inside  # instruments what it imports, which this process has to do without

    inside.run(name, printed, arguments)


if __name__ == "__main__":
    sys.exit(main())

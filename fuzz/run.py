"""Coverage-guided fuzzing: `python fuzz/run.py TARGET... [--seconds N] [--jobs N] [--keep]`, or `--all` for every target.

Needs atheris (the extra `fuzz`); without it this says so and exits 0. New inputs go to build/fuzz/<target>/; `--keep` leaves
in fuzz/corpus/<target>/ the smallest set that reaches as far. `--replay FILE` feeds one input to the one target named.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
CORPUS, WORK = HERE / "corpus", HERE.parent / "build" / "fuzz"
KEPT_BYTES_MAX = 40_000
"""Of one target's corpus in the repository: all of them together stay below a megabyte."""
INPUT_BYTES_MAX = 4096
INSTRUMENTED = [
    "fallow.protocol",
    "fallow.node.engine.messages",
    "fallow.node.network.control",
    "fallow.node.network.yamux",
    "fallow.node.network.punching",
    "fallow.node.network.index",
    "fallow.node.network.entries",
    "fallow.node.sensors",
    "fallow.node.rules.readings",
    "fallow.node.rules.signals",
]
"""Where atheris counts what an input reaches."""


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

    names = list(TARGETS) if chosen.all else chosen.targets
    if not names or not set(names) <= TARGETS.keys():
        parser.error(f"name one or more of {', '.join(TARGETS)}, or --all")
    if chosen.replay:
        TARGETS[names[0]].run(chosen.replay.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed (pip install 'fallow[fuzz]'): nothing was fuzzed")
        return 1 if os.environ.get("FALLOW_NEED_ALL") else 0
    with ThreadPoolExecutor(chosen.jobs) as pool:
        return max(pool.map(lambda name: fuzz(name, chosen.seconds, chosen.keep), names))


def fuzz(name: str, seconds: int, keep: bool) -> int:
    """0 if `seconds` of fuzzing the target found nothing."""
    found, start = WORK / name, WORK / f"{name}-start"
    for directory in (found, start, CORPUS / name):
        directory.mkdir(parents=True, exist_ok=True)
    _write_seeds(name, start)
    limits = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=10", "-rss_limit_mb=2048"]
    outputs = [f"-artifact_prefix={found}-", "-print_final_stats=1", "-verbosity=1"]
    ended = _inside(name, *limits, *outputs, str(found), str(CORPUS / name), str(start))
    executed = re.search(r"number_of_executed_units: *(\d+)", ended.stderr)
    reached = re.findall(r"cov: (\d+) ft: (\d+)", ended.stderr) or [("?", "?")]
    print(
        f"{name:14} {executed[1] if executed else '?':>9} inputs, {reached[-1][0]} edges, {reached[-1][1]} features",
        flush=True,
    )
    if ended.returncode:
        _, _, what = ended.stderr.partition("=== Uncaught Python exception: ===")
        broken_by = re.search(r"Test unit written to (\S+)", ended.stderr)
        print((what.partition("==")[0] or ended.stderr)[-4000:])
        print(f"fuzz: {name} broke. To repeat it: python fuzz/run.py {name} --replay {broken_by and broken_by[1]}")
    elif keep:
        _keep(name, found, start)
    return ended.returncode


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


def _inside(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """libFuzzer ends its process when it is done, so each run has one."""
    command = [sys.executable, str(Path(__file__)), "--inside", name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=dict(os.environ))


def inside(name: str, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from targets import TARGETS, feed
    from mutation import mutate

    target = TARGETS[name]

    def blunt(given: bytes) -> bytes:
        return bytes(atheris.Mutate(given, max(len(given), 64)))

    def mutator(given: bytes, bytes_max: int, seed: int) -> bytes:
        changed = mutate(given, random.Random(seed), blunt)
        return changed if len(changed) <= bytes_max else blunt(given)[:bytes_max]

    atheris.Setup([sys.argv[0], *arguments], lambda given: feed(target, given), custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())

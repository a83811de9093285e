"""How often an honest window is refuted: texts written by one engine, each window checked by its own `score` program.

    python benchmarks/honest.py [NAME] [--windows N] [--seed S]     a text bundle built on this machine (tiny-chat)

Texts differ in prompt, length, temperature and nucleus; sixteen jobs run side by side, so in every batch size, and each
check is of a client whom the checker has not met. Of ten texts one is checked window by window, as a client has it done; of the
others all windows are claimed in one check, which reads the text once. Refuted is what `verifier.compare.refutes` refutes,
with the tolerance of the manifest. One machine, so one numerics class: writing and reading are different programs of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import jobs
import table
import trio

from fallow.node.engine.bundles import Bundle
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.messages import EngineJob
from fallow.node.engine.sealing import PieceSealer, seal_input
from fallow.protocol.bundle import GENERATE, SCORE, Tolerance
from fallow.protocol.errors import EngineError
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.work import Input, Parameters, Piece, Work, decode_piece_untrusted
from fallow.verifier.compare import refutes

JOBS = 16
"""Side by side, of writing and reading together."""
TOKENS = 256
"""Of a prompt: every vocabulary has so many."""
TOP_P_PPM = (1_000_000, 950_000, 700_000)
TEMPERATURES_MILLI = (0, 700, 1000, 1500)
SAID = 1_000
"""Windows between two lines that say how far it has come."""
WHOLE = 0.9
"""Share of texts that are read at once."""
AIM = 1e-4
"""False rejects per window."""
CONFIDENT = 3.0
"""Of so many hits that were expected, none came, with 95 % confidence."""


@dataclass
class Found:
    """What came of all windows so far."""

    windows: int = 0
    alone: int = 0
    """Of these, those that were checked one by one."""
    refuted: list[str] = field(default_factory=list)
    worst_value_micro: int = 0
    worst_gap_micro: int = 0


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    parser.set_defaults(name="tiny-chat")
    parser.add_argument("--windows", type=int, default=50_000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="and no longer than that")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    store, bundle = jobs.installed(options.name)
    found, began = Found(), time.perf_counter()

    async def run() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            log = Path(scratch, "worker.log")
            async with open_engine(store, [bundle.cid], log_path=log, max_jobs=JOBS) as engine:
                await jobs.all_loaded(bundle, log)
                async with trio.open_nursery() as nursery:
                    nursery.cancel_scope.deadline = trio.current_time() + 60 * options.minutes
                    for number in range(JOBS):
                        chance = Random(f"honest {options.seed} {number}")
                        nursery.start_soon(_check_texts, engine, bundle, found, options.windows, chance)

    try:
        trio.run(run)
    except* EngineError as broken:
        print(f"It broke off: {broken.exceptions[0]}", file=sys.stderr)
    _show(options.name, options.seed, bundle.manifest.tolerance, found, time.perf_counter() - began)


def _show(name: str, seed: int, tolerance: Tolerance, found: Found, took_s: float) -> None:
    table.head()
    table.row(
        f"{name}, seed {seed}: honest windows",
        f"{found.windows} in {took_s:.0f} s, {found.alone} of them checked one by one",
    )
    if not found.windows:
        return
    rate = len(found.refuted) / found.windows
    most = max(rate, CONFIDENT / found.windows)
    table.row("- refuted", f"{len(found.refuted)}: at most {most:.1e} a window", f"< {AIM:g}", most < AIM)
    table.row("- farthest value, of what may be", f"{found.worst_value_micro} of {tolerance.value_micro} micro-nats")
    table.row(
        "- farthest token behind the best",
        f"{found.worst_gap_micro} of {tolerance.gap_micro} micro-nats",
    )
    for why in found.refuted[:10]:
        print(f"  {why}")


async def _check_texts(engine: Engine, bundle: Bundle, found: Found, windows: int, chance: Random) -> None:
    most = bundle.manifest.context_tokens_max
    while found.windows < windows:
        prompt = tuple(chance.randrange(3, TOKENS) for _ in range(chance.randint(4, most // 4)))
        planned = chance.randint(1, most - len(prompt))
        sampling = Parameters(
            planned, chance.choice(TEMPERATURES_MILLI), chance.choice(TOP_P_PPM), chance.getrandbits(62)
        )
        text = await _ask(engine, bundle, GENERATE, sampling, Work((prompt,)), len(prompt))
        written = len(text.tokens)
        whole = chance.random() < WHOLE
        most_claimed = written if whole else WINDOW_TOKENS
        for start in range(0, written, most_claimed):
            end = min(start + most_claimed, written)
            work = Work(((*prompt, *text.tokens[:end]),), end - start)
            read = await _ask(engine, bundle, SCORE, sampling, work, len(prompt) + start)
            for at in range(start, end, WINDOW_TOKENS):
                window = slice(at, min(at + WINDOW_TOKENS, end))
                found.alone += not whole
                _note(found, text.values_micro[window], _part(read, window, start), sampling, bundle)


def _part(read: Piece, window: slice, start: int) -> Piece:
    """What was found of these tokens, in a check that begins at `start`."""
    part = slice(window.start - start, window.stop - start)
    return Piece(
        values_micro=read.values_micro[part], gaps_micro=read.gaps_micro[part], masses_ppm=read.masses_ppm[part]
    )


def _note(found: Found, claimed: tuple[int, ...], read: Piece, sampling: Parameters, bundle: Bundle) -> None:
    found.windows += 1
    if found.windows % SAID == 0:
        print(f"{found.windows} windows, {len(found.refuted)} refuted", file=sys.stderr, flush=True)
    off = max(abs(one - other) for one, other in zip(claimed, read.values_micro, strict=True))
    found.worst_value_micro = max(found.worst_value_micro, off)
    found.worst_gap_micro = max(found.worst_gap_micro, *read.gaps_micro)
    if why := refutes(claimed, read, sampling.top_p_ppm, bundle.manifest.tolerance):
        found.refuted.append(f"temperature {sampling.temperature_milli}, top-p {sampling.top_p_ppm}: {why}")


async def _ask(engine: Engine, bundle: Bundle, entry: str, sampling: Parameters, work: Work, given: int) -> Piece:
    """All that one job gives, by a client never seen before."""
    plain, order = Input(os.urandom(32), os.urandom(32), work.encode()), os.urandom(32)
    sealed = seal_input(engine.hpke_key, order, plain.encode())
    job = EngineJob(order, bundle.hash, os.urandom(32), entry, sampling, plain.digest, given, sealed)
    sealer, pieces = PieceSealer(plain.reply_secret, order), list[Piece]()
    async for piece in engine.submit(job):
        pieces.append(decode_piece_untrusted(sealer.open(piece.index, piece.sealed)))
    return Piece(
        tokens=tuple(token for piece in pieces for token in piece.tokens),
        values_micro=tuple(value for piece in pieces for value in piece.values_micro),
        gaps_micro=tuple(gap for piece in pieces for gap in piece.gaps_micro),
        masses_ppm=tuple(mass for piece in pieces for mass in piece.masses_ppm),
    )


if __name__ == "__main__":
    main()

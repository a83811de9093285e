"""What checking costs in executor time, and what it catches: the client's own policy code on measured costs.

    python benchmarks/assurance.py [NAME]     a text bundle built on this machine (smollm2-135m-instruct)
    python benchmarks/assurance.py --policies     without the engine: adversaries and the bound alone
    python benchmarks/assurance.py --costs [--rounds N] [--chat]     the engine alone
    python benchmarks/assurance.py --rates     how many windows are checked, alone
    python benchmarks/assurance.py --only "one window in 100"     these adversaries alone

Costs, in processor time of the worker: whole answers of the two named workloads at 1, 8 and 16 streams side by side, and the
check of each window by itself, of a client whom the checker has not met (no prefix is kept), through the engine. Rates: six
honest nodes that are all new to the client, twenty answers a day each; half of the pay is held for a week, in parts.
Adversaries: `adversaries.py`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import mean, median

import jobs
import psutil
import table
import trio
from adversaries import Cheat, Told, World, refuted

from fallow.client.wallet import CHANNEL_MS
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.messages import EngineJob
from fallow.node.engine.sealing import PieceSealer, seal_input
from fallow.protocol.limits import WINDOW_TOKENS
from fallow.protocol.work import Input, Parameters, Work, decode_piece_untrusted
from fallow.verifier.audits import FLOOR_PPM, MILLION, Deterrence, audit_ppm, held_needed_ucr

STREAMS = (1, 8, 16)
ROUNDS = 3
NODES, ANSWERS, A_DAY = 6, 200, 20
"""Of the rates: nodes, answers of each as a newcomer, and answers a day of each."""
STEADY_AIM, NEW_AIM = 1.05, 1.3
FIRST, AFTER = "first 200 answers of a newcomer", "in the quarter of a year after them"
CROWD, DISHONEST, ASKED = 10, 2, 150
"""Of the adversaries: nodes, those of them that cheat (each of an owner of its own), and answers in one history."""
SPARE = (0, 32, 100, 200, 1000)
"""Tokens that a text does without: as many as it has, or five times as many."""
DAY_MS = 24 * 3600 * 1000
LIFE = A_DAY * CHANNEL_MS // DAY_MS
"""Answers of each node while one channel lasts: so many come after the first, so that its beginning is among them."""


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    prompt: int
    answer: int

    @property
    def ends(self) -> list[int]:
        """Tokens of the text up to the end of each of its windows."""
        return [self.prompt + min(at + WINDOW_TOKENS, self.answer) for at in range(0, self.answer, WINDOW_TOKENS)]

    @property
    def price_ucr(self) -> int:
        """Of a window, by the default prices."""
        return (self.prompt + 4 * self.answer) // len(self.ends)


CHAT, LONG = Workload("chat, 40 in, 200 out", 40, 200), Workload("long prompt, 1000 in, 50 out", 1000, 50)


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--policies", action="store_true", help="adversaries and the bound alone")
    part.add_argument("--costs", action="store_true", help="executor time alone")
    part.add_argument("--rates", action="store_true", help="windows checked, without the engine")
    part.add_argument("--only", help="adversaries whose names have these words, alone")
    parser.add_argument("--chat", action="store_true", help="of the costs, the first workload alone")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each cost")
    parser.add_argument("--histories", type=int, default=1000, help="simulated histories of each adversary")
    options = parser.parse_args()
    if options.rates:
        return checked()
    if not options.policies and options.only is None:
        store, bundle = jobs.installed(options.name)
        trio.run(overhead, store, bundle, (CHAT,) if options.chat else (CHAT, LONG), options.rounds)
    if not options.costs:
        adversaries(options.histories, options.only or "")
    if not options.costs and options.only is None:
        bound(options.histories)


# --- what it costs ---


async def overhead(store: BundleStore, bundle: Bundle, works: Sequence[Workload], rounds: int) -> None:
    """Prints executor time with checks over executor time without, by workload and streams."""
    table.head()
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "worker.log")
        async with open_engine(store, [bundle.cid], log_path=log, max_jobs=max(STREAMS)) as engine:
            await jobs.all_loaded(bundle, log)
            await jobs.chores_done(engine)
            for work in works:
                await _workload(engine, bundle, work, rounds)


async def _workload(engine: Engine, bundle: Bundle, work: Workload, rounds: int) -> None:
    work = replace(work, prompt=min(work.prompt, bundle.manifest.context_tokens_max - work.answer))
    prompt = tuple(range(1000, 1000 + work.prompt))
    text = await jobs.write(engine, bundle, prompt, work.answer)
    if len(text.tokens) < work.answer:
        raise SystemExit("the model ended its answer early: choose another prompt")
    checks: list[list[float]] = [[] for _ in work.ends]
    whole: dict[int, list[float]] = {streams: [] for streams in STREAMS}
    for _ in range(rounds):
        for place, end in enumerate(work.ends):
            tokens = (*prompt, *text.tokens)[:end]
            claimed = min(WINDOW_TOKENS, end - work.prompt - place * WINDOW_TOKENS)
            checks[place].append(await _check(engine, bundle, tokens, claimed))
        for streams in STREAMS:
            began = worker_s()
            async with trio.open_nursery() as nursery:
                for _ in range(streams):
                    nursery.start_soon(jobs.write, engine, bundle, prompt, work.answer)
            whole[streams].append((worker_s() - began) / streams)
    check_s = [median(each) for each in checks]
    table.row(f"{work.name}: checks of its {len(check_s)} windows, together", f"{sum(check_s):.2f} s")
    new, steady = rates(work)
    for streams in STREAMS:
        answer_s = median(whole[streams])
        table.row(f"- B={streams}: executor time of one answer", table.s(whole[streams]))
        for when, found, aim in ((FIRST, new, NEW_AIM), (AFTER, steady, STEADY_AIM)):
            extra = sum(share * cost for share, cost in zip(found, check_s, strict=True)) / answer_s
            checked = sum(found) / len(found)
            table.row(
                f"- B={streams}: {when}, {checked:.1%} of windows checked (spot checks among them)",
                f"{1 + extra:.3f}x",
                f"<= {aim}x",
                1 + extra <= aim,
            )


async def _check(engine: Engine, bundle: Bundle, tokens: tuple[int, ...], claimed: int) -> float:
    """Executor time of one check of the last tokens, by a node that has not met the client."""
    plain, order = Input(os.urandom(32), os.urandom(32), Work((tokens,), claimed).encode()), os.urandom(32)
    sealed = seal_input(engine.hpke_key, order, plain.encode())
    job = EngineJob(
        order, bundle.hash, os.urandom(32), "score", Parameters(200), plain.digest, len(tokens) - claimed, sealed
    )
    sealer, began = PieceSealer(plain.reply_secret, order), worker_s()
    async for piece in engine.submit(job):
        found = decode_piece_untrusted(sealer.open(piece.index, piece.sealed))
        assert max(found.gaps_micro) <= bundle.manifest.tolerance.gap_micro, "an honest text was objected to"
    return worker_s() - began


def worker_s() -> float:
    """Processor time of the worker so far, in seconds: what runs beside it on the machine changes little in that."""
    times = [each.cpu_times() for each in psutil.Process().children(recursive=True)]
    return float(sum(each.user + each.system for each in times))


def checked() -> None:
    """Prints how many windows are checked by the policy's code, as a share and by answer, with texts that end early, too."""
    table.head("workload, tokens left unwritten", FIRST, AFTER, "checks of an answer: first", "after", "of its end")
    for work in (CHAT, LONG):
        for spare in SPARE:
            new, steady = rates(work, spare)
            shares = (f"{sum(found) / len(found):.2%}" for found in (new, steady))
            checks = (f"{each:.3f}" for each in (sum(new), sum(steady), steady[-1]))
            table.cells(f"{work.name}, {spare}", *shares, *checks)


def rates(work: Workload, spare: int = 0) -> tuple[list[float], list[float]]:
    """Checks of each window of an answer, on average: among the first answers of newcomers, and after them. Each text ends by
    itself, `spare` tokens before it would have to."""
    windows, histories = len(work.ends), 5
    found: list[list[float]] = []
    for _ in range(2):
        found.append([0.0] * windows)
    for seed in range(histories):
        world = World(Cheat("nobody", lambda _served, _random: False), seed, NODES, 0, windows, work.price_ucr, spare)
        before: list[float] = [0.0] * windows
        for phase, answers in enumerate((ANSWERS, LIFE)):
            for _ in range(answers * NODES):
                world.answer(DAY_MS // (A_DAY * NODES))
            told = world.told
            spots = told.spots / windows
            now = [told.checks[place] + spots for place in range(windows)]
            for place in range(windows):
                found[phase][place] += (now[place] - before[place]) / (answers * NODES * histories)
            before = now
        assert world.told.honest_blamed == 0
    return found[0], found[1]


# --- what it catches ---


def _after(windows: int, share: float = 1.0) -> Cheat:
    name = f"honest for {windows} windows, then " if windows else ""
    what = "always" if share == 1 else f"one window in {round(1 / share)}"
    return Cheat(name + what, lambda served, random: served >= windows and random.random() < share)


CHEATS = (
    _after(0),
    _after(10),
    _after(50),
    _after(10, 1 / 20),
    _after(10, 1 / 100),
    Cheat("honest for 10 windows, then stops every answer at its beginning", lambda served, random: served >= 10,
          stops=True),
    Cheat("honest for 50 windows, then stops every answer at its beginning", lambda served, random: served >= 50,
          stops=True),
    Cheat("honest for 10 windows, then stops one answer in ten or so", lambda served, random: served >= 10
          and random.random() < 1 / 70, stops=True),
    Cheat("a ring of a fifth of all owners: honest for 10 windows, then always", lambda served, _: served >= 10, friends=True),
    Cheat("the same ring: honest for 10 windows, then one window in 20",
          lambda served, random: served >= 10 and random.random() < 1 / 20, friends=True),
)  # fmt: skip
CHECKERS = (
    Cheat("a checker that agrees with everything", lambda _served, _random: False, agrees=True),
    Cheat("a checker that objects to everything", lambda _served, _random: False, objects=True),
)
LEAVERS = (
    Cheat("yields every text after four tokens", lambda _began, _random: True, leaves=True),
    Cheat("yields every other text", lambda _began, random: random.random() < 1 / 2, leaves=True),
    Cheat("honest for 10 texts, then yields every one", lambda began, _random: began >= 10, leaves=True),
)
MET = 10
"""Answers after which a client knows whom it deals with."""


def adversaries(histories: int, words: str = "") -> None:
    """Prints, for each way to cheat, what is accepted, and how soon it is found."""
    print(
        f"\nEach: {histories} histories of {ASKED} chat answers (7 windows) by one client among {CROWD} nodes of as many"
        f" owners, {DISHONEST} of them dishonest; one answer a minute.\n"
    )
    table.head(
        "executor", "wrong windows: taken as good when they came", "that still stand at the end",
        "answers until caught: mean, 99 %", "paid for wrong windows, of what it forfeits", "honest nodes blamed",
    )  # fmt: skip
    for cheat in (cheat for cheat in CHEATS if words in cheat.name):
        told = [history(cheat, seed) for seed in range(histories)]
        wrong, after = sum(one.wrong for one in told), sorted(n for one in told for n in one.caught_after)
        paid, lost = sum(one.paid_ucr for one in told), sum(one.forfeited_ucr for one in told)
        table.cells(
            cheat.name,
            f"{sum(one.delivered for one in told) / wrong:.2%} of {wrong}",
            f"{sum(one.accepted for one in told) / wrong:.2%}",
            f"{mean(after):.1f}, {after[len(after) * 99 // 100]} ({len(after)} caught)",
            f"{paid / max(len(after), 1):.0f} of {lost / max(len(after), 1):.0f} ucr each",
            str(sum(one.honest_blamed for one in told)),
        )
    print()
    table.head("checker", "checks until found: mean, 99 %", "found", "honest nodes blamed")
    for cheat in (cheat for cheat in CHECKERS if words in cheat.name):
        told = [history(cheat, seed) for seed in range(histories)]
        after = sorted(n for one in told for n in one.checks_until_caught)
        table.cells(
            cheat.name,
            f"{mean(after):.1f}, {after[len(after) * 99 // 100]}",
            f"{len(after)} of {DISHONEST * histories}",
            str(sum(one.honest_blamed for one in told)),
        )
    print()
    table.head("executor", f"texts that each gave back: of the first {MET}, of the others", "paid for them, each text")
    for cheat in (cheat for cheat in LEAVERS if words in cheat.name):
        told = [history(cheat, seed) for seed in range(histories)]
        left = [answer for one in told for answer in one.left]
        first = sum(answer < MET for answer in left)
        shares = (
            count / (DISHONEST * histories * of) for count, of in ((first, MET), (len(left) - first, ASKED - MET))
        )
        paid_ucr = sum(one.paid_ucr for one in told) / len(left)
        table.cells(
            cheat.name,
            ", ".join(f"{share:.2%}" for share in shares),
            f"{paid_ucr:.0f} of {CHAT.prompt + 4 * CHAT.answer} ucr",
        )


def history(cheat: Cheat, seed: int) -> Told:
    """What came of one."""
    world = World(cheat, seed, CROWD, DISHONEST, len(CHAT.ends), CHAT.price_ucr)
    for _ in range(ASKED):
        if not world.over:
            world.answer(60_000)
    return world.finish()


# --- what it deters ---


def bound(histories: int) -> None:
    """Prints gain and loss of one wrong window at the rate of a proven node, by formula and as drawn with the policy's code."""
    price = CHAT.price_ucr
    saved = price * 9 // 10
    print(
        f"\nOne wrong window of a proven node: price {price} ucr, of which {saved} are saved by not computing it."
        f" Drawn {20 * histories} times for each row.\n"
    )
    table.head(
        "colluding owners (r)", "held (H)", "rate (p)", "refuted, by formula", "drawn", "gain, by formula", "drawn",
        "loss, by formula", "drawn", "honesty pays", "from H =",
    )  # fmt: skip
    for colluding in (0.0, 0.1, 0.2, 0.3, 0.5):
        for windows in (2, 10, 100):
            held = windows * price
            rate = audit_ppm(10**6, price, held, FLOOR_PPM)
            said = Deterrence(rate / MILLION, colluding, price, saved, held)
            found = drawn(rate, colluding, 20 * histories)
            table.cells(
                f"{colluding:.0%}", f"{windows} windows", f"{rate / MILLION:.1%}",
                f"{said.checked * said.convicted:.2%}", f"{found:.2%}",
                f"{said.gain_ucr:.0f}", f"{saved * (1 - found):.0f}",
                f"{said.loss_ucr:.0f}", f"{found * (held + price - saved):.0f}",
                "yes" if said.honest_pays else "**no**",
                f"{held_needed_ucr(said.checked, colluding, price, saved) / price:.1f} windows",
            )  # fmt: skip


def drawn(rate_ppm: int, colluding: float, times: int) -> float:
    """How often a wrong window is refuted where that share of owners confirms it: by draw and judgement."""
    random = Random(7)
    return sum(refuted(random, rate_ppm, colluding) for _ in range(times)) / times


if __name__ == "__main__":
    main()

"""One client of a chaos run: a process of its own that joins as anybody does and asks for one thing after another.

    python -m fallow.testnet.load --home DIR --bootstrap ADDRESS,... --chat NAME --embed NAME --out FILE ...

It asks until its standard input ends; then what is under way is finished, what was promised is brought, and it leaves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Final, TextIO

import trio

from ..client import Answer, Mesh, connect
from ..node.log import wall_ms
from ..protocol.errors import FallowError
from ..protocol.identity import peer_id
from .errands import PROMPTS, TEXT, Errand, Job, errands, packed, texts_of

FINISH_S: Final = 90.0
"""For what is under way when no more is asked: nodes are waited for 20 s, and a text may need several."""
SETTLE_S: Final = 60.0
"""For promises whose job was lost on the way."""


@dataclass
class Load:
    """What this client is to ask, and where it writes down what came of it."""

    mesh: Mesh
    chat: str
    embed: str
    assurance: str
    client: int
    pause_s: float
    out: TextIO
    numbers: count[int] = field(default_factory=count)
    stopped: bool = False

    def note(self, job: Job) -> None:
        """The job's line is written: one when it is asked, one when it has ended."""
        self.out.write(job.line())
        self.out.flush()


async def run(options: argparse.Namespace) -> None:
    """Everything was asked, finished and paid."""
    asked = errands(options.seed, options.client)
    with options.out.open("a") as out:
        async with connect(options.bootstrap.split(","), home=options.home) as mesh:
            load = Load(
                mesh, options.chat, options.embed, options.assurance, options.client, options.pause_ms / 1000, out
            )
            async with trio.open_nursery() as nursery:
                for _ in range(options.at_once):
                    nursery.start_soon(_ask, load, asked)
                await trio.lowlevel.wait_readable(0)
                load.stopped = True
                nursery.cancel_scope.deadline = trio.current_time() + FINISH_S
            with trio.move_on_after(SETTLE_S):
                await mesh.leave()
                await mesh.rest()


async def _ask(load: Load, asked: Iterator[Errand]) -> None:
    while not load.stopped:
        job = Job(load.client, next(load.numbers), next(asked), wall_ms())
        load.note(job)
        began = time.perf_counter()
        try:
            done = await (_text(load, job) if job.errand.what == TEXT else _vectors(load, job))
        except FallowError as error:
            done = replace(job, code=str(error.code), message=error.message)
        load.note(replace(done, done=True, took_ms=_ms_since(began)))
        await trio.sleep(load.pause_s)


async def _text(load: Load, job: Job) -> Job:
    began, first_ms = time.perf_counter(), 0
    stream = load.mesh.stream(
        load.chat, PROMPTS[job.errand.prompt], max_tokens=job.errand.tokens, assurance=load.assurance
    )
    async with stream:
        async for chunk in stream:
            if chunk.text and not first_ms:
                first_ms = max(1, _ms_since(began))
    answer: Answer = stream.answer
    return replace(
        job,
        first_token_ms=first_ms or _ms_since(began),
        gaps_ms=tuple(each.gap_ms for each in answer.handovers if each.position),
        handovers=tuple(each.reason for each in answer.handovers if each.position),
        executors=tuple(dict.fromkeys(each.executor for each in answer.receipts if each.role == "executor")),
        verdict=answer.verdict.outcome if answer.verdict else "",
        tokens=answer.tokens,
    )


async def _vectors(load: Load, job: Job) -> Job:
    vectors = await load.mesh.embed(load.embed, texts_of(job.errand), assurance=load.assurance)
    found = vectors.verdict.findings if vectors.verdict else ()
    return replace(
        job,
        executors=tuple(peer_id(finding.node) for finding in found),
        verdict=vectors.verdict.outcome if vectors.verdict else "",
        rows=packed(vectors.vectors),
    )


def _ms_since(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)


def main(arguments: Sequence[str] | None = None) -> None:
    """The client's process."""
    parser = argparse.ArgumentParser(prog="fallow-load")
    for name in ("bootstrap", "chat", "embed", "assurance"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("home", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("seed", "client", "at-once", "pause-ms"):
        parser.add_argument(f"--{name}", type=int, required=True)
    trio.run(run, parser.parse_args(arguments))


if __name__ == "__main__":
    main()

"""How quickly a text is read: by the programs alone, and by an engine that has read its beginning before.

    python benchmarks/prefill.py [NAME]        a text bundle built on this machine (smollm2-135m-instruct)

What is compared takes turns. A second turn is a conversation's next question: the first prompt, its answer, and a few tokens
more, of the client who asked before (its prefix is kept) and of one who did not.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

import bare
import jobs
import table
import trio
from bare import Reader, take_turns

from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.engine import open_engine
from fallow.node.engine.programs import Model

ROUNDS = 7
TEXT = 256
"""Tokens: a multiple of every chunk length, and as many as the shorter context holds."""
AIM = 350.0
"""Tokens per second on two cores: the aim, for SmolLM2."""

HISTORY, ANSWER, QUESTION = 160, 32, 24
"""Tokens of the first prompt, of its answer, and of the second question: in all within the shorter context."""


def main() -> None:
    parser = argparse.ArgumentParser()
    jobs.text_bundle(parser)
    store, bundle = jobs.installed(parser.parse_args().name)
    table.head()
    trio.run(turns, store, bundle)
    alone(bare.load(store, bundle))


def alone(model: Model) -> None:
    """Prints the rate of each program that reads, over a text of `TEXT` tokens."""
    readers = {
        f"{role} alone, chunks of {each.length}, context {each.program.context}": Reader(
            model, role, each.length, each.program.context, min(TEXT, each.program.context)
        )
        for role in ("prefill", "score")
        for each in model.programs(role)
    }
    for name, samples in take_turns({name: reader.read for name, reader in readers.items()}, ROUNDS).items():
        rates = [readers[name].tokens / each for each in samples]
        aimed = name.startswith("prefill")
        table.row(name, table.per_s(rates), f">= {AIM:.0f}" if aimed else "", not aimed or median(rates) >= AIM)


async def turns(store: BundleStore, bundle: Bundle) -> None:
    """Prints the time to the first token of a first turn, and of a second with and without what is kept of it."""
    first: list[float] = []
    kept: list[float] = []
    anew: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "worker.log")
        async with open_engine(store, [bundle.cid], log_path=log) as engine:
            await jobs.all_loaded(bundle, log)
            for index in range(ROUNDS):
                client = os.urandom(32)
                prompt = tuple(range(1000 + index, 1000 + index + HISTORY))
                text = await jobs.write(engine, bundle, prompt, ANSWER, client)
                second = (*prompt, *text.tokens, *range(2000, 2000 + QUESTION))
                first.append(text.first_s)
                kept.append((await jobs.write(engine, bundle, second, 2, client)).first_s)
                anew.append((await jobs.write(engine, bundle, second, 2)).first_s)
    table.row(f"first token, through the engine, after a prompt of {HISTORY}", table.ms(first))
    table.row(f"second turn, {HISTORY + ANSWER + QUESTION} tokens, read anew", table.ms(anew))
    share = median(bare.ratios(kept, anew))
    table.row("the same, its prefix kept", f"{table.ms(kept)}, {share:.0%} of reading it anew")


if __name__ == "__main__":
    main()

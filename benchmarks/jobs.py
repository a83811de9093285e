"""Jobs as a client seals them, submitted to an engine with nothing in between."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from fallow.node.config import default_home
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.confinement import SEALED, SECCOMP
from fallow.node.engine.engine import Engine
from fallow.node.engine.messages import EngineJob
from fallow.node.engine.sealing import PieceSealer, seal_input
from fallow.protocol.errors import EngineError
from fallow.protocol.work import Input, Parameters, Work, decode_piece_untrusted

PROMPT = tuple(range(1000, 1040))
"""SmolLM2 goes on from it for more than a hundred tokens."""

LOADED_S_MAX = 600
"""Sixteen programs compile in a minute or two."""


def text_bundle(parser: argparse.ArgumentParser) -> None:
    """The command takes the name of a text bundle."""
    parser.add_argument("name", nargs="?", default="smollm2-135m-instruct", help="a text bundle built on this machine")


def installed(name: str) -> tuple[BundleStore, Bundle]:
    """Where this machine's bundles are, and the one of this name; exits if it was not built."""
    store = BundleStore(default_home() / "store")
    bundle = store.find(name)
    if bundle is None:
        sys.exit(f"{name} is not built: run `fallow bundle build {name}`")
    return store, bundle


@dataclass(frozen=True, slots=True)
class Text:
    """What came of one job."""

    submitted: float
    """By `time.perf_counter`, as is the next."""
    arrivals: list[float]
    """One for each token."""
    tokens: tuple[int, ...]

    @property
    def first_s(self) -> float:
        """From submission to the first token."""
        return self.arrivals[0] - self.submitted

    @property
    def rate(self) -> float:
        """Tokens per second after the first."""
        return (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0])


async def write(
    engine: Engine, bundle: Bundle, prompt: tuple[int, ...], tokens: int, client: bytes | None = None
) -> Text:
    """One `generate` job, of a client never seen before unless one is given: a prefix that is kept helps only its own."""
    plain, order = Input(os.urandom(32), os.urandom(32), Work((prompt,)).encode()), os.urandom(32)
    sealed = seal_input(engine.hpke_key, order, plain.encode())
    parameters, client = Parameters(tokens), client or os.urandom(32)
    job = EngineJob(order, bundle.hash, client, "generate", parameters, plain.digest, len(prompt), sealed)
    sealer, submitted = PieceSealer(plain.reply_secret, order), time.perf_counter()
    arrivals: list[float] = []
    written: list[int] = []
    async for piece in engine.submit(job):
        arrivals += [time.perf_counter()] * piece.tokens
        written += decode_piece_untrusted(sealer.open(piece.index, piece.sealed)).tokens
    return Text(submitted, arrivals, tuple(written))


async def write_beside(engine: Engine, bundle: Bundle, streams: int, clients: int, tokens: int) -> list[Text]:
    """So many jobs at once, of so many clients."""
    texts: list[Text] = []
    keys = [os.urandom(32) for _ in range(clients)]

    async def one(client: bytes) -> None:
        texts.append(await write(engine, bundle, PROMPT, tokens, client))

    async with trio.open_nursery() as nursery:
        for index in range(streams):
            nursery.start_soon(one, keys[index % clients])
    return texts


async def write_until_killed(engine: Engine, bundle: Bundle, client: bytes | None = None) -> None:
    """One job after another, until the worker that does them is killed."""
    with suppress(EngineError):
        while True:
            await write(engine, bundle, PROMPT, 96, client)


async def all_loaded(bundle: Bundle, log: Path, *, starts: int = 1) -> None:
    """The worker has every program of the bundle, which it loads while it has nothing else to do, by its log.

    `starts`: how many workers have written to that log, none of which was ended before it had them all.
    """
    with trio.fail_after(LOADED_S_MAX):
        while True:
            said = await trio.Path(log).read_text(errors="replace")
            if all(said.count(f": {each.name} in ") >= starts for each in bundle.manifest.programs):
                return
            await trio.sleep(0.1)


async def chores_done(engine: Engine) -> None:
    """The worker has nothing of its own left to do: its processor time is its jobs' from now on. (Where it is not confined,
    nobody can tell.)"""
    with trio.fail_after(LOADED_S_MAX):
        while True:
            if SEALED in engine.measures or SECCOMP not in engine.measures:
                return
            await trio.sleep(0.1)

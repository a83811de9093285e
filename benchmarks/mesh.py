"""What the mesh costs beside the engine alone, and what a failure costs its reader. Prints a table in Markdown.

    python benchmarks/mesh.py [--chat NAME] [--embed NAME]       bundles built on this machine

Real nodes over loopback; what is compared alternates within one run, since the machine's load shows in every figure.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import jobs
import trio

from fallow.client import Mesh, connect
from fallow.client.tokenizer import Prompt, Tokenizer
from fallow.node.config import default_home
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.engine import Engine, open_engine
from fallow.node.engine.messages import EngineJob
from fallow.node.engine.sealing import seal_input
from fallow.node.trust import FILE_NAME, TrustList
from fallow.node.workplace import WORKER_LOG
from fallow.protocol.work import Input, Parameters, Work
from fallow.testnet import record
from fallow.testnet.demo_script import REAL, TINY
from fallow.testnet.local import Testnet
from fallow.testnet.record import LocalNode

QUESTION = "Why is the sky blue?"
TOKENS = 64
ROUNDS = 5
INTERRUPT_AFTER = 12
"""Chunks that the reader has seen when the node is interrupted."""

Run = tuple[float, float]
"""Seconds to the first token, and tokens per second from there."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chat", default=REAL.chat)
    parser.add_argument("--embed", default=REAL.embed)
    options = parser.parse_args()
    print("| what | measured |\n|---|---|")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        trio.run(measure, options.chat, options.embed, Path(scratch))


def row(what: str, measured: str) -> None:
    print(f"| {what} | {measured} |", flush=True)


def milliseconds(samples: list[float]) -> str:
    listed = ", ".join(f"{sample * 1000:.0f}" for sample in sorted(samples))
    return f"{statistics.median(samples) * 1000:.0f} ms (median of {listed})"


async def measure(chat: str, embed: str, scratch: Path) -> None:
    async with Testnet.start(scratch / "one", nodes=1, bundles=(chat,)) as testnet:
        await settled(testnet.nodes, (chat,))
        await beside_the_engine(testnet, chat, scratch)
    began = time.perf_counter()
    async with Testnet.start(scratch / "six", nodes=6, bundles=(chat, embed)) as testnet:
        row("six nodes started side by side, all ready", f"{time.perf_counter() - began:.1f} s")
        await settled(testnet.nodes, (chat, embed))
        row("and have loaded all their programs", f"{time.perf_counter() - began:.1f} s")
        await joining(testnet, chat, scratch)
        async with client(testnet, scratch / "client") as mesh:
            await quorums(mesh, chat, embed)
            await memory(testnet)
        await failures(testnet, chat, embed, scratch)


async def settled(nodes: list[LocalNode], names: tuple[str, ...], *, starts: int = 1) -> None:
    """No worker of these nodes loads a program any more: what is measured then is no node's start."""
    store, trusted = BundleStore(default_home() / "store"), TrustList.load(default_home())
    bundles = [store.open(trusted.resolve(name).cid) for name in names]
    for node in nodes:
        for bundle in bundles:
            await jobs.all_loaded(bundle, node.folder / WORKER_LOG, starts=starts)


@asynccontextmanager
async def client(testnet: Testnet, home: Path) -> AsyncIterator[Mesh]:
    """A client that has never met anybody; trusts what this machine trusts."""
    async with connect(testnet.bootstrap, home=prepared(home)) as mesh:
        yield mesh


def prepared(home: Path) -> Path:
    home.mkdir()
    if (machine := default_home() / FILE_NAME).exists():
        shutil.copy(machine, home / FILE_NAME)
    return home


async def beside_the_engine(testnet: Testnet, chat: str, scratch: Path) -> None:
    """One node, one job at a time, against the same engine and bundle with nothing in between."""
    store = BundleStore(default_home() / "store")
    bundle = store.open(TrustList.load(default_home()).resolve(chat).cid)
    tokenizer = Tokenizer(bundle.manifest, (bundle.path / "tokenizer.json").read_bytes())
    questions = [f"{number}. {QUESTION}" for number in range(ROUNDS + 1)]  # each new: what was read before is kept
    prompts = [tokenizer.prompt(question) for question in questions]
    direct: list[Run] = []
    meshed: list[Run] = []
    async with (
        open_engine(store, [bundle.cid], log_path=scratch / WORKER_LOG) as engine,
        client(testnet, scratch / "beside") as mesh,
    ):
        await jobs.all_loaded(bundle, scratch / WORKER_LOG)
        await asked(engine, bundle, prompts[0])
        await streamed(mesh, chat, questions[0])
        for prompt, question in zip(prompts[1:], questions[1:], strict=True):
            direct.append(await asked(engine, bundle, prompt))
            meshed.append(await streamed(mesh, chat, question))
    (first_direct, rate_direct), (first_mesh, rate_mesh) = (
        [statistics.median(column) for column in zip(*runs, strict=True)] for runs in (direct, meshed)
    )
    row("tokens/s, engine called directly", f"{rate_direct:.1f}")
    row("tokens/s, through the mesh", f"{rate_mesh:.1f} ({rate_mesh / rate_direct:.1%})")
    row(f"first token after a prompt of {len(prompts[1])}, engine called directly", f"{first_direct * 1000:.0f} ms")
    row("first token, through the mesh", f"{first_mesh * 1000:.0f} ms ({(first_mesh - first_direct) * 1000:+.0f} ms)")


async def asked(engine: Engine, bundle: Bundle, prompt: tuple[int, ...]) -> Run:
    plain = Input(secrets.token_bytes(32), secrets.token_bytes(32), Work((prompt,)).encode())
    order = os.urandom(32)
    began, times = time.perf_counter(), []
    sealed = seal_input(engine.hpke_key, order, plain.encode())
    job = EngineJob(order, bundle.hash, bytes(32), "generate", Parameters(TOKENS), plain.digest, len(prompt), sealed)
    async for piece in engine.submit(job):
        times += [time.perf_counter() - began] * piece.tokens
    return times[0], (len(times) - 1) / (times[-1] - times[0])


async def streamed(mesh: Mesh, chat: str, prompt: Prompt) -> Run:
    began, times = time.perf_counter(), []
    stream = mesh.stream(chat, prompt, max_tokens=TOKENS, assurance="none")
    async for _ in stream:
        times.append(time.perf_counter() - began)
    return times[0], (stream.answer.usage.completion_tokens - 1) / (times[-1] - times[0])


async def joining(testnet: Testnet, chat: str, scratch: Path) -> None:
    joins, finds = [], []
    for number in range(3):
        began = time.perf_counter()
        async with client(testnet, scratch / f"join-{number}") as mesh:
            joins.append(time.perf_counter() - began)
            began = time.perf_counter()
            found = await mesh.nodes(chat)
            finds.append(time.perf_counter() - began)
            assert len(found) == len(testnet.nodes), "discovery missed a node"
    row("a new client joins", milliseconds(joins))
    row("it finds all six providers, dials each and has its profile", milliseconds(finds))


async def quorums(mesh: Mesh, chat: str, embed: str) -> None:
    async def text(assurance: str) -> None:
        await mesh.generate(chat, QUESTION, max_tokens=48, assurance=assurance)

    async def vectors(assurance: str) -> None:
        await mesh.embed(embed, ["parked", "driving"], assurance=assurance)

    for name, call in (("48 tokens of text", text), ("two embeddings", vectors)):
        for assurance in ("none", "quorum:2/3"):
            row(f"{name}, {assurance}", milliseconds([await timed(call, assurance) for _ in range(3)]))


async def timed(call: Callable[[str], Awaitable[None]], argument: str) -> float:
    began = time.perf_counter()
    await call(argument)
    return time.perf_counter() - began


async def memory(testnet: Testnet) -> None:
    shares = [status.memory_bytes / 2**20 for status in await record.status(testnet.directory)]
    row("memory of a node and its worker (PSS), six of them", f"{statistics.median(shares):.0f} MiB (median)")


async def failures(testnet: Testnet, chat: str, embed: str, scratch: Path) -> None:
    """Each gap beside what reading the prompt anew takes on a node that nothing happens to, measured in turn.

    By a new client each time: of an old one the nodes have kept what they read.
    """
    prompt = TINY.steady if chat == TINY.chat else REAL.steady
    anew: list[float] = []
    starts: dict[str, int] = {}

    async def gaps(
        nodes: list[LocalNode], interrupt: Callable[[LocalNode], Awaitable[None]], *, park: bool = False
    ) -> str:
        samples = []
        for node in nodes:
            async with client(testnet, scratch / secrets.token_hex(8)) as mesh:
                anew.append((await streamed(mesh, chat, prompt))[0])
                whole = await mesh.generate(chat, prompt, max_tokens=40, assurance="none")
            async with client(testnet, scratch / secrets.token_hex(8)) as mesh:
                samples.append(await gap(mesh, chat, prompt, whole.text, node, interrupt))
            if park:  # only now: a worker that starts takes the processor from the node that goes on
                await testnet.park(node)
                await ready(testnet, node)
                starts[node.peer_id] = starts.get(node.peer_id, 1) + 1
                await settled([node], (chat, embed), starts=starts[node.peer_id])
        return milliseconds(samples)

    vehicles = [node for node in testnet.nodes if node.kind == "vehicle"]
    robots = [node for node in testnet.nodes if node.kind == "robot"]
    row("gap when the executor yields", await gaps([*vehicles, vehicles[0]], testnet.drive, park=True))
    row("gap when it is killed (SIGKILL)", await gaps(robots, testnet.kill))
    row("gap when it is frozen (SIGSTOP)", await gaps([testnet.nodes[1]], testnet.freeze))
    row("of these gaps, the prompt read anew (first token of a fresh job)", milliseconds(anew))


async def gap(
    mesh: Mesh,
    chat: str,
    prompt: Prompt,
    whole: str,
    node: LocalNode,
    interrupt: Callable[[LocalNode], Awaitable[None]],
) -> float:
    """Seconds in which the reader saw nothing; no token was lost, or the text would differ."""
    arrivals: list[tuple[float, str]] = []
    stream = mesh.stream(chat, prompt, max_tokens=40, assurance="none", executors=[node.peer_id])
    async with trio.open_nursery() as nursery:
        async for chunk in stream:
            arrivals.append((time.perf_counter(), chunk.executor))
            if len(arrivals) == INTERRUPT_AFTER:
                nursery.start_soon(interrupt, node)
    assert stream.answer.text == whole, "the text after the handover is another"
    before = max(when for when, executor in arrivals if executor == node.peer_id)
    return min(when for when, executor in arrivals if executor != node.peer_id) - before


async def ready(testnet: Testnet, node: LocalNode) -> None:
    while True:
        for status in await record.status(testnet.directory):
            if status.node == node and status.state == "ready":
                return
        await trio.sleep(0.1)


if __name__ == "__main__":
    main()

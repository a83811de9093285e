"""A bundle fetched over loopback, beside the bare exchange of as many bytes by the same libp2p: `python benchmarks/fetch.py`.

64 MiB of random weights; each source is a process of its own, the fetcher is this one. The bare exchange asks for 1 MiB at
a time, four on the way, and drops what comes. Rounds alternate; compare within a run.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from nacl.signing import SigningKey

from fallow.node.blobs import Blobs
from fallow.node.engine.bundles import Bundle, BundleStore, file_of
from fallow.node.fetching import fetch
from fallow.node.log import EventLog
from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.seam import Provider, Stream, Validator
from fallow.protocol.bundle import Manifest, Program, Tensor, Tolerance
from fallow.protocol.envelope import sign
from fallow.protocol.limits import CHUNK_BYTES
from fallow.protocol.streams import BLOB_PROTOCOL

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
VALIDATOR = Validator(lambda key, value: None, lambda key, values: 0)
MIB = 64
ROUNDS = 5
SOURCES = 3
ON_THE_WAY = 4
BARE = "/bench/bulk"


def seed(number: int) -> bytes:
    return hashlib.sha256(b"a benchmark's source %d" % number).digest()


def make_bundle(folder: Path) -> Bundle:
    """Random weights that nobody can run; the same wherever it is made."""
    files = {}
    for name, content in {
        "weights.safetensors": hashlib.shake_128(b"weights").digest(MIB * CHUNK_BYTES),
        "tokenizer.json": b"{}",
        "programs/call": b"",
    }.items():
        files[name] = folder / name.replace("/", "-")
        files[name].write_bytes(content)
    program = Program("call", "call", 1, 8, 8, file_of(files["programs/call"]), 0, 0)
    manifest = Manifest(
        "random", "none", "CC0-1.0", "random", ("call",), file_of(files["weights.safetensors"]), (), (), (),
        (Tensor("numbers", "float32", (8,)),), (program,),
        file_of(files["tokenizer.json"]), None, 8, (), Tolerance(0, 0, 0, 0, 0, (), ""),
    )  # fmt: skip
    return BundleStore(folder / "store").install(manifest, lambda made: sign(made, SigningKey(seed(100))), files)


async def bulk(stream: Stream) -> None:
    """1 MiB for each frame that comes."""
    content = bytes(CHUNK_BYTES)
    while True:
        await stream.receive()
        await stream.send(content)


async def child(number: int, root: str, cid: str) -> None:
    """A source in a process of its own, until its input ends."""
    bundle = BundleStore(Path(root)).open(cid)
    async with open_network(seed(number), [LOOPBACK], [], VALIDATOR) as network:
        network.serve(BLOB_PROTOCOL, Blobs(lambda: [bundle], EventLog(Path(root))).answer)
        network.serve(BARE, bulk)
        print(json.dumps([network.key.hex(), *network.addresses()]), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


@asynccontextmanager
async def source(number: int, bundle: Bundle) -> AsyncIterator[Provider]:
    root = str(bundle.path.parent.parent)
    command = [sys.executable, __file__, "child", str(number), root, bundle.cid]
    process = await trio.lowlevel.open_process(command, stdin=-1, stdout=-1)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        key, *addresses = json.loads(await process.stdout.receive_some())
        yield Provider(bytes.fromhex(key), tuple(addresses))
    finally:
        with trio.CancelScope(shield=True), trio.fail_after(10):
            await process.stdin.aclose()
            await process.wait()
            await process.stdout.aclose()


async def exchange(network: Mesh, sources: Sequence[Provider]) -> None:
    """As many bytes as the bundle has, from all sources together."""

    async def draw(peer: Provider, chunks: int) -> None:
        stream = await network.open(peer.peer, BARE, peer.addresses)
        for index in range(chunks + ON_THE_WAY):
            if index < chunks:
                await stream.send(b"more")
            if index >= ON_THE_WAY:
                await stream.receive()
        await stream.close()

    async with trio.open_nursery() as nursery:
        for index, peer in enumerate(sources):
            nursery.start_soon(draw, peer, len(range(index, MIB, len(sources))))


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """MiB a second."""
    began = time.perf_counter()
    await call()
    return MIB / (time.perf_counter() - began)


async def measure(bundle: Bundle, providers: Sequence[Provider], scratch: Path) -> None:
    """Prints a row: medians and ranges of the two, and the median of each round's ratio."""
    bare, fetched = list[float](), list[float]()

    async def find() -> Sequence[Provider]:
        await trio.lowlevel.checkpoint()
        return providers

    async with open_network(
        seed(99), [], [address for peer in providers for address in peer.addresses], VALIDATOR, mode="client"
    ) as network:
        for number in range(ROUNDS):
            store = BundleStore(scratch / f"{len(providers)}-{number}")
            bare.append(await timed(lambda: exchange(network, providers)))
            fetched.append(await timed(partial(fetch, network, store, bundle.cid, find)))
    ratio = statistics.median(one / other for one, other in zip(fetched, bare, strict=True))
    print(f"| {len(providers)} | {shown(fetched)} | {shown(bare)} | {100 * ratio:.0f} % |", flush=True)


def shown(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})"


async def main() -> None:
    if sys.argv[1:2] == ["child"]:
        return await child(int(sys.argv[2]), sys.argv[3], sys.argv[4])
    print(f"| sources | fetched and checked, MiB/s (of {ROUNDS}) | bare exchange, MiB/s | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        bundle = make_bundle(Path(scratch))
        async with AsyncExitStack() as stack:
            providers = [await stack.enter_async_context(source(number, bundle)) for number in range(SOURCES)]
            for count in (1, SOURCES):
                await measure(bundle, providers[:count], Path(scratch))


if __name__ == "__main__":
    trio.run(main)

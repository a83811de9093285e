"""A store with a bundle of random content, and peers that share it, well or badly."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node.engine.bundles import Bundle, BundleStore, file_of
from fallow.node.network.mesh import Mesh, open_network
from fallow.node.network.seam import Provider, Stream, Validator
from fallow.protocol.bundle import Manifest, Program, Tensor, Tolerance
from fallow.protocol.envelope import sign
from fallow.protocol.limits import CHUNK_BYTES
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.messages.discovery import BlobReply, BlobRequest
from fallow.protocol.streams import BLOB_PROTOCOL

PUBLISHER = SigningKey(bytes(range(32)))
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
VALIDATOR = Validator(lambda key, value: None, lambda key, values: 0)


def noise(length_bytes: int, seed: int = 0) -> bytes:
    """Content of which no two chunks are the same."""
    return hashlib.shake_128(b"%d" % seed).digest(length_bytes)


def install(store: BundleStore, folder: Path, *, chunks: int = 12, name: str = "made-up", seed: int = 0) -> Bundle:
    """A bundle that nobody can run, with weights of so many chunks."""
    folder.mkdir(parents=True)
    files = {}
    for file, content in {
        "weights.safetensors": noise(chunks * CHUNK_BYTES - 7, seed),
        "tokenizer.json": b"{}",
        "programs/call": b"",
    }.items():
        files[file] = folder / file.replace("/", "-")
        files[file].write_bytes(content)
    manifest = Manifest(
        name=name,
        family="none",
        licence="CC0-1.0",
        provenance="made up",
        entries=("call",),
        weights=file_of(files["weights.safetensors"]),
        parameters=(),
        state=(),
        inputs=(),
        outputs=(Tensor("y", "float32", (1,)),),
        programs=(Program("call", "call", 1, 8, 8, file_of(files["programs/call"]), 0, 0),),
        tokenizer=file_of(files["tokenizer.json"]),
        chat_template=None,
        context_tokens_max=8,
        end_tokens=(),
        tolerance=Tolerance(0, 0, 0, 0, 0, (), ""),
    )
    return store.install(manifest, lambda made: sign(made, PUBLISHER), files)


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A sound bundle of twelve chunks and two small files."""
    folder = tmp_path_factory.mktemp("origin")
    return install(BundleStore(folder / "store"), folder / "files")


@dataclass
class Sharing:
    """A peer that shares the bundle. What it is asked for is counted; `change` may alter what it answers."""

    bundle: Bundle
    network: Mesh
    change: Callable[[bytes, bytes | None], Awaitable[bytes | None]] | None = None
    asked: Counter[bytes] = field(default_factory=Counter)

    @property
    def provider(self) -> Provider:
        return Provider(self.network.key, self.network.addresses())

    async def answer(self, stream: Stream) -> None:
        while True:
            request = decode_message_untrusted(await stream.receive())
            assert isinstance(request, BlobRequest)
            self.asked[request.hash] += 1
            content = self.bundle.chunk(request.hash)
            if self.change is not None:
                content = await self.change(request.hash, content)
            await stream.send(encode_message(BlobReply(content)))


async def _hold(context: Any, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    async with context as entered:
        task_status.started(entered)
        await trio.sleep_forever()


@pytest.fixture
def join(nursery: trio.Nursery) -> Callable[..., Awaitable[Mesh]]:
    """A node of its own in this process: `await join(1)`, joined by the addresses if there are any."""

    async def join(number: int, bootstrap: Sequence[str] = ()) -> Mesh:
        seed = hashlib.sha256(b"a source %d" % number).digest()
        with trio.fail_after(30):
            mesh: Mesh = await nursery.start(_hold, open_network(seed, [LOOPBACK], bootstrap, VALIDATOR))
        return mesh

    return join


@pytest.fixture
def share(join: Callable[..., Awaitable[Mesh]], origin: Bundle) -> Callable[..., Awaitable[Sharing]]:
    """A peer that shares the bundle: `await share(1, change)`."""

    async def share(number: int, change: Any = None, bootstrap: Sequence[str] = ()) -> Sharing:
        sharing = Sharing(origin, await join(number, bootstrap), change)
        sharing.network.serve(BLOB_PROTOCOL, sharing.answer)
        return sharing

    return share

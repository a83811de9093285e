"""What a client needs of a bundle: its manifest and tokenizer, from this machine or from the nodes that serve it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

import trio

from ..node.engine.bundles import BundleStore
from ..node.machine import beside
from ..node.network.seam import Network
from ..node.trust import TrustEntry, TrustList
from ..protocol.bundle import File, Manifest
from ..protocol.envelope import Signed, verify_untrusted
from ..protocol.errors import Code, NetworkError, Refused, RemoteProtocolError, StoreError
from ..protocol.identity import cid_hash_untrusted, content_hash
from ..protocol.limits import MANIFEST_BYTES_MAX
from ..protocol.messages.codec import decode_message_untrusted, encode_message
from ..protocol.messages.discovery import BlobReply, BlobRequest
from ..protocol.streams import BLOB_PROTOCOL
from .nodes import Node
from .tokenizer import Tokenizer

BLOB_S = 10.0
"""For one chunk of 1 MiB from one node: about 1 Mbit/s."""
TOKENIZER_BYTES_MAX = 64 * 1024 * 1024
"""The largest tokenizers in use take about 20 MB."""


@dataclass(frozen=True)
class ClientBundle:
    """A bundle, by the hash of its manifest, as far as a client needs it."""

    name: str
    signed: Signed[Manifest]
    text: Tokenizer | None
    """Absent if it is a function of arrays alone."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Of its texts. Raises `Refused(unknown_entry)` if it takes none."""
        if self.text is None:
            raise Refused(Code.UNKNOWN_ENTRY, f"{self.name} takes arrays, not text: use `Mesh.call`.")
        return self.text

    @property
    def hash(self) -> bytes:
        """Of the manifest's envelope: the bundle's name on the wire."""
        return self.signed.id

    @property
    def manifest(self) -> Manifest:
        return self.signed.record


class Bundles:
    """Bundles by name. What was fetched is kept under `<home>/blobs` by its hash, and checked at every use."""

    def __init__(
        self, home: Path, trust: TrustList, network: Network, on_wrong: Callable[[bytes], None] = lambda node: None
    ) -> None:
        """`on_wrong` is told of each node that gave another content than it was asked for."""
        self._store = BundleStore(home / "store")
        self._blobs = home / "blobs"
        self._trust = trust
        self._network = network
        self._on_wrong = on_wrong
        self._open: dict[str, ClientBundle] = {}
        self.wrong: set[bytes] = set()
        """Nodes that gave another content than they were asked for: they are not asked again."""

    def resolve(self, name: str) -> TrustEntry:
        """What the trust list says the name stands for. Raises `Refused(unknown_name)`."""
        return self._trust.resolve(name)

    async def open(self, name: str, nodes: Sequence[Node]) -> ClientBundle:
        """The bundle that the trust list means by `name`; what is not on this machine comes from `nodes`."""
        if name in self._open:
            return self._open[name]
        entry = self.resolve(name)
        wanted = cid_hash_untrusted(entry.cid)
        signed = await self._manifest(entry, wanted, nodes)
        tokenizer = None
        if (file := signed.record.tokenizer) is not None:
            if file.length_bytes > TOKENIZER_BYTES_MAX:
                raise Refused(Code.TOO_LARGE, f"The tokenizer of {name} is larger than any in use.")
            encoded = await self._file(file, nodes)
            tokenizer = await beside(lambda: Tokenizer(signed.record, encoded))
        self._open[name] = ClientBundle(name, signed, tokenizer)
        return self._open[name]

    async def _manifest(self, entry: TrustEntry, wanted: bytes, nodes: Sequence[Node]) -> Signed[Manifest]:
        envelope = await self._blob(wanted, nodes)
        return verify_untrusted(Manifest, envelope, signer=entry.publisher, bytes_max=MANIFEST_BYTES_MAX)

    async def _file(self, file: File, nodes: Sequence[Node]) -> bytes:
        chunks = [await self._blob(chunk, nodes) for chunk in file.chunks]
        return b"".join(chunks)

    async def _blob(self, wanted: bytes, nodes: Sequence[Node]) -> bytes:
        """Content by its hash: from the machine's bundle store, this client's cache, or a node."""
        if (kept := await beside(lambda: self._kept(wanted))) is not None:
            return kept
        for node in nodes:
            if node.key in self.wrong:
                continue
            try:
                with trio.fail_after(BLOB_S):
                    request = encode_message(BlobRequest(wanted))
                    frame = await self._network.request(node.key, BLOB_PROTOCOL, request, node.addresses)
                reply = decode_message_untrusted(frame)
            except (NetworkError, RemoteProtocolError, trio.TooSlowError):
                continue
            if not isinstance(reply, BlobReply) or reply.content is None:
                continue
            if content_hash(reply.content) == wanted:
                await beside(partial(self._keep, wanted, reply.content))
                return reply.content
            self.wrong.add(node.key)
            self._on_wrong(node.key)
        raise NetworkError(Code.PEER_UNREACHABLE, "No node that was found could give a part of the bundle.")

    def _kept(self, wanted: bytes) -> bytes | None:
        for bundle in self._store.list():
            try:
                if (content := bundle.chunk(wanted)) is not None:
                    return content
            except StoreError:
                continue  # damaged here: a node has it
        path = self._blobs / wanted.hex()
        content = path.read_bytes() if path.exists() else b""
        return content if content and content_hash(content) == wanted else None

    def _keep(self, wanted: bytes, content: bytes) -> None:
        """It is here the next time, unless the disk takes no more: then it is fetched again."""
        with suppress(OSError):
            self._blobs.mkdir(parents=True, exist_ok=True)
            # A name of its own: jobs side by side, and other processes, may be keeping the same just now.
            with NamedTemporaryFile(dir=self._blobs, delete=False) as scratch:
                path = Path(scratch.name)
                try:
                    scratch.write(content)
                    scratch.flush()
                    path.replace(self._blobs / wanted.hex())
                finally:
                    path.unlink(missing_ok=True)

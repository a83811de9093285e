"""What simulated bundles weigh: real files of chunks that anybody can tell apart, and nobody can run.

Only what somebody is to fetch has any. It lies in each node's own store, as on a real disk, and comes by the node's own code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from blake3 import blake3

from ....node.engine.bundles import BundleStore
from ....node.trust import FILE_NAME
from ....protocol.bundle import File
from ....protocol.identity import cid
from ....protocol.limits import CHUNK_BYTES
from ..scenario import APPEAR, Bundle, Scenario
from .bundles import SimBundle

MB: Final = 1_000_000
BYTES_MAX: Final = 4_000_000_000
"""Of all nodes' stores together, if whoever wants a bundle has got it: they lie in memory."""


def spreads(scenario: Scenario, bundle: Bundle) -> bool:
    """Whether somebody is to fetch the bundle in this scenario."""
    return bundle.wanted > 0 or any(event.what == APPEAR and event.bundle == bundle.name for event in scenario.events)


def weights_of(given: Bundle, seed: int) -> tuple[File, list[bytes]]:
    """The file as a manifest lists it, and its chunks: told from bundle and seed alone."""
    length = max(1, round(given.size_mb * MB))
    text = f"{seed} {given.name}".encode()
    chunks = [
        blake3(text + number.to_bytes(8)).digest(min(CHUNK_BYTES, length - number * CHUNK_BYTES))
        for number in range(-(-length // CHUNK_BYTES))
    ]
    return File(length, tuple(blake3(chunk).digest() for chunk in chunks)), chunks


class Shelf:
    """Where the contents lie until somebody publishes them, and the trust list that all machines share."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.home = folder / "home"
        self._seed = seed

    def put(self, bundles: list[SimBundle]) -> None:
        """All machines know these bundles by name, whoever has them."""
        self.home.mkdir()
        entries = [
            f'[[bundle]]\nname = "{each.given.name}"\ncid = "{cid(each.signed.id)}"\npublisher = "{each.signed.signer.hex()}"\n'
            for each in bundles
        ]
        (self.home / FILE_NAME).write_text("".join(entries))

    def install(self, bundle: SimBundle, store: BundleStore) -> None:
        """The store has the bundle, all of it."""
        scratch = store.root / "made"
        (scratch / "programs").mkdir(parents=True, exist_ok=True)
        manifest = bundle.signed.record
        _, chunks = weights_of(bundle.given, self._seed)
        files = {name: scratch / name for name in manifest.files()}
        for name, path in files.items():
            path.write_bytes(b"".join(chunks) if manifest.files()[name] == manifest.weights else NOTHING)
        store.install(manifest, lambda _: bundle.signed, files)
        for path in files.values():
            path.unlink()


NOTHING: Final = b"\0"

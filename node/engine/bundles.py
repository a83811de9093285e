"""Bundles on this machine's disk: content-addressed, installed whole or not at all, checked chunk by chunk.

    <root>/bundles/<cid>/manifest              the publisher's signed envelope; its BLAKE3 hash is the CID
    <root>/bundles/<cid>/weights.safetensors   and the manifest's other files, each under its name there
    <root>/partial/<cid>/                      what is there of a bundle that is being fetched
    <root>/pins/<cid>                          the owner wants to keep this one
    <root>/xla/                                compiled programs; native code, so readable by its owner only
    <root>/xla-workers/<bundles>/              those that a worker which serves exactly these bundles has compiled itself
    <root>/downloads/                          what bundles are made of

Whether a publisher is to be trusted is decided above; here a bundle is only what its CID says it is.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...protocol.bundle import File, Manifest
from ...protocol.envelope import Signed, claimed_signer_untrusted, verify_untrusted
from ...protocol.errors import Code, RemoteProtocolError, StoreError
from ...protocol.identity import cid, cid_hash_untrusted, content_hash
from ...protocol.limits import CHUNK_BYTES, MANIFEST_BYTES_MAX

MANIFEST = "manifest"
WORKER_CACHES = "xla-workers"
WORKER_CACHE_BYTES_MAX = 2**30
"""Of what one set of bundles has compiled to: five programs of SmolLM2 are 1 MB."""
_FILE_NAME = re.compile(r"(programs/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""Names come from a publisher: nothing that could leave the bundle's directory."""


def file_of(path: Path) -> File:
    """The file as a manifest lists it: its length and the BLAKE3 hash of each chunk. Reads it once, in 1 MiB pieces."""
    hashes = tuple(map(content_hash, _chunks(path)))
    return File(path.stat().st_size, hashes)


@dataclass(frozen=True)
class Bundle:
    """An installed bundle: its manifest was checked against its CID, its other files by `verify` only."""

    cid: str
    hash: bytes
    """The hash in the CID: BLAKE3 of the manifest's envelope, by which orders name the bundle."""
    signed: Signed[Manifest]
    path: Path

    @property
    def manifest(self) -> Manifest:
        return self.signed.record

    def verify(self) -> None:
        """Every byte of every file is as in the manifest. Raises `StoreError(corrupt_chunk)` naming file and chunk."""
        for name, file in self.manifest.files().items():
            self._verify_file(name, file)

    def chunk(self, wanted: bytes) -> bytes | None:
        """The manifest's envelope or the file chunk with this BLAKE3 hash, checked; None if it is not of this bundle.

        Raises `StoreError(corrupt_chunk)` if the disk holds something else in its place.
        """
        if wanted == self.hash:
            return self.signed.envelope
        if wanted not in self._places:
            return None
        return self._read(*self._places[wanted], wanted)

    def others(self, wanted: bytes) -> Sequence[bytes]:
        """The chunks that are there, if `wanted` is one that is missing: a whole bundle misses none."""
        return ()

    def _read(self, name: str, index: int, wanted: bytes) -> bytes:
        try:
            with (self.path / name).open("rb") as stream:
                stream.seek(index * CHUNK_BYTES)
                content = stream.read(CHUNK_BYTES)
        except OSError as error:
            raise self._corrupt(name, index, str(error)) from None
        if content_hash(content) != wanted:
            raise self._corrupt(name, index, "its hash is another")
        return content

    def contents(self) -> Iterator[bytes]:
        """Every chunk of every file, in the manifest's order, checked. Raises as `chunk` does."""
        for name, file in self.manifest.files().items():
            for index, wanted in enumerate(file.chunks):
                yield self._read(name, index, wanted)

    @cached_property
    def _places(self) -> dict[bytes, tuple[str, int]]:
        files = self.manifest.files().items()
        return {wanted: (name, index) for name, file in files for index, wanted in enumerate(file.chunks)}

    def _verify_file(self, name: str, file: File) -> None:
        try:
            if (length := (self.path / name).stat().st_size) != file.length_bytes:
                raise self._corrupt(name, min(length, file.length_bytes) // CHUNK_BYTES, f"the file has {length} bytes")
            for index, (content, wanted) in enumerate(zip(_chunks(self.path / name), file.chunks, strict=True)):
                if content_hash(content) != wanted:
                    raise self._corrupt(name, index, "its hash is another")
        except OSError as error:
            raise self._corrupt(name, 0, str(error)) from None

    def _corrupt(self, name: str, index: int, why: str) -> StoreError:
        count = len(self.manifest.files()[name].chunks)
        where = f"{name} of bundle {self.manifest.name} ({self.cid}), chunk {index + 1} of {count}"
        return StoreError(Code.CORRUPT_CHUNK, f"{where}, is not what the manifest says: {why}.")


class BundleStore:
    """The bundles under one directory. Several processes may share it: files are only ever added, by a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def compile_cache(self) -> Path:
        """Where compiled programs are kept: this user's only, since what lies there is run."""
        return _directory(self.root / "xla", 0o700)

    def worker_cache(self, cids: Iterable[str]) -> Path:
        """Where a worker that serves exactly these bundles keeps what it compiles; emptied if that has grown too large.

        A worker that a hostile program has broken can write native code here, and what runs it is the next worker with
        that program in it, and no other.
        """
        served = content_hash("\n".join(sorted(set(cids))).encode()).hex()
        path = _directory(self.root / WORKER_CACHES / served[:32], 0o700)
        if _length_bytes(path) > WORKER_CACHE_BYTES_MAX:
            shutil.rmtree(path)
        path = _directory(path, 0o700)
        os.utime(path)  # by which `upkeep.sweep` knows when it was last used
        return path

    @property
    def downloads(self) -> Path:
        return _directory(self.root / "downloads")

    def install(
        self, manifest: Manifest, sign: Callable[[Manifest], Signed[Manifest]], files: Mapping[str, Path]
    ) -> Bundle:
        """The bundle is in the store, its files copied from `files` (names as in `manifest.files()`) and checked.

        Raises `StoreError(corrupt_chunk)` if a file is not what the manifest says; then the store is as before. An
        installed bundle that has gone bad is replaced.
        """
        signed = sign(manifest)
        with self._scratch() as scratch:
            staged = Bundle(cid(signed.id), signed.id, signed, scratch / "new")
            _check_names(staged.cid, manifest)
            (staged.path / "programs").mkdir(parents=True)
            (staged.path / MANIFEST).write_bytes(signed.envelope)
            for name in manifest.files():
                shutil.copyfile(files[name], staged.path / name)
            return self.adopt(staged)

    def adopt(self, staged: Bundle) -> Bundle:
        """The bundle whose files lie in a folder on the store's own disk is in the store, and the folder is gone.

        Every byte is checked, and on the disk, before the bundle is seen by its name. Raises as `install` does.
        """
        staged.verify()
        _sync(staged.path)
        target = _directory(self.root / "bundles") / staged.cid
        with self._scratch() as scratch:
            if target.exists():
                target.rename(scratch / "old")
            staged.path.rename(target)
            _sync_directory(target.parent)
        return self.open(staged.cid)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        bundles = _directory(self.root / "bundles")
        with tempfile.TemporaryDirectory(dir=bundles, prefix=".", ignore_cleanup_errors=True) as scratch:
            yield Path(scratch)

    def open(self, cid: str) -> Bundle:
        """The bundle, its manifest checked against the CID and against the signature of the key it names.

        Raises `StoreError`: `bundle_not_built` if it is not here, `corrupt_chunk` if its manifest is damaged.
        """
        wanted = cid_hash_untrusted(cid)
        path = self.root / "bundles" / cid
        if not (path / MANIFEST).is_file():
            raise StoreError(Code.BUNDLE_NOT_BUILT, f"Bundle {cid} is not in {self.root}.")
        with (path / MANIFEST).open("rb") as stream:
            envelope = stream.read(2 * MANIFEST_BYTES_MAX)
        return Bundle(cid, wanted, open_manifest(cid, envelope), path)

    def find(self, name: str) -> Bundle | None:
        """The bundle that its publisher calls `name`; of several the one installed last."""
        named = [bundle for bundle in self.list() if bundle.manifest.name == name]
        return max(named, key=lambda bundle: bundle.path.stat().st_mtime_ns, default=None)

    def list(self) -> tuple[Bundle, ...]:
        """Every bundle whose manifest is sound, by CID; `open` says what is wrong with another."""
        return tuple(self._sound())

    def _sound(self) -> Iterator[Bundle]:
        for path in sorted((self.root / "bundles").glob("b*")):
            try:
                yield self.open(path.name)
            except (StoreError, RemoteProtocolError):
                continue


def open_manifest(cid: str, envelope: bytes) -> Signed[Manifest]:
    """The manifest that the CID names, its signature checked; whether to trust the signer is decided above.

    Raises `StoreError(corrupt_chunk)` for anything else, and for a file name that no bundle may have.
    """
    if content_hash(envelope) != cid_hash_untrusted(cid):
        raise StoreError(Code.CORRUPT_CHUNK, f"The manifest of bundle {cid} is not the one its CID names.")
    try:
        signer = claimed_signer_untrusted(envelope, bytes_max=2 * MANIFEST_BYTES_MAX)
        signed = verify_untrusted(Manifest, envelope, signer=signer, bytes_max=MANIFEST_BYTES_MAX)
    except RemoteProtocolError as error:
        raise StoreError(Code.CORRUPT_CHUNK, f"The manifest of bundle {cid} does not hold: {error.message}") from None
    _check_names(cid, signed.record)
    return signed


def length_bytes(manifest: Manifest) -> int:
    """Of all its files together."""
    return sum(file.length_bytes for file in manifest.files().values())


def _check_names(cid: str, manifest: Manifest) -> None:
    for name in manifest.files():
        if not _FILE_NAME.fullmatch(name):
            raise StoreError(Code.CORRUPT_CHUNK, f"Bundle {cid} names a file {name!r}, which no bundle may.")


def _chunks(path: Path) -> Iterator[bytes]:
    """The file in pieces of `CHUNK_BYTES`; an empty file is one empty piece."""
    with path.open("rb") as stream:
        yield stream.read(CHUNK_BYTES)
        while content := stream.read(CHUNK_BYTES):
            yield content


def _length_bytes(directory: Path) -> int:
    """Of all files below it; another process may be writing there."""
    length = 0
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):
            length += path.lstat().st_size
    return length


def _sync(directory: Path) -> None:
    """Everything in the folder survives a power cut."""
    for folder, _, names in os.walk(directory):
        for name in names:
            with Path(folder, name).open("rb") as stream:
                os.fsync(stream.fileno())
        _sync_directory(Path(folder))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _directory(path: Path, mode: int = 0o777) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=mode)
    if mode == 0o700 and path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)  # one that was made with other permissions by hand
    return path

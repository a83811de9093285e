"""A bundle that is not whole yet: `<store>/partial/<cid>/`, with each file at its full length and holes in it.

What is there is found by hashing it, never remembered: a process may be killed at any byte and loses nothing that it
had checked. One process at a time has it; the lock is on the folder, so that the kernel lets go of it with the process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...protocol.bundle import Manifest
from ...protocol.envelope import Signed
from ...protocol.errors import Code, RemoteProtocolError, StoreError
from ...protocol.identity import cid_hash_untrusted, content_hash
from ...protocol.limits import CHUNK_BYTES, MANIFEST_BYTES_MAX
from .bundles import MANIFEST, Bundle, BundleStore, open_manifest

PARTIAL = "partial"
Admit = Callable[[Signed[Manifest]], None]
"""Raises what stands against fetching this bundle."""


class Partial:
    """What this process has of the bundle. Made by `claim`; methods block for the disk, one call at a time."""

    def __init__(self, store: BundleStore, cid: str, lock: int) -> None:
        self.cid = cid
        self.path = store.root / PARTIAL / cid
        self.missing: dict[bytes, int] = {}
        """Hashes of the chunks that are not there, in the manifest's order, with their lengths in bytes."""
        self.signed: Signed[Manifest] | None = None
        """Absent until a manifest is there."""
        self._here: list[bytes] = []
        """The chunks that are there, as they came."""
        self._store = store
        self._lock = lock
        self._places: dict[bytes, list[tuple[str, int]]] = {}

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def resume(self, admit: Admit = lambda signed: None) -> bool:
        """Whether a manifest was there from an earlier time; if so, everything is as after `begin`, which may raise."""
        try:
            with (self.path / MANIFEST).open("rb") as stream:
                envelope = stream.read(2 * MANIFEST_BYTES_MAX)
            open_manifest(self.cid, envelope)
        except (FileNotFoundError, StoreError, RemoteProtocolError):
            return False
        self.begin(envelope, admit)
        return True

    def begin(self, envelope: bytes, admit: Admit = lambda signed: None) -> None:
        """The manifest is there, and so are its files, with holes; everything counts as missing until `survey`.

        Raises `StoreError`: `corrupt_chunk` for a manifest that is not the CID's, `store_full` if the disk holds no files so
        large; and what `admit` raises, before a file is made.
        """
        signed = open_manifest(self.cid, envelope)
        admit(signed)
        self.signed = signed
        (self.path / "programs").mkdir(exist_ok=True)
        scratch = self.path / f".{MANIFEST}"
        scratch.write_bytes(envelope)
        scratch.replace(self.path / MANIFEST)
        self.missing, self._here, self._places = {}, [], defaultdict(list)
        for name, file in self.signed.record.files().items():
            with self._full_disk(), (self.path / name).open("ab") as stream:
                stream.truncate(file.length_bytes)
            for index, wanted in enumerate(file.chunks):
                self._places[wanted].append((name, index))
                self.missing[wanted] = min(CHUNK_BYTES, file.length_bytes - index * CHUNK_BYTES)

    def survey(self, on_chunk: Callable[[int], None] = lambda length_bytes: None) -> None:
        """What was there already, or lies in another bundle of this store, is missing no more."""
        neighbours = self._store.list()
        for wanted, length in list(self.missing.items()):
            if all(content_hash(self._read(name, index)) == wanted for name, index in self._places[wanted]):
                self._take(wanted)
            elif (content := _chunk_of(neighbours, wanted)) is not None:
                self.write(wanted, content)
            on_chunk(length)

    def write(self, wanted: bytes, content: bytes) -> bool:
        """The chunk is at each of its places. False, and nothing was written, if it is not the one that was wanted.

        Raises `StoreError(store_full)` if the disk takes no more.
        """
        if content_hash(content) != wanted:
            return False
        for name, index in self._places[wanted]:
            with self._full_disk(), (self.path / name).open("r+b") as stream:
                stream.seek(index * CHUNK_BYTES)
                stream.write(content)
        self._take(wanted)
        return True

    def chunk(self, wanted: bytes) -> bytes | None:
        """The manifest's envelope or a chunk that is there already, checked; None for any other. In a thread of its own."""
        if self.signed is None or wanted == self.signed.id:
            return self.signed.envelope if self.signed else None
        if wanted in self.missing or wanted not in self._places:
            return None
        try:
            content = self._read(*self._places[wanted][0])
        except FileNotFoundError:
            return None  # it has just become whole, and lies elsewhere
        return content if content_hash(content) == wanted else None

    def others(self, wanted: bytes) -> Sequence[bytes]:
        """The chunks that are there, if `wanted` is one that is missing."""
        return self._here if wanted in self.missing else ()

    def finish(self) -> Bundle:
        """The bundle is in the store, every byte of it read and checked once more. Raises `StoreError(corrupt_chunk)`."""
        assert self.signed is not None, "a bundle begins with its manifest"
        for stray in set(self.path.rglob("*")) - {self.path / name for name in (*self._files(), MANIFEST, "programs")}:
            stray.unlink()  # of a process that was killed
        return self._store.adopt(Bundle(self.cid, cid_hash_untrusted(self.cid), self.signed, self.path))

    def discard(self) -> None:
        """Nothing of it is left."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _take(self, wanted: bytes) -> None:
        if self.missing.pop(wanted, None) is not None:
            self._here.append(wanted)

    @contextmanager
    def _full_disk(self) -> Iterator[None]:
        """A disk that takes no more, or no file so large, is said to be full."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise StoreError(
                Code.STORE_FULL, f"The disk of {self._store.root} is full; what was there is kept."
            ) from None

    def _files(self) -> list[str]:
        return list(self.signed.record.files()) if self.signed else []

    def _read(self, name: str, index: int) -> bytes:
        """What is in the chunk's place; nothing where the file has a hole."""
        start = index * CHUNK_BYTES
        with (self.path / name).open("rb") as stream:
            try:
                if os.lseek(stream.fileno(), start, os.SEEK_DATA) >= start + CHUNK_BYTES:
                    return b""
            except OSError as error:
                if error.errno != errno.ENXIO:  # ENXIO: nothing but a hole from there on
                    raise
                return b""
            stream.seek(start)
            return stream.read(CHUNK_BYTES)


def claim(store: BundleStore, cid: str) -> Partial | None:
    """This process's own from now on, until it leaves the `with` block; None while another process has it.

    Raises `RemoteProtocolError` for what is no CID.
    """
    cid_hash_untrusted(cid)
    path = store.root / PARTIAL / cid
    while True:
        path.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(path, exclusive=True)
        if lock is None:
            return None
        if is_at(lock, path):
            return Partial(store, cid, lock)
        os.close(lock)  # whoever had it before has moved it into the store, or thrown it away


def lock_folder(path: Path, *, exclusive: bool) -> int | None:
    """An open descriptor that holds the folder until it is closed; None if it is gone, or held by somebody else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the folder behind the descriptor still goes by this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _chunk_of(bundles: tuple[Bundle, ...], wanted: bytes) -> bytes | None:
    for bundle in bundles:
        try:
            if wanted != bundle.hash and (content := bundle.chunk(wanted)) is not None:
                return content
        except StoreError:
            continue  # damaged there; it comes from elsewhere
    return None

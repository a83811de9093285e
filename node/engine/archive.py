"""A bundle as one file, to carry on a stick or to put on a web server; the same bundle is always the same bytes.

    b"fallow-bundle/1\\n"
    4 bytes, big-endian: length of the manifest's envelope
    the envelope
    the content of each file, one after another, in the order of `Manifest.files()`

There are no names or lengths but the manifest's, and no byte is kept before its chunk's hash has been compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from ...protocol.bundle import File
from ...protocol.errors import Code, ConfigError, StoreError
from ...protocol.identity import cid, content_hash
from ...protocol.limits import CHUNK_BYTES, MANIFEST_BYTES_MAX
from .bundles import Bundle, BundleStore, length_bytes, open_manifest
from .partial import Partial, claim
from .upkeep import make_room

MAGIC: Final = b"fallow-bundle/1\n"
_ENVELOPE_BYTES_MAX: Final = 2 * MANIFEST_BYTES_MAX
_LENGTH_BYTES: Final = 4

Step = Callable[[int], None]
"""Is told of each chunk's length when it has been written."""


def export_bundle(bundle: Bundle, path: Path, on_chunk: Step = lambda length: None) -> int:
    """The bundle is in the file, every chunk checked on the way; the file's length. An older file there is replaced.

    Raises `StoreError(corrupt_chunk)`, or `OSError` where it cannot be written; then the file is as before.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as stream:
            envelope = bundle.signed.envelope
            stream.write(MAGIC + len(envelope).to_bytes(_LENGTH_BYTES, "big") + envelope)
            for content in bundle.contents():
                stream.write(content)
                on_chunk(len(content))
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path.stat().st_size


def import_bundle(
    store: BundleStore, path: Path, bytes_max: int | None = None, on_chunk: Step = lambda length: None
) -> Bundle:
    """The bundle in the file is in the store, which is not to say that it is trusted.

    Raises `StoreError`: `corrupt_chunk` naming the file and chunk at which it is cut short or altered, `store_full`;
    `ConfigError(already_running)` while another process fetches the same bundle; `OSError`. Then nothing is installed.
    """
    with path.open("rb") as stream:
        envelope = _envelope_untrusted(stream, path)
        name = cid(content_hash(envelope))
        manifest = open_manifest(name, envelope).record
        make_room(store, length_bytes(manifest), bytes_max)
        partial = claim(store, name)
        if partial is None:
            raise ConfigError(Code.ALREADY_RUNNING, f"Another process is fetching bundle {name}.")
        with partial:
            begun = partial.resume()  # by a fetch: what it has stays, whatever this file is worth
            try:
                partial.begin(envelope)
                for file_name, file in manifest.files().items():
                    _read_file_untrusted(stream, path, partial, file_name, file, on_chunk)
                if stream.read(1):
                    raise StoreError(Code.CORRUPT_CHUNK, f"{path} goes on after the end of its bundle.")
                return partial.finish()
            except BaseException:
                if not begun:
                    partial.discard()
                raise


def _envelope_untrusted(stream: BinaryIO, path: Path) -> bytes:
    if stream.read(len(MAGIC)) != MAGIC:
        raise StoreError(Code.CORRUPT_CHUNK, f"{path} is no bundle: it does not begin as one.")
    length = int.from_bytes(stream.read(_LENGTH_BYTES), "big")
    if not 0 < length <= _ENVELOPE_BYTES_MAX or len(envelope := stream.read(length)) != length:
        raise StoreError(Code.CORRUPT_CHUNK, f"{path} is cut short, or altered, in its manifest.")
    return envelope


def _read_file_untrusted(stream: BinaryIO, path: Path, partial: Partial, name: str, file: File, on_chunk: Step) -> None:
    for index, wanted in enumerate(file.chunks):
        content = stream.read(min(CHUNK_BYTES, file.length_bytes - index * CHUNK_BYTES))
        if not partial.write(wanted, content):
            raise StoreError(
                Code.CORRUPT_CHUNK,
                f"{path} is cut short, or altered, at {name}, chunk {index + 1} of {len(file.chunks)}. "
                "Nothing of it was installed.",
            )
        on_chunk(len(content))

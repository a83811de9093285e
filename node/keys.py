"""Key files: 32-byte Ed25519 seeds that nobody but their user can read."""

from __future__ import annotations

import os
from pathlib import Path

from nacl.signing import SigningKey

from ..protocol.errors import Code, StoreError
from .private import OTHERS, folder, stream

SEED_BYTES = 32


def load_or_create(path: Path) -> SigningKey:
    """The key whose seed is in the file; a fresh one is written there, mode 0600, if there is no file.

    Raises `StoreError(corrupt_store)` for a file that is not a seed or that others can read, and where none can be made.
    """
    try:
        return load(path)
    except FileNotFoundError:
        pass
    try:
        _create(path)
        return load(path)
    except OSError as error:
        raise StoreError(Code.CORRUPT_STORE, f"The key file {path} cannot be made: {error.strerror}.") from None


def _create(path: Path) -> None:
    """A key file is there, with a fresh key unless somebody else was quicker. Raises `OSError`."""
    folder(path.parent)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with stream(scratch, "wb") as writing:
        writing.write(bytes(SigningKey.generate()))
        writing.flush()
        os.fsync(writing.fileno())
    try:
        os.link(scratch, path)  # unlike a rename, it never replaces the key of a process that was quicker
    except FileExistsError:
        pass
    finally:
        scratch.unlink()


def load(path: Path) -> SigningKey:
    """The key whose seed is in the file. Raises `FileNotFoundError`, or `StoreError(corrupt_store)`."""
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            seed = stream.read(SEED_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(Code.CORRUPT_STORE, f"The key file {path} cannot be read: {error.strerror}.") from None
    if len(seed) != SEED_BYTES:
        raise StoreError(Code.CORRUPT_STORE, f"The key file {path} does not hold a {SEED_BYTES}-byte seed.")
    if mode & OTHERS:
        raise StoreError(Code.CORRUPT_STORE, f"Others can read the key file {path}: set its mode to 600.")
    return SigningKey(seed)

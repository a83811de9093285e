"""What a store takes on the disk, and what goes when it takes too much: least recently used first.

Nothing goes that is pinned, or that a running process holds (`hold`): the lock is the kernel's, so that it ends with
the process, however that ends.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from ...protocol.errors import Code, StoreError
from .bundles import MANIFEST, WORKER_CACHES, Bundle, BundleStore
from .partial import PARTIAL, is_at, lock_folder
from .sizes import mib

RESERVE_BYTES: Final = 1024**3
"""Never taken of a disk: a machine whose disk is full loses more than a bundle."""
PARTIAL_S: Final = 7 * 24 * 3600
"""A download that nobody has gone on with for a week has been given up."""
COMPILED_BYTES_MAX: Final = 4 * 1024**3
"""Of compiled programs: SmolLM2 and MiniLM take some 60 MiB together, for one kind of machine and one jaxlib."""
COMPILED_S: Final = 30 * 24 * 3600
"""What a worker has compiled goes when none of exactly its bundles was started for a month: compiled anew it is in a minute."""
SCRATCH_S: Final = 3600
"""Nobody writes one file for an hour: whoever began it was killed."""
_BLOCK_BYTES: Final = 512
"""The unit of `st_blocks`, whatever the disk's own."""


@dataclass(frozen=True, slots=True)
class Shelved:
    """One bundle, as upkeep sees it."""

    bundle: Bundle
    bytes: int
    pinned: bool
    held: bool
    """By a process that now runs, this one included."""
    used_s: float
    """Seconds since 1970 when it was last taken into use here."""


def pin(store: BundleStore, cid: str) -> None:
    """The bundle stays until it is unpinned. Raises `StoreError(bundle_not_built)` if it is not here."""
    store.open(cid)
    pins = store.root / "pins"
    pins.mkdir(exist_ok=True)
    (pins / cid).touch()


def unpin(store: BundleStore, cid: str) -> None:
    """The bundle may go when room is needed."""
    (store.root / "pins" / cid).unlink(missing_ok=True)


def pinned(store: BundleStore, cid: str) -> bool:
    """Whether the owner wants to keep it."""
    return (store.root / "pins" / cid).exists()


@contextmanager
def hold(bundle: Bundle) -> Iterator[None]:
    """The bundle is in use, and not removed, for the length of the block. Raises `StoreError(bundle_not_built)`."""
    lock = lock_folder(bundle.path, exclusive=False)
    if lock is None:
        raise StoreError(Code.BUNDLE_NOT_BUILT, f"Bundle {bundle.cid} is being removed.")
    try:
        os.utime(bundle.path / MANIFEST)
        yield
    finally:
        os.close(lock)


def survey(store: BundleStore) -> list[Shelved]:
    """Every sound bundle; who was used longest ago comes first."""
    shelved = [
        Shelved(
            bundle,
            usage_bytes(bundle.path),
            pinned(store, bundle.cid),
            _held(bundle.path),
            (bundle.path / MANIFEST).stat().st_mtime,
        )
        for bundle in store.list()
    ]
    return sorted(shelved, key=lambda each: (each.used_s, each.bundle.cid))


def usage_bytes(path: Path) -> int:
    """What everything below the path takes on the disk; holes take nothing."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += Path(folder, name).lstat().st_blocks * _BLOCK_BYTES
            except FileNotFoundError:
                continue  # gone meanwhile
    return total


def check_fits(store: BundleStore, length_bytes: int, bytes_max: int | None) -> None:
    """Raises `StoreError(store_full)` if so many bytes cannot be here, whatever else goes for them."""
    disk_bytes = shutil.disk_usage(store.root).total - RESERVE_BYTES
    most = disk_bytes if bytes_max is None else min(disk_bytes, bytes_max)
    if length_bytes > most:
        raise StoreError(
            Code.STORE_FULL,
            f"It takes {mib(length_bytes)}, and {store.root} may hold {mib(most)} in all. Nothing was fetched.",
        )


def make_room(store: BundleStore, need_bytes: int, bytes_max: int | None) -> list[Bundle]:
    """So many more bytes fit, below the owner's limit and with a reserve of the disk left. The bundles that went for it.

    Raises `StoreError(store_full)` if they cannot; then no bundle was removed.
    """
    store.root.mkdir(parents=True, exist_ok=True)
    trim(store.compile_cache, COMPILED_BYTES_MAX)
    over = max(_over_limit(store, need_bytes, bytes_max), _over_disk(store, need_bytes))
    if over > 0:
        over -= sweep(store)
    removable = _removable(store)
    if over > sum(each.bytes for each in removable):
        limit = f", the limit is {mib(bytes_max)}" if bytes_max is not None else ""
        raise StoreError(
            Code.STORE_FULL,
            f"{mib(need_bytes)} more do not fit into {store.root}: it takes {mib(usage_bytes(store.root))}{limit}, "
            f"{mib(_free_bytes(store))} of the disk are free, of which {mib(RESERVE_BYTES)} are left alone, and "
            f"{mib(sum(each.bytes for each in removable))} are neither pinned nor in use.",
        )
    return _remove(store, removable, over)


def tidy(store: BundleStore, bytes_max: int | None) -> list[Bundle]:
    """The store is swept, and within the owner's limit as far as what is pinned or in use lets it be. The bundles that went.

    The limit alone is kept here: a disk that others fill is no reason to lose what the owner asked for.
    """
    sweep(store)
    return _remove(store, _removable(store), _over_limit(store, 0, bytes_max))


def remove(store: BundleStore, bundle: Bundle) -> bool:
    """The bundle is gone; False if a running process holds it."""
    lock = lock_folder(bundle.path, exclusive=True)
    if lock is None:
        return not bundle.path.exists()
    try:
        gone = bundle.path.with_name(f".{bundle.cid}.{os.getpid()}")
        if is_at(lock, bundle.path):
            bundle.path.rename(gone)
            shutil.rmtree(gone)
            unpin(store, bundle.cid)
    finally:
        os.close(lock)
    return True


def sweep(store: BundleStore) -> int:
    """What killed processes left behind is gone, and downloads that were given up; the bytes that it took."""
    before = usage_bytes(store.root)
    now_s = time.time()
    for left in (store.root / "bundles").glob(".*"):
        if now_s - left.stat().st_mtime > PARTIAL_S:
            shutil.rmtree(left, ignore_errors=True)
    for partial in (store.root / PARTIAL).glob("b*"):
        _sweep_partial(partial, now_s)
    if (store.root / "xla").is_dir():
        trim(store.compile_cache, COMPILED_BYTES_MAX)
    for cache in (store.root / WORKER_CACHES).glob("*"):
        if now_s - cache.stat().st_mtime > COMPILED_S:
            shutil.rmtree(cache, ignore_errors=True)
        _sweep_scratch(cache, now_s)
    return max(0, before - usage_bytes(store.root))


def _sweep_scratch(cache: Path, now_s: float) -> None:
    for path in cache.rglob(".*"):
        with suppress(OSError):  # another process sweeps, too
            if path.is_file() and now_s - path.stat().st_mtime > SCRATCH_S:
                path.unlink()


def trim(folder: Path, bytes_max: int) -> None:
    """The files below the folder take no more than that: those that were read or written longest ago are gone."""
    files = []
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not S_ISDIR(status.st_mode):
            files.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    over = sum(size for _, size, _ in files) - bytes_max
    for _, size, path in sorted(files):
        if over <= 0:
            break
        path.unlink(missing_ok=True)
        over -= size


def _sweep_partial(path: Path, now_s: float) -> None:
    lock = lock_folder(path, exclusive=True)
    if lock is None:
        return
    try:
        newest_s = max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
        if now_s - newest_s > PARTIAL_S:
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)


def _held(path: Path) -> bool:
    lock = lock_folder(path, exclusive=True)
    if lock is None:
        return True
    os.close(lock)
    return False


def _removable(store: BundleStore) -> list[Shelved]:
    """What may go, in the order in which it goes."""
    return [each for each in survey(store) if not each.pinned and not each.held]


def _remove(store: BundleStore, removable: Sequence[Shelved], over_bytes: int) -> list[Bundle]:
    """The first of these are gone, until so many bytes less are taken. Which those were."""
    removed = []
    for each in removable:
        if over_bytes > 0 and remove(store, each.bundle):
            over_bytes -= each.bytes
            removed.append(each.bundle)
    return removed


def _over_limit(store: BundleStore, need_bytes: int, bytes_max: int | None) -> int:
    return 0 if bytes_max is None else usage_bytes(store.root) + need_bytes - bytes_max


def _over_disk(store: BundleStore, need_bytes: int) -> int:
    return need_bytes + RESERVE_BYTES - _free_bytes(store)


def _free_bytes(store: BundleStore) -> int:
    return shutil.disk_usage(store.root).free

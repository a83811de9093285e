"""What goes when room is needed, and what never does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fallow.node.engine import upkeep
from fallow.node.engine.bundles import MANIFEST, Bundle, BundleStore
from fallow.node.engine.partial import claim
from fallow.protocol.errors import Code, StoreError
from fallow.protocol.identity import cid

from .test_bundles import manifest_of, signer, write_files

MIB = 1024**2


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "store")


@pytest.fixture
def install(store: BundleStore, tmp_path: Path) -> Callable[..., Bundle]:
    """A bundle of 2 MiB and a little, last used so many seconds after 1970."""

    def install(name: str, used_s: int = 0) -> Bundle:
        files = write_files(tmp_path / name, name.encode()[:1])
        bundle = store.install(manifest_of(files, name), signer, files)
        os.utime(bundle.path / MANIFEST, (used_s, used_s))
        return bundle

    return install


def names(bundles: list[Bundle] | tuple[Bundle, ...]) -> list[str]:
    return sorted(bundle.manifest.name for bundle in bundles)


def test_what_was_used_longest_ago_goes_first(store: BundleStore, install: Callable[..., Bundle]) -> None:
    for name, used_s in (("new", 3), ("old", 1), ("middle", 2)):
        install(name, used_s)
    assert [each.bundle.manifest.name for each in upkeep.survey(store)] == ["old", "middle", "new"]
    assert upkeep.make_room(store, MIB, 8 * MIB) == []
    assert names(upkeep.make_room(store, 3 * MIB, 8 * MIB)) == ["old"]
    assert names(store.list()) == ["middle", "new"]
    assert names(upkeep.make_room(store, 7 * MIB, 8 * MIB)) == ["middle", "new"]
    assert store.list() == ()


def test_what_is_pinned_or_in_use_stays_even_if_nothing_fits_then(
    store: BundleStore, install: Callable[..., Bundle]
) -> None:
    pinned, held, other = install("pinned", 1), install("held", 2), install("other", 3)
    upkeep.pin(store, pinned.cid)
    with upkeep.hold(held):
        os.utime(held.path / MANIFEST, (2, 2))
        with pytest.raises(StoreError) as caught:
            upkeep.make_room(store, 6 * MIB, 8 * MIB)
        assert caught.value.code is Code.STORE_FULL
        assert len(store.list()) == 3  # nothing was given up in vain
        assert upkeep.make_room(store, 3 * MIB, 8 * MIB) == [other]
        assert not upkeep.remove(store, held)
    upkeep.unpin(store, pinned.cid)
    assert len(upkeep.make_room(store, 8 * MIB, 9 * MIB)) == 2


def test_a_store_beyond_its_owners_limit_is_brought_below_it_and_never_at_the_cost_of_what_is_wanted(
    store: BundleStore, install: Callable[..., Bundle]
) -> None:
    pinned, held = install("pinned", 1), install("held", 2)
    for name, used_s in (("old", 3), ("new", 4)):
        install(name, used_s)
    upkeep.pin(store, pinned.cid)
    with upkeep.hold(held):
        assert upkeep.tidy(store, None) == []
        assert names(upkeep.tidy(store, 7 * MIB)) == ["old"]
        assert names(upkeep.tidy(store, MIB)) == ["new"]
        assert names(store.list()) == ["held", "pinned"]
    assert names(upkeep.tidy(store, 3 * MIB)) == ["held"]


def test_what_was_given_up_goes_before_any_bundle_does(store: BundleStore, install: Callable[..., Bundle]) -> None:
    install("made-up")
    left = store.root / "bundles" / ".tmpleft"
    left.mkdir()
    (left / "weights").write_bytes(bytes(3 * MIB))
    for path in (left / "weights", left):
        os.utime(path, (1, 1))
    assert upkeep.make_room(store, MIB, 5 * MIB) == []
    assert not left.exists()


def test_a_process_that_is_killed_holds_nothing(store: BundleStore, install: Callable[..., Bundle]) -> None:
    bundle = install("made-up")
    program = (
        "import sys; from pathlib import Path\n"
        "from fallow.node.engine.bundles import BundleStore; from fallow.node.engine.upkeep import hold\n"
        "with hold(BundleStore(Path(sys.argv[1])).open(sys.argv[2])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(store.root), bundle.cid]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert not upkeep.remove(store, bundle)
        assert [each.held for each in upkeep.survey(store)] == [True]
        process.kill()
        process.wait(30)
    assert upkeep.remove(store, bundle)
    assert list((store.root / "bundles").iterdir()) == []


def test_the_disks_reserve_is_left_alone(store: BundleStore) -> None:
    with pytest.raises(StoreError, match="left alone") as caught:
        upkeep.make_room(store, 2**50, None)
    assert caught.value.code is Code.STORE_FULL


def test_pins_are_of_bundles_that_are_here_and_go_with_them(store: BundleStore, install: Callable[..., Bundle]) -> None:
    with pytest.raises(StoreError):
        upkeep.pin(store, cid(bytes(32)))
    bundle = install("made-up")
    upkeep.pin(store, bundle.cid)
    assert upkeep.pinned(store, bundle.cid)
    assert upkeep.remove(store, bundle)
    assert not upkeep.pinned(store, bundle.cid)


def test_compiled_programs_go_oldest_first(tmp_path: Path) -> None:
    for index in range(5):
        (tmp_path / str(index)).write_bytes(bytes(1000))
        os.utime(tmp_path / str(index), (index, index))
    below = tmp_path / "programs"
    below.mkdir()
    (below / "5").write_bytes(bytes(1000))
    for path in (below / "5", below):
        os.utime(path, (0, 0))
    upkeep.trim(tmp_path, 2500)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["3", "4", "programs"]


def test_what_workers_compiled_goes_when_none_like_them_was_started_for_long(store: BundleStore) -> None:
    old, used = store.worker_cache([cid(bytes(32))]), store.worker_cache([cid(b"\x01" * 32)])
    for folder in (old, used):
        (folder / "program").write_bytes(b"native code")
        os.utime(folder, (1, 1))
    assert store.worker_cache([cid(b"\x01" * 32)]) == used
    upkeep.sweep(store)
    assert (old.exists(), used.exists()) == (False, True)


def test_what_a_worker_that_was_killed_had_begun_to_write_goes(store: BundleStore) -> None:
    cache = store.worker_cache([cid(bytes(32))])
    (cache / "programs").mkdir()
    names = ["program", ".program.0a1b2c3d", "programs/.program.0a1b2c3d"]
    for name in (*names, ".program.fresh"):
        (cache / name).write_bytes(b"native code")
    for name in names:
        os.utime(cache / name, (1, 1))
    upkeep.sweep(store)
    left = {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}
    assert left == {"program", ".program.fresh"}


def test_what_was_given_up_is_swept_and_what_is_under_way_is_not(
    store: BundleStore, install: Callable[..., Bundle]
) -> None:
    bundle = install("made-up")
    for name in (left := store.root / "bundles" / ".tmpleft", store.root / "partial" / cid(bytes(32))):
        name.mkdir(parents=True)
        (name / "weights").write_bytes(bytes(100_000))
        for path in (name / "weights", name):
            os.utime(path, (1, 1))
    fresh = claim(store, bundle.cid)
    assert fresh is not None
    with fresh:
        fresh.begin(bundle.signed.envelope)
        assert upkeep.sweep(store) >= 200_000
        assert fresh.path.exists()
    assert not left.exists()
    assert [path.name for path in (store.root / "partial").iterdir()] == [bundle.cid]
    assert store.list() == (bundle,)

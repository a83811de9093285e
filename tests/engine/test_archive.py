"""One file that holds a bundle: the same bytes each time, and nothing is believed of what it says."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from fallow.node.engine.archive import MAGIC, export_bundle, import_bundle
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.partial import claim
from fallow.protocol.bundle import File
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Code, ConfigError, StoreError
from fallow.protocol.identity import content_hash
from fallow.protocol.limits import CHUNK_BYTES

from .test_bundles import KEY, manifest_of, signer, write_files


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    files = write_files(tmp_path / "files")
    return BundleStore(tmp_path / "origin").install(manifest_of(files), signer, files)


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "store")


@pytest.fixture
def archive(bundle: Bundle, tmp_path: Path) -> Path:
    export_bundle(bundle, tmp_path / "made-up.fallow")
    return tmp_path / "made-up.fallow"


@pytest.mark.spec("B-13")
def test_there_and_back_is_the_same_bundle_and_the_same_bytes(
    bundle: Bundle, archive: Path, store: BundleStore, tmp_path: Path
) -> None:
    imported = import_bundle(store, archive)
    imported.verify()
    assert imported.signed == bundle.signed
    assert export_bundle(imported, tmp_path / "again") == archive.stat().st_size
    assert (tmp_path / "again").read_bytes() == archive.read_bytes()
    assert archive.read_bytes().startswith(MAGIC)
    assert import_bundle(store, archive).cid == bundle.cid
    assert list((store.root / "partial").iterdir()) == []


def content_start(bundle: Bundle) -> int:
    return len(MAGIC) + 4 + len(bundle.signed.envelope)


@pytest.mark.spec("B-14")
@pytest.mark.parametrize(
    ("place", "said"),
    [
        (0, r"weights\.safetensors, chunk 1 of 3"),
        (CHUNK_BYTES, r"weights\.safetensors, chunk 2 of 3"),
        (-1, "tokenizer"),
    ],
)
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_where_it_was_altered_or_cut_short_is_said(
    bundle: Bundle, archive: Path, store: BundleStore, place: int, said: str, damage: str
) -> None:
    content = bytearray(archive.read_bytes())
    place = content_start(bundle) + place if place >= 0 else len(content) + place
    if damage == "flip":
        content[place] ^= 1
    else:
        del content[place:]
    archive.write_bytes(content)
    with pytest.raises(StoreError, match=said) as caught:
        import_bundle(store, archive)
    assert caught.value.code is Code.CORRUPT_CHUNK
    assert store.list() == ()
    assert list((store.root / "partial").iterdir()) == []


@pytest.mark.spec("B-14")
@pytest.mark.parametrize("damage", ["empty", "magic", "length", "manifest", "signature", "longer"])
def test_what_is_no_archive_is_refused(bundle: Bundle, archive: Path, store: BundleStore, damage: str) -> None:
    content = bytearray(archive.read_bytes())
    match damage:
        case "empty":
            content.clear()
        case "magic":
            content[0] ^= 1
        case "length":
            content[len(MAGIC) : len(MAGIC) + 4] = b"\xff\xff\xff\xff"
        case "manifest":
            content[len(MAGIC) + 30] ^= 1
        case "signature":
            content[content_start(bundle) - 1] ^= 1
        case _:
            content += b"x"
    archive.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        import_bundle(store, archive)
    assert caught.value.code is Code.CORRUPT_CHUNK
    assert store.list() == ()


@pytest.mark.spec("B-14")
@pytest.mark.parametrize("seed", range(200))
def test_one_bit_anywhere_is_enough(bundle: Bundle, archive: Path, store: BundleStore, seed: int) -> None:
    content = bytearray(archive.read_bytes())
    draw = Random(seed)
    content[draw.randrange(content_start(bundle) if seed % 2 else len(content))] ^= 1 << draw.randrange(8)
    archive.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        import_bundle(store, archive)
    assert caught.value.code is Code.CORRUPT_CHUNK
    assert store.list() == ()


@pytest.mark.spec("B-6", "B-14")
def test_a_name_that_leads_elsewhere_is_refused(bundle: Bundle, store: BundleStore, tmp_path: Path) -> None:
    program = replace(bundle.manifest.programs[0], name="../../../../escaped")
    envelope = sign(replace(bundle.manifest, programs=(program,)), KEY).envelope
    (tmp_path / "evil").write_bytes(MAGIC + len(envelope).to_bytes(4, "big") + envelope)
    with pytest.raises(StoreError, match="which no bundle may"):
        import_bundle(store, tmp_path / "evil")
    assert not list(tmp_path.rglob("escaped"))


def test_what_does_not_fit_is_refused_before_it_is_read(archive: Path, store: BundleStore) -> None:
    with pytest.raises(StoreError) as caught:
        import_bundle(store, archive, bytes_max=CHUNK_BYTES)
    assert caught.value.code is Code.STORE_FULL


@pytest.mark.spec("B-14")
@pytest.mark.parametrize("how", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
def test_what_is_compressed_is_never_expanded(
    store: BundleStore, tmp_path: Path, how: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "bomb").write_bytes(how(MAGIC + bytes(2**22)))
    with pytest.raises(StoreError, match="does not begin as one"):
        import_bundle(store, tmp_path / "bomb")


def test_sizes_that_no_disk_has_are_refused_before_a_file_is_made(
    bundle: Bundle, store: BundleStore, tmp_path: Path
) -> None:
    huge = File(20_000 * CHUNK_BYTES, (content_hash(b""),) * 20_000)
    envelope = sign(replace(bundle.manifest, weights=huge), KEY).envelope
    (tmp_path / "evil").write_bytes(MAGIC + len(envelope).to_bytes(4, "big") + envelope)
    with pytest.raises(StoreError) as caught:
        import_bundle(store, tmp_path / "evil", bytes_max=2**30)
    assert caught.value.code is Code.STORE_FULL
    assert not list(store.root.rglob("weights.safetensors"))


@pytest.mark.spec("B-14")
def test_cut_at_any_of_its_parts_it_is_refused(bundle: Bundle, archive: Path, store: BundleStore) -> None:
    content, start = archive.read_bytes(), content_start(bundle)
    for length in (
        0,
        1,
        len(MAGIC),
        len(MAGIC) + 3,
        len(MAGIC) + 4,
        start - 1,
        start,
        start + CHUNK_BYTES,
        len(content) - 1,
    ):
        archive.write_bytes(content[:length])
        with pytest.raises(StoreError) as caught:
            import_bundle(store, archive)
        assert caught.value.code is Code.CORRUPT_CHUNK
        assert store.list() == ()


def test_a_fetch_under_way_is_not_disturbed(bundle: Bundle, archive: Path, store: BundleStore) -> None:
    partial = claim(store, bundle.cid)
    assert partial is not None
    with partial:
        partial.begin(bundle.signed.envelope)
        with pytest.raises(ConfigError) as caught:
            import_bundle(store, archive)
        assert caught.value.code is Code.ALREADY_RUNNING
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(StoreError):
        import_bundle(store, archive)
    assert partial.path.exists()  # what a fetch has begun stays
    export_bundle(bundle, archive)
    import_bundle(store, archive).verify()


def test_a_damaged_bundle_is_not_exported_and_an_older_file_stays(bundle: Bundle, tmp_path: Path) -> None:
    (target := tmp_path / "out").write_text("older")
    (bundle.path / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(StoreError, match=r"tokenizer\.json"):
        export_bundle(bundle, target)
    assert target.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

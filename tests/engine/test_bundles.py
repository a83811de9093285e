"""A bundle is installed whole or not at all, and every damaged byte is found and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from fallow.node.engine.bundles import Bundle, BundleStore, file_of
from fallow.protocol.bundle import File, Manifest, Program, Tensor, Tolerance
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, RemoteProtocolError, StoreError
from fallow.protocol.identity import cid, content_hash
from fallow.protocol.limits import CHUNK_BYTES

KEY = SigningKey(bytes(range(32)))


def signer(manifest: Manifest) -> Signed[Manifest]:
    return sign(manifest, KEY)


def write_files(directory: Path, marker: bytes = b"w") -> dict[str, Path]:
    """Files of a made-up bundle; the weights span three chunks."""
    contents = {
        "weights.safetensors": marker * (2 * CHUNK_BYTES + 7),
        "tokenizer.json": b"{}",
        "programs/call": b"",
    }
    (directory / "programs").mkdir(parents=True)
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return {name: directory / name for name in contents}


def manifest_of(files: dict[str, Path], name: str = "made-up", program: str = "call") -> Manifest:
    return Manifest(
        name=name,
        family="none",
        licence="",
        provenance="",
        entries=("call",),
        weights=file_of(files["weights.safetensors"]),
        parameters=(),
        state=(),
        inputs=(),
        outputs=(Tensor("y", "float32", (1,)),),
        programs=(Program(program, "call", 1, 8, 8, file_of(files["programs/call"]), 0, 0),),
        tokenizer=file_of(files["tokenizer.json"]),
        chat_template=None,
        context_tokens_max=8,
        end_tokens=(),
        tolerance=Tolerance(0, 0, 0, 0, 0, (), ""),
    )


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "store")


@pytest.fixture
def install(store: BundleStore, tmp_path: Path) -> Callable[[str], Bundle]:
    def install(name: str) -> Bundle:
        files = write_files(tmp_path / name, name.encode()[:1])
        return store.install(manifest_of(files, name), signer, files)

    return install


@pytest.mark.spec("B-1")
def test_file_of_lists_each_chunk_and_an_empty_file_has_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * CHUNK_BYTES + b"b")
    assert file_of(path) == File(CHUNK_BYTES + 1, (content_hash(b"a" * CHUNK_BYTES), content_hash(b"b")))
    path.write_bytes(b"")
    assert file_of(path) == File(0, (content_hash(b""),))


def test_installed_bundle_opens_by_cid_and_name(store: BundleStore, install: Callable[[str], Bundle]) -> None:
    installed = install("made-up")
    opened = store.open(installed.cid)
    opened.verify()
    assert opened.signed == installed.signed
    assert opened.hash == content_hash((opened.path / "manifest").read_bytes())
    assert store.find("made-up") == opened
    assert store.find("other") is None
    assert store.list() == (opened,)


def test_installing_again_changes_nothing_and_repairs_damage(store: BundleStore, tmp_path: Path) -> None:
    files = write_files(tmp_path / "files")
    first = store.install(manifest_of(files), signer, files)
    (first.path / "tokenizer.json").write_bytes(b"[]")
    assert store.install(manifest_of(files), signer, files).cid == first.cid
    first.verify()
    assert [path.name for path in (store.root / "bundles").iterdir()] == [first.cid]


@pytest.mark.spec("B-4")
def test_a_wrong_file_is_not_installed(store: BundleStore, tmp_path: Path) -> None:
    files = write_files(tmp_path / "files")
    manifest = manifest_of(files)
    files["weights.safetensors"].write_bytes(b"w" * CHUNK_BYTES + b"x" + b"w" * (CHUNK_BYTES + 6))
    with pytest.raises(StoreError, match=r"weights\.safetensors .*chunk 2 of 3") as caught:
        store.install(manifest, signer, files)
    assert caught.value.code == Code.CORRUPT_CHUNK
    assert list((store.root / "bundles").iterdir()) == []


@pytest.mark.spec("B-4")
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove"])
def test_verify_names_the_damaged_file(install: Callable[[str], Bundle], damage: str) -> None:
    bundle = install("made-up")
    path = bundle.path / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[CHUNK_BYTES] ^= 1
    match damage:
        case "flip":
            path.write_bytes(content)
        case "cut":
            path.write_bytes(content[: CHUNK_BYTES + 1])
        case "grow":
            path.write_bytes(content + b"x")
        case _:
            path.unlink()
    with pytest.raises(StoreError, match=r"weights\.safetensors") as caught:
        bundle.verify()
    assert caught.value.code == Code.CORRUPT_CHUNK


def test_chunks_are_found_by_hash_and_checked(install: Callable[[str], Bundle]) -> None:
    bundle = install("made-up")
    assert bundle.chunk(bundle.hash) == bundle.signed.envelope
    hashes = bundle.manifest.weights.chunks
    assert bundle.chunk(hashes[2]) == b"m" * 7
    assert bundle.chunk(bundle.manifest.tokenizer.chunks[0]) == b"{}"
    assert bundle.chunk(bytes(32)) is None
    (bundle.path / "weights.safetensors").write_bytes(b"m" * (2 * CHUNK_BYTES) + b"changed")
    with pytest.raises(StoreError, match="chunk 3 of 3"):
        bundle.chunk(hashes[2])


@pytest.mark.spec("B-4")
def test_damaged_manifests_are_refused_and_left_out_of_the_list(
    store: BundleStore, install: Callable[[str], Bundle]
) -> None:
    damaged, sound = install("made-up"), install("another")
    (damaged.path / "manifest").write_bytes(damaged.signed.envelope[:-1] + b"\0")
    with pytest.raises(StoreError) as caught:
        store.open(damaged.cid)
    assert caught.value.code == Code.CORRUPT_CHUNK
    assert store.list() == (sound,)


def test_a_manifest_under_the_right_cid_still_needs_its_signature(store: BundleStore, tmp_path: Path) -> None:
    files = write_files(tmp_path / "files")
    signed = signer(manifest_of(files))
    forged = signed.envelope[:-64] + bytes(64)
    path = store.root / "bundles" / cid(content_hash(forged))
    path.mkdir(parents=True)
    (path / "manifest").write_bytes(forged)
    with pytest.raises(StoreError, match="does not hold"):
        store.open(path.name)


def test_unknown_and_malformed_cids(store: BundleStore) -> None:
    with pytest.raises(StoreError) as caught:
        store.open(cid(bytes(32)))
    assert caught.value.code == Code.BUNDLE_NOT_BUILT
    with pytest.raises(RemoteProtocolError):
        store.open("../../../etc")


@pytest.mark.spec("B-6")
@pytest.mark.parametrize("name", ["../../../escaped", "..", ".hidden", "a/b", "nul\0"])
def test_no_name_leaves_the_bundles_directory(store: BundleStore, tmp_path: Path, name: str) -> None:
    files = write_files(tmp_path / "files")
    manifest = manifest_of(files, program=name)
    with pytest.raises(StoreError, match="which no bundle may"):
        store.install(manifest, signer, files | {f"programs/{name}": files["programs/call"]})
    assert not (tmp_path / "escaped").exists()


def test_compiled_programs_are_for_their_owner_only(store: BundleStore) -> None:
    store.compile_cache.chmod(0o755)
    assert store.compile_cache.stat().st_mode & 0o777 == 0o700

"""Building: the store, the signature, the trust list, and what is kept from one build to the next."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from nacl.signing import SigningKey
from safetensors.numpy import load_file

from fallow.models import build
from fallow.models.builder import write
from fallow.models.publish import publish
from fallow.models.publishing import key_at, published, sign_at
from fallow.models.recipes import recipe
from fallow.models.weights import ALIGNMENT, write_weights
from fallow.node.engine.bundles import BundleStore
from fallow.node.trust import TrustList
from fallow.protocol.bundle import Manifest
from fallow.protocol.envelope import verify_untrusted
from fallow.protocol.errors import Code, ConfigError
from fallow.protocol.identity import cid
from fallow.protocol.limits import MANIFEST_BYTES_MAX


def silent(_stage: str, _fraction: float) -> None:
    pass


def made(name: str, directory: Path) -> Manifest:
    directory.mkdir()
    return write(name, recipe(name).make(directory, silent), directory, silent)[0]


def test_a_bundle_is_installed_whole_and_trusted(tiny_store: BundleStore) -> None:
    for name in ("tiny-chat", "tiny-embed"):
        bundle = tiny_store.find(name)
        assert bundle is not None
        bundle.verify()
        assert TrustList.load(tiny_store.root.parent).trusts(bundle.signed, bundle.cid)


def test_a_second_build_only_looks_and_a_lost_bundle_is_built_again(tiny_store: BundleStore) -> None:
    stages: list[str] = []
    first = build("tiny-embed", tiny_store)
    assert build("tiny-embed", tiny_store, lambda stage, _: stages.append(stage)) == first
    assert stages == []
    (tiny_store.root / "bundles" / first / "manifest").unlink()
    assert build("tiny-embed", tiny_store, lambda stage, _: stages.append(stage)) == first
    assert stages[0] == "convert"
    assert stages[-1] == "signed by this machine"
    assert len(tomllib.loads((tiny_store.root.parent / "trust.toml").read_text())["bundle"]) == 3


def test_manifests_come_out_equal_wherever_they_are_made(tiny_store: BundleStore, tmp_path: Path) -> None:
    """Here, and where the store's was made: in another directory, and mostly by another process."""
    built = tiny_store.find("tiny-chat")
    assert built is not None and made("tiny-chat", tmp_path / "one") == built.manifest


def test_the_machines_key_is_its_own_and_kept(tmp_path: Path) -> None:
    key = key_at(tmp_path / "keys" / "publisher")
    assert key_at(tmp_path / "keys" / "publisher") == key
    assert (tmp_path / "keys" / "publisher").stat().st_mode & 0o777 == 0o600
    manifest = made("tiny-embed", tmp_path / "made")
    assert sign_at(tmp_path, manifest).signer == bytes(key.verify_key)


def test_publishing_writes_the_envelope_and_the_trust_list(tmp_path: Path) -> None:
    key = SigningKey.generate()
    for _ in range(2):  # the second time replaces
        bundle_cid = publish("tiny-embed", key, tmp_path, tmp_path)
    publish("tiny-chat", key, tmp_path, tmp_path)
    envelope = (tmp_path / "models" / "published" / "tiny-embed.manifest").read_bytes()
    signed = verify_untrusted(Manifest, envelope, signer=bytes(key.verify_key), bytes_max=MANIFEST_BYTES_MAX)
    assert signed.record == made("tiny-embed", tmp_path / "made")
    entries = tomllib.loads((tmp_path / "client" / "trust.toml").read_text())["bundle"]
    assert [entry["name"] for entry in entries] == ["tiny-chat", "tiny-embed"]
    assert entries[1] == {"name": "tiny-embed", "cid": bundle_cid, "publisher": bytes(key.verify_key).hex()}


def test_an_unknown_name_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tiny-chat") as raised:
        build("no-such-model", BundleStore(tmp_path / "store"))
    assert raised.value.code is Code.UNKNOWN_NAME


@pytest.mark.spec("B-2")
def test_weights_are_aligned_and_read_by_the_reference_library(tmp_path: Path) -> None:
    weights = {
        "odd": np.arange(5, dtype=np.float32),
        "even": np.ones((16, 4), np.float32),
        "one": np.ones(1, np.float32),
    }
    path = tmp_path / "weights.safetensors"
    write_weights(path, weights)
    content = path.read_bytes()
    base = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:base])
    assert all((base + header[name]["data_offsets"][0]) % ALIGNMENT == 0 for name in weights)
    read = load_file(path)
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "minilm-l6"])
def test_what_ships_is_signed_by_whom_the_shipped_list_names(name: str, tmp_path: Path) -> None:
    shipped = published(name)
    assert shipped is not None
    assert shipped.record.name == name
    assert TrustList.load(tmp_path).trusts(shipped, cid(shipped.id))

"""Bundles of strangers: who counts as one, and what a node does with theirs where no sandbox can be made."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from nacl.signing import SigningKey

from fallow.models.publishing import published
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.confinement import SEALED, SECCOMP
from fallow.node.engine.sandbox import BUBBLEWRAP, bubblewrap
from fallow.node.trust import is_foreign
from fallow.protocol.envelope import sign

from .conftest import Home, Start, failure

STRANGER = SigningKey(bytes([7] * 32))


@pytest.fixture(scope="module")
def home(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the tiny models: one of this machine's own, and one that a stranger signed, both trusted."""
    path = tmp_path_factory.mktemp("strange")
    shutil.copytree(home.path / "keys", path / "keys")
    store = BundleStore(path / "store")
    shutil.copytree(home.store.root / "bundles", store.root / "bundles")
    own = store.open(home.embed)
    names = own.manifest.files()
    bundle = store.install(own.manifest, partial(sign, key=STRANGER), {name: own.path / name for name in names})
    entries = (("own", own), ("strange", bundle))
    lines = (
        f'[[bundle]]\nname = "{name}"\ncid = "{each.cid}"\npublisher = "{each.signed.signer.hex()}"\n'
        for name, each in entries
    )
    (path / "trust.toml").write_text("".join(lines))
    return Home(path, bundle.cid, own.cid)


def test_a_stranger_is_whoever_is_neither_this_machine_nor_on_the_packages_list(home: Home, tmp_path: Path) -> None:
    stranger, own = (home.store.open(cid).signed for cid in (home.chat, home.embed))
    assert is_foreign(home.path, stranger)
    assert not is_foreign(home.path, own)
    assert is_foreign(tmp_path, own)  # on another machine, or where the key cannot be read
    shipped = published("minilm-l6")
    assert shipped is not None
    assert not is_foreign(tmp_path, shipped)


def test_without_bubblewrap_a_strangers_bundle_is_refused_and_the_machines_own_is_served(
    home: Home, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    complaint = failure(tmp_path, home, bundles=["own", "strange"])
    assert "[sandbox_missing]" in complaint
    assert "apt-get install bubblewrap" in complaint
    node = start(tmp_path / "own", bundles=["own"])
    until, measures = time.monotonic() + 60, []
    while SEALED not in measures:  # once every program is loaded
        assert time.monotonic() < until
        measures = cast(list[str], node.command("status")["sandbox"])
    assert SECCOMP in measures
    assert BUBBLEWRAP not in measures
    node = start(tmp_path / "lenient", bundles=["strange"], sandbox="preferred")
    assert node.command("status")["state"] == "ready"
    node = start(tmp_path / "careless", bundles=["strange"], sandbox="off")
    assert node.command("status")["sandbox"] == ["none"]


def test_with_bubblewrap_a_strangers_bundle_is_served_in_it(home: Home, start: Start, tmp_path: Path) -> None:
    if not bubblewrap():
        pytest.skip(bubblewrap().why_not)
    node = start(tmp_path, bundles=["strange"])
    assert BUBBLEWRAP in node.command("status")["sandbox"]  # type: ignore[operator]  # a list of texts

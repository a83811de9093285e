"""Bundles for the tests of `models`: tiny ones built here, real ones as this machine has them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fallow.models import build
from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.engine.kept import Kept
from fallow.node.engine.loading import own_grant
from fallow.node.engine.programs import Model, load


def load_kept(bundle: Bundle) -> Model:
    """The model as a node of this machine loads it: its programs were compiled when it was built."""
    store = BundleStore(bundle.path.parents[1])
    return load(bundle, own_grant(Kept(store.compile_cache)))


@pytest.fixture(scope="session")
def tiny_store(new_home: Callable[[], Path]) -> BundleStore:
    store = BundleStore(new_home() / "store")
    for name in ("tiny-chat", "tiny-chat-q4", "tiny-embed"):
        build(name, store)
    return store


@pytest.fixture(scope="session")
def built() -> Callable[[str], Bundle]:
    """A real bundle in this machine's store; the test is skipped where it was not built."""
    store = BundleStore(Path(os.environ.get("FALLOW_HOME", Path.home() / ".fallow")) / "store")

    def find(name: str) -> Bundle:
        bundle = store.find(name)
        if bundle is None:
            pytest.skip(f"{name} is not in {store.root}: `fallow bundle build {name}` makes it")
        return bundle

    return find

"""What JAX is made to do on this machine; each in a process of its own, since it is set once per process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fallow.node.engine import device

from .conftest import Tiny

_TORN_ENTRY = """
import pathlib, sys
from jax._src.lru_cache import LRUCache
from fallow.node.engine import device
directory = pathlib.Path(sys.argv[1])
if sys.argv[2] == "configured":
    device.configure(directory)
(directory / "key-cache").write_bytes(b"torn")
cache = LRUCache(str(directory), max_size=-1)
cache.put("key", b"whole")
print(cache.get("key").decode(), len(list(directory.iterdir())))
"""


def put_over_a_torn_entry(directory: Path, how: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", _TORN_ENTRY, str(directory), how], check=True, capture_output=True, text=True
    )
    return run.stdout.strip()


def test_a_torn_entry_of_the_compile_cache_is_replaced(tmp_path: Path) -> None:
    assert put_over_a_torn_entry(tmp_path, "configured") == "whole 1"


_DAMAGED_ENTRIES = """
import pathlib, sys
from jax._src.lru_cache import LRUCache
from fallow.node.engine import device
own, beside = map(pathlib.Path, sys.argv[1:])
device.configure(own, beside=beside)
cache = LRUCache(str(own), max_size=-1)
cache.put("key", b"whole")
(beside / "key-cache").write_bytes((own / "key-cache").read_bytes())
for place in own, beside:
    print(cache.get("key").decode())
    content = (place / "key-cache").read_bytes()
    (place / "key-cache").write_bytes(content[:-1] + b"!")
print(cache.get("key"))
"""


def test_a_damaged_entry_of_the_compile_cache_is_not_there(tmp_path: Path) -> None:
    places = [tmp_path / "own", tmp_path / "beside"]
    for place in places:
        place.mkdir()
    words = [sys.executable, "-c", _DAMAGED_ENTRIES, *map(str, places)]
    run = subprocess.run(words, check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["whole", "whole", "None"]


def test_canary_jax_leaves_torn_entries(tmp_path: Path) -> None:
    """When this fails, jax writes its cache soundly by itself: drop `device._put_whole`."""
    assert put_over_a_torn_entry(tmp_path, "as it comes") == "torn 1"


def test_weights_are_the_mapped_file(tiny: Tiny) -> None:
    check = """
import pathlib, sys
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.device import map_weights
bundle = BundleStore(pathlib.Path(sys.argv[1])).open(sys.argv[2])
params = map_weights(bundle)
maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
spans = [line.split()[0].split("-") for line in maps if line.endswith(str(bundle.path / "weights.safetensors"))]
places = [param.unsafe_buffer_pointer() for param in params]
print(len(places), all(any(int(a, 16) <= place < int(b, 16) for a, b in spans) for place in places))
"""
    words = [sys.executable, "-c", check, str(tiny.store.root), tiny.chat]
    run = subprocess.run(words, check=True, capture_output=True, text=True)
    assert run.stdout.split() == [str(len(tiny.store.open(tiny.chat).manifest.parameters)), "True"]


def test_only_a_short_chunk_of_a_prompt_is_compiled_without_plans() -> None:
    assert device.compiler_options("prefill", 32, 256)
    for other in (("prefill", 128, 256), ("prefill", 32, 1024), ("decode", 1, 256), ("score", 32, 256), ("call", 1, 1)):
        assert device.compiler_options(*other) is None

"""What is kept of compiled programs may be damaged by the disk: then it is compiled anew, and nobody is blamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.engine import open_engine
from fallow.protocol.work import Parameters, Work

from .conftest import Asked, Tiny

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut-short": lambda content: content[: len(content) // 2],
    "never-written": lambda content: bytes(len(content)),
    "a-bit-flipped": lambda content: content[: len(content) // 2] + _flipped(content[len(content) // 2 :]),
    "flipped-at-the-end": lambda content: content[:-2] + _flipped(content[-2:]),
}


def _flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 4]) + content[1:]


@pytest.mark.parametrize("damage", sorted(DAMAGES))
async def test_what_a_disk_has_damaged_is_compiled_anew(tiny: Tiny, tmp_path: Path, damage: str) -> None:
    store = BundleStore(tmp_path / "store")
    shutil.copytree(tiny.store.root / "bundles", store.root / "bundles")
    shutil.copytree(tiny.store.compile_cache, store.compile_cache, dirs_exist_ok=True)
    changed = 0
    for path in store.compile_cache.rglob("*"):
        if path.is_file() and (content := path.read_bytes()):
            path.write_bytes(DAMAGES[damage](content))
            changed += 1
    assert changed > 2
    with trio.fail_after(150):
        async with open_engine(store, [tiny.chat], log_path=tmp_path / "worker.log") as engine:
            assert not engine.refused
            tokens, _ = await Asked(Work(((7, 8, 9),)), tiny.chat, parameters=Parameters(5)).text(engine)
            assert len(tokens) == 5
            assert engine.generation == 3  # it took one worker

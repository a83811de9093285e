"""A file that is replaced as a whole."""

import os
from pathlib import Path

import pytest

from fallow.node import durable


def test_the_new_file_is_on_the_disk_before_the_old_one_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "held", list[bytes]()
    durable.put(path, b"old")
    synced = os.fsync

    def watched(descriptor: int) -> None:
        synced(descriptor)
        seen.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", watched)
    durable.put(path, b"new")
    assert seen == [b"old", b"new"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_cannot_take_it_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "held"
    durable.put(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        durable.put(path, b"new")
    assert path.read_bytes() == b"old"

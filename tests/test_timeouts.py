"""A test that is out of time fails alone, and the time of what it needs is not its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = """
import time

import pytest
import trio


@pytest.fixture
def needed() -> None:
    time.sleep(2)


@pytest.mark.timeout(1)
def test_what_it_needs_takes_long(needed: None) -> None:
    pass


@pytest.mark.timeout(1)
async def test_it_never_ends() -> None:
    try:
        await trio.sleep_forever()
    finally:
        print("its tasks were ended")


@pytest.mark.timeout(1)
def test_it_waits_for_nothing_of_trio() -> None:
    time.sleep(60)


async def test_the_next() -> None:
    await trio.lowlevel.checkpoint()
"""


def test_who_is_out_of_time_fails_alone(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(TESTS)
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(file)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    failed = [line.split()[1].rpartition("::")[2] for line in ran.stdout.splitlines() if line.startswith("FAILED ")]
    assert failed == ["test_it_never_ends", "test_it_waits_for_nothing_of_trio"], ran.stdout + ran.stderr
    assert ran.stdout.count("Timeout (>1.0s) from pytest-timeout") >= 2
    assert "its tasks were ended" in ran.stdout
    assert "2 failed, 2 passed" in ran.stdout

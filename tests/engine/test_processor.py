"""What the kernel says of the processor, and what is made of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fallow.node.engine.processor import STAT, crowded


@pytest.mark.parametrize(("more", "expected"), [(0, False), (1, False), (2, True)])
def test_a_crowd_is_more_than_there_are_cores_beside_us(tmp_path: Path, more: int, expected: bool) -> None:
    (tmp_path / "stat").write_text(
        f"cpu  1 2 3\nprocesses 7\nprocs_running {(os.cpu_count() or 1) + more}\nprocs_blocked 9\n"
    )
    assert crowded(tmp_path / "stat") is expected


def test_where_the_kernel_does_not_say_there_is_none(tmp_path: Path) -> None:
    assert not crowded(tmp_path / "stat")
    (tmp_path / "stat").write_text("cpu  1 2 3\n")
    assert not crowded(tmp_path / "stat")
    assert "procs_running" in STAT.read_text()  # this one does

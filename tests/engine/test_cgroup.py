"""Control groups: found and divided in a tree of files that stands for the kernel's, and really, where this machine lets us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fallow.node.engine import cgroup
from fallow.node.engine.cgroup import (
    CONTROLLERS,
    CPU_WEIGHT,
    NODE,
    WORKER,
    Bounds,
    Ground,
    make,
    own_group,
    prepare,
    sweep,
)

MOUNTS = """\
24 30 0:22 / /proc rw,nosuid shared:12 - proc proc rw
31 25 0:27 / {version_1} rw shared:9 - cgroup cgroup rw,memory
35 25 0:30 {root} {place} rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
"""


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """A process's own folder in /proc."""
    (folder := tmp_path / "proc").mkdir()
    return folder


def tree(path: Path, *, there: str = "memory pids cpu io", enabled: str = "", processes: str = "") -> Path:
    """A group as its files show it."""
    path.mkdir(parents=True)
    (path / "cgroup.controllers").write_text(there + "\n")
    (path / "cgroup.subtree_control").write_text(enabled + "\n")
    (path / "cgroup.procs").write_text(processes)
    return path


@pytest.mark.parametrize(
    ("root", "place", "group", "found"),
    [
        ("/", "/sys/fs/cgroup", "/user.slice/a.scope", "/sys/fs/cgroup/user.slice/a.scope"),
        ("/", "/sys/fs/cgroup/unified", "/", "/sys/fs/cgroup/unified"),
        ("/docker/1", "/sys/fs/cgroup", "/docker/1/node", "/sys/fs/cgroup/node"),
        ("/", "/sys/a\\040b", "/c", "/sys/a b/c"),
        ("/docker/1", "/sys/fs/cgroup", "/elsewhere", None),
    ],
)
def test_a_process_s_own_group_is_found(process: Path, root: str, place: str, group: str, found: str | None) -> None:
    (process / "mountinfo").write_text(MOUNTS.format(version_1="/sys/fs/cgroup/memory", root=root, place=place))
    (process / "cgroup").write_text(f"4:memory:/elsewhere\n0::{group}\n")
    assert own_group(process) == (Path(found) if found else None)


def test_without_version_2_there_is_none_and_that_is_said(process: Path) -> None:
    assert own_group(process) is None
    (process / "mountinfo").write_text("31 25 0:27 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n")
    (process / "cgroup").write_text("4:memory:/elsewhere\n")
    assert own_group(process) is None
    assert "not mounted" in prepare(None).why_not


def test_a_group_that_is_divided_already_is_used_as_it_is(tmp_path: Path) -> None:
    base = tree(tmp_path / "service", enabled="cpu memory pids")
    own = tree(base / NODE, processes=f"{os.getpid()}\n")
    for group in (own, base):
        assert prepare(group) == Ground(base, CONTROLLERS)


def test_controllers_are_asked_for_below(tmp_path: Path) -> None:
    base = tree(tmp_path / "service")
    prepare(base)
    assert (base / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    base = tree(tmp_path / "service", there="memory", enabled="memory")
    found = prepare(base)
    assert (found.path, found.controllers) == (base, ("memory",))
    assert "has no pids, cpu" in found.why_not
    assert "cannot use its control group" in prepare(tmp_path / "nowhere").why_not


def test_a_group_with_others_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    """What the kernel says to whoever divides it is EBUSY: here, as to a file that is none."""
    base = tree(tmp_path / "session", processes=f"1\n{os.getpid()}\n")
    (base / "cgroup.subtree_control").chmod(0o400)
    (base / "cgroup.subtree_control").unlink()
    (base / "cgroup.subtree_control").mkdir()
    assert "cannot use its control group" in prepare(base).why_not
    assert not (base / NODE).exists()


def test_bounds_are_written_as_far_as_there_are_controllers(tmp_path: Path) -> None:
    for controllers in ((), ("memory",), CONTROLLERS):
        base = tmp_path / "-".join(("base", *controllers))
        base.mkdir()
        group = make(Ground(base, controllers), Bounds(3 * 2**30, 80))
        assert group is not None
        (made,) = base.iterdir()
        written = {path.name: path.read_text() for path in made.iterdir()}
        assert written == Bounds(3 * 2**30, 80).settings(controllers)
        group.take(os.getpid())
        assert group.holds == ("memory" in controllers)
        assert (made / "cgroup.procs").read_text() == str(os.getpid())
    assert written["memory.max"] == str(3 * 2**30)
    assert (written["pids.max"], written["cpu.weight"]) == ("80", str(CPU_WEIGHT))
    assert make(Ground(None), Bounds(1, 1)) is None


def test_groups_of_nodes_that_are_gone_are_swept_and_no_others(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    for node in (gone.pid, os.getpid()):
        (tmp_path / f"{WORKER}{node}-0").mkdir()
    (tmp_path / "theirs").mkdir()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{WORKER}{os.getpid()}-0", "theirs"])


def test_a_process_in_a_real_group_is_killed_with_it_and_the_group_goes() -> None:
    ground = cgroup.ground()
    group = make(ground, cgroup.bounds(2**30))
    if group is None or ground.path is None:
        pytest.skip(ground.why_not or "no group can be made here")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        group.take(process.pid)
        (made,) = ground.path.glob(f"{WORKER}{os.getpid()}-*")
        inside = (made / "cgroup.procs").read_text().split()
        if group.holds:
            assert (made / "memory.max").read_text().strip() == str(2**30)
        group.remove()  # which it is not, while somebody is in it
        assert made.exists()
        group.kill()
        assert process.wait(30) == -9
    assert inside == [str(process.pid)]
    group.remove()
    assert not made.exists()

"""What is this user's alone is so from its first moment on, and becomes so if it was not."""

from __future__ import annotations

import ast
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fallow.node import private
from fallow.node.durable import put

ROOT = Path(__file__).parents[2]
PACKAGES = ("cli", "client", "node")
READS_ONLY = "node/transaction.py"
"""Opens a file that is there, for reading alone."""


@pytest.fixture(autouse=True)
def open_to_all() -> Iterator[None]:
    """Nothing here is private by the user's own word."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_a_database_and_all_that_sqlite_lays_beside_it(tmp_path: Path) -> None:
    with closing(private.database(tmp_path / "a.sqlite")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x)")
        found = modes(tmp_path)
    assert set(found) == {"a.sqlite", "a.sqlite-wal", "a.sqlite-shm"}
    assert set(found.values()) == {0o600}


def test_what_an_earlier_version_left_open_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as before:
        before.execute("PRAGMA journal_mode = WAL")
        before.execute("CREATE TABLE t (x)")
        assert set(modes(tmp_path).values()) == {0o644}
        with closing(private.database(path)) as db:
            assert set(modes(tmp_path).values()) == {0o600}
            db.execute("INSERT INTO t VALUES (1)")
        assert before.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_a_database_that_is_open_keeps_its_locks_when_it_is_opened_again(tmp_path: Path) -> None:
    """To close any descriptor of a file gives up all POSIX locks that the process has on it: another process sees that."""
    path = tmp_path / "a.sqlite"
    with closing(private.database(path)) as one:
        one.execute("CREATE TABLE t (x)")
        one.execute("BEGIN IMMEDIATE")
        private.database(path).close()
        other = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        found = subprocess.run([sys.executable, "-c", other, path], capture_output=True, text=True, check=False)
        assert "database is locked" in found.stderr
        one.execute("COMMIT")


def test_files_and_folders(tmp_path: Path) -> None:
    made = tmp_path / "made"
    private.folder(made)
    (made / "open").touch()
    for name in ("open", "fresh"):
        with private.stream(made / name, "a") as stream:
            stream.write("one\n")
    private.replace(made / "replaced", b"one")
    private.replace(made / "replaced", b"two")
    put(made / "durable", b"three")
    assert modes(made) == dict.fromkeys(("open", "fresh", "replaced", "durable"), 0o600)
    assert made.stat().st_mode & 0o777 == 0o700
    assert (made / "replaced").read_bytes() == b"two"


def test_what_the_system_says_is_sqlites_error(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        private.database(tmp_path / "nowhere" / "a.sqlite")


def test_every_database_is_opened_there() -> None:
    """One place decides who may read what we write."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr == "connect" and ast.unparse(node.value) == "sqlite3":
                    found.add(str(path.relative_to(ROOT)))
    assert found == {"node/private.py", READS_ONLY}


def test_a_node_makes_nothing_that_others_may_read(tmp_path: Path) -> None:
    private.from_now_on()
    (tmp_path / "by-any-library").write_text("x")
    (tmp_path / "folder").mkdir()
    assert modes(tmp_path) == {"by-any-library": 0o600, "folder": 0o700}


def test_two_that_replace_one_file_do_not_share_a_scratch_file(tmp_path: Path) -> None:
    (tmp_path / ".a.part").mkdir()  # by another process, at work
    private.replace(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        private.replace(tmp_path / "folder", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.part", "folder"}, "what failed has left nothing"

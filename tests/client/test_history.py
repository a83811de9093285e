"""What a client remembers of whom: checked results in a row, faults, and what it took unchecked."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fallow.client import history as module
from fallow.client.history import ANCHOR, HISTORY, KEPT_MS, History, Kept, Subject, precision_of
from fallow.protocol.errors import Code, StoreError
from fallow.protocol.identity import CHECKER, EXECUTOR

NODE, OTHER, OWNER, BUNDLE = (bytes([number]) * 32 for number in range(1, 5))
SUBJECT = Subject(NODE, OWNER, BUNDLE, "float32")
KEPT = Kept(SUBJECT, "generate", b"receipt", b"parameters", b"work", b"", "adaptive:20000", bytes(32), 1_000)


def passed(history: History, subject: Subject, times: int, role: str = EXECUTOR) -> None:
    for at_ms in range(times):
        history.passed(subject, role, at_ms)


def test_results_are_counted_by_node_bundle_precision_and_role() -> None:
    history = History()
    passed(history, SUBJECT, 3)
    passed(history, replace(SUBJECT, precision="bfloat16"), 2)
    passed(history, SUBJECT, 1, CHECKER)
    assert [history.valid(SUBJECT), history.valid(SUBJECT, CHECKER)] == [3, 1]
    assert history.valid(replace(SUBJECT, precision="bfloat16")) == 2
    assert history.valid(replace(SUBJECT, bundle=OTHER)) == history.valid(replace(SUBJECT, node=OTHER)) == 0
    assert precision_of("float32/0.10.2/cpu/avx2/1x512") == "float32"


def test_a_fault_makes_every_node_of_the_owner_a_newcomer_and_no_anchor_ever_again() -> None:
    history, second = History(), replace(SUBJECT, node=OTHER)
    passed(history, SUBJECT, ANCHOR // 2)
    assert not history.anchors()
    passed(history, second, ANCHOR - ANCHOR // 2)
    assert history.anchors() == {OWNER}
    assert history.proven(BUNDLE, 10) == {NODE, OTHER}
    history.failed(OWNER, NODE, "lied", 5)
    assert history.valid(SUBJECT) == history.valid(second) == 0
    assert history.faults(OWNER) == 1
    assert not history.proven(BUNDLE, 10)
    passed(history, second, 2 * ANCHOR)
    assert history.valid(second) == 2 * ANCHOR
    assert not history.anchors()


def test_a_node_that_changes_hands_begins_anew() -> None:
    history = History()
    passed(history, SUBJECT, 7)
    sold = replace(SUBJECT, owner=OTHER)
    assert history.valid(sold) == 0
    passed(history, sold, 1)
    assert [history.valid(sold), history.valid(SUBJECT)] == [1, 0]


def test_audits_go_backwards_over_what_was_kept_and_no_further_than_a_week() -> None:
    history = History()
    for number in range(3):
        history.keep(replace(KEPT, at_ms=1_000 + number), bytes([number]))
    history.keep(replace(KEPT, subject=replace(SUBJECT, owner=OTHER)), b"another")
    assert [receipt for receipt, _ in history.kept(OWNER, 2_000)] == [b"\2", b"\1", b"\0"]
    assert history.owners_at_fault(2_000) == []
    history.failed(OWNER, NODE, "lied", 2_000)
    assert history.owners_at_fault(2_000) == [OWNER]
    history.looked_at(b"\2")
    assert [receipt for receipt, _ in history.kept(OWNER, 1_001 + KEPT_MS)] == [b"\1"]
    history.keep(replace(KEPT, at_ms=2_000 + KEPT_MS), b"new")
    assert [receipt for receipt, _ in history.kept(OWNER, 2_000)] == [b"new"]


def test_a_kept_result_proves_one_fault_and_stays_until_nobody_needs_it_any_more() -> None:
    history = History()
    history.keep(KEPT, b"receipt")
    assert not history.is_wrong(b"receipt")
    history.failed(OWNER, NODE, "lied", 2_000, b"receipt")
    assert history.is_wrong(b"receipt")
    assert [receipt for receipt, _ in history.kept(OWNER, 2_000)] == [b"receipt"]
    history.looked_at(b"receipt")
    assert not history.is_wrong(b"receipt")
    assert history.kept(OWNER, 2_000) == []


def test_what_one_checker_alone_confirmed_rests_on_its_owner() -> None:
    history = History()
    history.keep(KEPT, b"unchecked")
    history.keep(KEPT, b"vouched", OTHER)
    assert [receipt for receipt, _ in history.kept(OWNER, 2_000)] == [b"unchecked"]
    assert history.kept(OTHER, 2_000) == [(b"vouched", KEPT)]
    history.failed(OTHER, NODE, "confirmed what is wrong", 2_000)
    assert history.owners_at_fault(2_000) == [OTHER]
    history.failed(OWNER, NODE, "lied", 2_000)
    assert set(history.owners_at_fault(2_000)) == {OWNER, OTHER}
    history.looked_at(b"vouched")
    assert history.owners_at_fault(2_000) == [OWNER]
    history.keep(KEPT, b"vouched")
    assert len(history.kept(OWNER, 2_000)) == 2, "nothing is left of who confirmed it before"


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 3)
    monkeypatch.setattr(module, "KEPT_BYTES_MAX", 1_000)
    history = History()
    for number in range(5):
        history.keep(replace(KEPT, at_ms=number), bytes([number]))
    assert len(history.kept(OWNER, 10)) == 3
    history.keep(replace(KEPT, at_ms=9, work=bytes(990)), b"large")
    assert [receipt for receipt, _ in history.kept(OWNER, 10)] == [b"large"]


def test_what_nobody_has_checked_is_kept_before_what_one_checker_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 3)
    history = History()
    history.keep(KEPT, b"unchecked")
    for number in range(5):
        history.keep(replace(KEPT, at_ms=2_000 + number), bytes([number]), OTHER)
    assert [receipt for receipt, _ in history.kept(OWNER, 3_000)] == [b"unchecked"]
    assert [receipt for receipt, _ in history.kept(OTHER, 3_000)] == [b"\4", b"\3"]


def test_what_the_next_checker_alone_confirms_rests_on_that_one() -> None:
    history = History()
    history.keep(KEPT, b"receipt", OTHER)
    history.keep(KEPT, b"receipt", BUNDLE)
    assert history.kept(OTHER, 2_000) == []
    assert history.kept(BUNDLE, 2_000) == [(b"receipt", KEPT)]


_KILLED = """
import os, signal, sys
from pathlib import Path
from fallow.client.history import History, Subject
history = History(Path(sys.argv[1]))
for at_ms in range(12):
    history.passed(Subject(b"n" * 32, b"o" * 32, b"b" * 32, "float32"), "executor", at_ms)
history.failed(b"x" * 32, b"y" * 32, "lied", 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_written_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / HISTORY
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(path)], timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL
    history = History(path)
    assert history.valid(Subject(b"n" * 32, b"o" * 32, b"b" * 32, "float32")) == 12
    assert history.faults(b"x" * 32) == 1
    assert path.stat().st_mode & 0o077 == 0  # prompts lie in it
    history.close()


def test_a_damaged_file_is_no_clean_slate(tmp_path: Path) -> None:
    path = tmp_path / HISTORY
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError) as caught:
        History(path)
    assert caught.value.code is Code.CORRUPT_STORE
    assert path.read_bytes().startswith(b"no database")

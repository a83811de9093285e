"""The peer book: bounded, shared by processes, and there again after a crash or damage."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from fallow.node import book_file
from fallow.node.book import AGAIN_MS, LOOK_MS, PEERS_MAX, PROFILE_BYTES_MAX, WAYS_MAX, Book, Profile
from fallow.node.network.seam import Network

BUNDLE, OTHER = bytes([1] * 32), bytes([2] * 32)
PROFILE = Profile(b"mandate", b"capability", b"connectivity")


class Clock:
    """Wall time, as the test has it."""

    def __init__(self) -> None:
        self.now_ms = 10**12

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def at(number: int) -> str:
    return f"/ip4/192.0.2.1/tcp/{number}/p2p/peer{number}"


def answer(book: Book, number: int, *bundles: bytes, profile: Profile = PROFILE) -> None:
    book.answered(key(number), [at(number)], bundles, 1500, profile)


def test_what_was_learned_is_there_the_next_time(tmp_path: Path) -> None:
    book = Book(tmp_path / "home" / "book.sqlite", Clock())
    answer(book, 1, BUNDLE)
    answer(book, 1, BUNDLE, OTHER)
    answer(book, 2, BUNDLE)
    book.missed(key(2))
    book.worked(key(1), well=True)
    book.worked(key(1), well=False)
    book.see_epoch(b"mandate of 1", 7)
    book.see_epoch(b"mandate of 1", 5)
    before, profile = list(book), book.profile(key(1))
    book.close()
    book = Book(tmp_path / "home" / "book.sqlite", Clock())
    assert (list(book), book.problem) == (before, "")
    met = book.get(key(1))
    assert met and (met.tries, met.answers, met.rtt_us, met.jobs_done, met.jobs_failed) == (2, 2, 1500, 1, 1)
    assert met.bundles == (BUNDLE, OTHER)
    assert book.profile(key(1)) == profile == PROFILE
    assert (book.epoch(b"mandate of 1"), book.epoch(b"mandate of 2")) == (7, 0)
    assert (tmp_path / "home" / "book.sqlite").stat().st_mode & 0o077 == 0
    book.close()


def test_who_failed_once_is_not_offered_until_it_answers(tmp_path: Path) -> None:
    book = Book(tmp_path / "book.sqlite", Clock())
    answer(book, 1, BUNDLE)
    answer(book, 2, BUNDLE)
    assert [met.key for met in book.serving(BUNDLE)] == [key(2), key(1)]
    book.missed(key(2))
    book.missed(key(3))  # whom we never met has no place in it
    book.close()
    book = Book(tmp_path / "book.sqlite", Clock())
    assert [met.key for met in book.serving(BUNDLE)] == [key(1)]
    assert (len(book), book.serving(OTHER)) == (2, [])
    answer(book, 2, BUNDLE)
    assert [met.key for met in book.serving(BUNDLE)] == [key(2), key(1)]
    book.close()


def test_one_joins_by_those_who_answered_and_worked_and_by_their_relays() -> None:
    book = Book(None, Clock())
    for number in (1, 2, 3):
        answer(book, number, BUNDLE)
    book.missed(key(3))
    book.worked(key(1), well=True)
    book.met(key(4), [f"{at(9)}/p2p-circuit/p2p/peer4", f"{at(9)}/p2p-circuit/p2p/peer4"])
    assert book.ways_in() == [at(1), at(9), at(2), at(3)]
    for number in range(20, 60):
        answer(book, number)
    assert len(book.ways_in()) == WAYS_MAX
    assert book.ways_in()[0] == at(1)


def test_where_a_peer_said_to_be_counts_more_than_where_it_is_seen() -> None:
    book = Book(None, Clock())
    book.met(key(1), [at(1)])
    book.met(key(1), [at(2)])
    assert book.ways_in() == [at(2)]
    answer(book, 1, BUNDLE)
    book.missed(key(1))
    book.met(key(1), [at(3)])
    met = book.get(key(1))
    assert met and met.addresses == (at(1),) and not met.gone
    assert (met.tries, met.answers) == (2, 1)


def test_a_peer_that_stays_connected_is_not_written_again_and_again() -> None:
    clock = Clock()
    book = Book(None, clock)
    book.met(key(1), [at(1)])
    first = book.get(key(1))
    book.met(key(1), [at(1)])
    assert book.get(key(1)) is first
    book.missed(key(1))
    book.met(key(1), [at(1)])
    again = book.get(key(1))
    assert first and again and not again.gone and again.met_ms > first.met_ms
    clock.now_ms += AGAIN_MS
    book.met(key(1), [at(1)])
    later = book.get(key(1))
    assert later and later.met_ms > again.met_ms + AGAIN_MS


class Connected:
    """A network in which some are connected, and that is asked where they are."""

    def __init__(self) -> None:
        self.there: list[int] = []
        self.asked: list[int] = []

    def peers(self) -> list[bytes]:
        return [key(number) for number in self.there]

    def whereabouts(self, peer: bytes) -> tuple[str, ...]:
        self.asked.append(int.from_bytes(peer, "big"))
        return (at(self.asked[-1]),)


def test_who_stays_connected_is_looked_at_once_a_minute() -> None:
    clock, network = Clock(), Connected()
    book = Book(None, clock)
    for there in ([1, 2], [1, 2, 3], [2, 3], [1, 2, 3]):
        network.there = there
        book.look(cast(Network, network))
    assert network.asked == [1, 2, 3, 1]  # who left and came back is looked at anew
    assert {met.key for met in book} == {key(1), key(2), key(3)}
    book.missed(key(3))
    clock.now_ms += LOOK_MS
    book.look(cast(Network, network))
    assert network.asked[4:] == [1, 2, 3]
    assert not any(met.gone for met in book)
    clock.now_ms -= 10 * LOOK_MS  # set back
    book.look(cast(Network, network))
    assert network.asked[7:] == [1, 2, 3]


def test_who_was_not_met_for_longest_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    book = Book(tmp_path / "book.sqlite", clock)
    for number in range(PEERS_MAX + 3):
        answer(book, number)
    answer(book, 3)
    book.close()
    book = Book(tmp_path / "book.sqlite", clock)
    assert len(book) == PEERS_MAX
    assert book.get(key(2)) is None and book.get(key(3)) is not None
    assert next(iter(book)).key == key(3)
    fat = Profile(b"", bytes(PROFILE_BYTES_MAX // 2), b"")
    monkeypatch.setattr(book_file, "BYTES_MAX", 10 * PROFILE_BYTES_MAX)
    for number in range(40):
        answer(book, number, profile=fat)
    book.close()
    book = Book(tmp_path / "book.sqlite", clock)
    assert 15 <= len(book) <= 20
    assert {met.key for met in book} == {key(number) for number in range(40 - len(book), 40)}
    answer(book, 50, profile=Profile(b"", bytes(PROFILE_BYTES_MAX + 1), b""))
    assert book.profile(key(50)) is None and book.get(key(50)) is not None
    book.close()


def test_a_clock_that_was_ahead_once_keeps_nobody_a_place(tmp_path: Path) -> None:
    ahead, clock = Clock(), Clock()
    ahead.now_ms += 10**11
    for time in (ahead, clock):
        book = Book(tmp_path / "book.sqlite", time)
        answer(book, 1 if time is ahead else 2, BUNDLE)
        book.close()
    book = Book(tmp_path / "book.sqlite", clock)
    assert all(met.met_ms <= clock.now_ms for met in book)
    answer(book, 2, BUNDLE)
    assert [met.key for met in book.serving(BUNDLE)] == [key(2), key(1)]
    book.close()


def test_epochs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_file, "EPOCHS_MAX", 5)
    clock = Clock()
    for number in range(8):
        book = Book(tmp_path / "book.sqlite", clock)
        book.see_epoch(key(number), 3)
        book.close()
    book = Book(tmp_path / "book.sqlite", clock)
    assert [book.epoch(key(number)) for number in range(8)] == [0, 0, 0, 3, 3, 3, 3, 3]
    book.close()


def test_two_processes_write_one_book(tmp_path: Path) -> None:
    clock = Clock()
    one, two = (Book(tmp_path / "book.sqlite", clock) for _ in range(2))
    for book in (one, two, two):
        answer(book, 1, BUNDLE)
    answer(one, 2)
    two.missed(key(1))
    one.close()
    two.close()
    book = Book(tmp_path / "book.sqlite", clock)
    met = book.get(key(1))
    assert met and (met.tries, met.answers, met.gone) == (4, 3, True)
    assert book.get(key(2))
    book.close()


@pytest.mark.parametrize("damage", ["noise", "middle", "version", "schema"])
def test_a_damaged_book_is_set_aside_and_begun_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "book.sqlite"
    book = Book(path, Clock())
    for number in range(200):
        answer(book, number, BUNDLE)
    book.close()
    if damage in ("noise", "middle"):
        content = bytearray(path.read_bytes())
        content[:] = b"\x55" * len(content) if damage == "noise" else content
        content[4096 * 2 : 4096 * 4] = b"\x55" * 8192
        path.write_bytes(content)
    else:
        db = sqlite3.connect(path)
        db.executescript("PRAGMA user_version = 99" if damage == "version" else "DROP TABLE peers")
        db.close()
    again = Book(path, Clock())
    assert len(again) == 0
    assert str(path) in again.problem and "book.sqlite.damaged" in again.problem
    assert (tmp_path / "book.sqlite.damaged").exists()
    answer(again, 7, BUNDLE)
    again.close()
    last = Book(path, Clock())
    assert ([met.key for met in last], last.problem) == ([key(7)], "")
    last.close()


def test_a_book_that_fails_while_it_is_open_costs_what_is_learned_and_no_more(tmp_path: Path) -> None:
    book = Book(tmp_path / "book.sqlite", Clock())
    answer(book, 1, BUNDLE)
    book._write(book._taken())
    other = sqlite3.connect(tmp_path / "book.sqlite")
    other.executescript("DROP TABLE peers; DROP TABLE epochs")
    other.close()
    answer(book, 2, BUNDLE)
    book._write(book._taken())
    assert "no longer be used" in book.problem
    assert [met.key for met in book.serving(BUNDLE)] == [key(2), key(1)]
    assert book.epoch(b"x") == 0
    book.close()


def test_where_nothing_can_be_kept_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "book.sqlite", tmp_path):
        book = Book(path, Clock())
        assert "cannot be used" in book.problem
        answer(book, 1, BUNDLE)
        assert len(book) == 1
        book.close()


WRITER = """
import json, sys
from pathlib import Path
from fallow.node.book import Book, Profile
book = Book(Path(sys.argv[1]))
for number in range(10**9):
    key = (number % 500).to_bytes(32, "big")
    book.answered(key, ["/ip4/192.0.2.1/tcp/1/p2p/x"], [bytes(32)], 1, Profile(bytes(1000), bytes(2000), bytes(1000)))
    if number % 20 == 0:
        book._write(book._taken())
        print(number, flush=True)
"""


def test_a_book_whose_writer_is_killed_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "book.sqlite"
    for kills in (1, 2, 3):
        with subprocess.Popen([sys.executable, "-P", "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(5 * kills):
                number = json.loads(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
        book = Book(path)
        assert book.problem == ""
        assert len(book) >= min(500, number)
        book.close()

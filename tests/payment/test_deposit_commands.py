"""`fallow deposit` and `fallow balance` as they are typed, at a real mint: what each says of a deposit, and what it leaves."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node import private
from fallow.node.keys import load_or_create
from fallow.node.log import wall_ms
from fallow.node.rails.cashu import Cashu
from fallow.node.rails.deposits import FILE, DepositBook, Made
from fallow.node.rails.rail import Invoice
from fallow.node.trust import TrustList
from fallow.protocol.errors import Code, Refused

from .test_rails import Gate, gate, mint
from .user import User

__all__ = ["gate", "mint"]

UNIT_UCR, FUNDED = 1_000, 40
NODE = bytes(SigningKey(bytes([1]) * 32).verify_key)
PLACE = "/ip4/127.0.0.1/tcp/1"


def settled(home: Path, mint: str) -> User:
    """A user of this mint."""
    private.folder(home)
    (home / "rails.toml").write_text(f'[cashu]\nmint = "{mint}"\nucr_per_unit = {UNIT_UCR}\n')
    return User(home)


@pytest.fixture
async def user(tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> User:
    user = settled(tmp_path / "home", gate.address)
    monkeypatch.setenv("FALLOW_HOME", str(user.home))
    await user.fill(FUNDED)
    return user


@pytest.fixture
def payee(tmp_path: Path, gate: Gate) -> Iterator[Cashu]:
    """The purse of whomever ecash is locked to."""
    with closing(Cashu(tmp_path / "payee.sqlite", gate.address, b"\x08" * 32, UNIT_UCR)) as purse:
        yield purse


def mint_of(user: User) -> str:
    return (user.home / "rails.toml").read_text().split('"')[1]


@contextmanager
def opened(user: User) -> Iterator[tuple[Cashu, DepositBook]]:
    """The user's purse and deposits, as a command of theirs has them open."""
    folder, key = user.home / "rails", load_or_create(user.home / "keys" / "client")
    with (
        closing(Cashu(folder / "cashu.sqlite", mint_of(user), bytes(key), UNIT_UCR)) as purse,
        closing(DepositBook(folder)) as book,
    ):
        yield purse, book


def lock(user: User, payee: Cashu, ucr: int, reference: str, *, over: bool = False) -> bytes:
    """As `deposit make` for a node, but for asking it: a node's own part is tested with real nodes."""
    until_s = wall_ms() // 1000 + (-60 if over else 20 * 86_400)
    with opened(user) as (purse, book):
        made = book.begin(Made(reference, NODE, payee.terms, PLACE, ucr, until_s))
        means = purse.pay(Invoice(user.key, NODE, made.address, ucr, reference), until_s=until_s)
        book.note_handed(reference, PLACE)
    return means


async def states(user: User) -> dict[str, str]:
    return {each["reference"]: each["state"] for each in (await user("deposit", "list"))["made"]}


async def units(user: User) -> int:
    return int((await user("purse", "show"))["units"])


async def test_out_is_no_file_that_is_there(user: User, payee: Cashu, tmp_path: Path) -> None:
    out, other = tmp_path / "bond.means", tmp_path / "other.means"
    make = ("deposit", "make", payee.address, "4000", "--reference", "bond", "--out")
    out.write_text("somebody's")
    assert "[bad_config]" in await user(*make, out, code=1)
    assert out.read_text() == "somebody's"
    assert (await states(user), await units(user)) == ({}, FUNDED)
    out.unlink()
    made = await user(*make, out)
    assert (made["place"], made["state"], made["ucr"]) == (str(out), "locked", 4000)
    means = out.read_bytes()
    assert payee.locked_until_s(means) == made["until_s"]
    out.unlink()  # lost, it is written again; and again over itself
    for _ in range(2):
        assert await user(*make, out) == made
        assert out.read_bytes() == means
    other.write_text("somebody's")
    assert "[bad_config]" in await user(*make, other, code=1)
    other.unlink()
    again = await user(*make, other)
    assert again == {**made, "place": str(other)}
    assert other.read_bytes() == means
    assert (await user("deposit", "list"))["made"] == [again]
    assert await units(user) == FUNDED - 5  # locked once; the mint keeps one


async def test_what_nothing_came_of_is_forgotten(user: User, payee: Cashu, tmp_path: Path, gate: Gate) -> None:
    make = ("deposit", "make", payee.address)
    with_name = ("--reference", "bond", "--out", tmp_path / "bond")
    assert "[credit_exhausted]" in await user(*make, "90000", *with_name, code=1)
    assert await states(user) == {}
    with opened(user) as (_, book):  # as a process leaves it that ends before it has asked the mint
        book.begin(Made("bond", b"p" * 32, "key", "elsewhere", 7, 1))
    assert await states(user) == {"bond": "begun: repeat `fallow deposit make`"}
    # Asked for, it may be locked: no other one may have its name until that is known.
    gate.lost = {"/v1/swap": 0}
    assert "[peer_unreachable]" in await user(*make, "4000", *with_name, code=1)
    assert await states(user) == {"bond": "begun: repeat `fallow deposit make`"}
    assert "another reference" in await user(*make, "5000", *with_name, code=1)
    gate.lost.clear()
    assert (await user(*make, "4000", *with_name))["state"] == "locked"
    assert (await states(user), await units(user)) == ({"bond": "locked"}, FUNDED - 5)


async def test_what_was_locked_and_not_handed_over_says_so(user: User, payee: Cashu, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    make = ("deposit", "make", payee.address, "4000", "--reference", "bond", "--out", gone / "bond")
    assert "[bad_config]" in await user(*make, code=1)  # there is no such folder
    assert await states(user) == {"bond": "locked, and not handed over: repeat `fallow deposit make`"}
    gone.mkdir()
    assert (await user(*make))["state"] == "locked"
    assert (await states(user), await units(user)) == ({"bond": "locked"}, FUNDED - 5)


async def test_what_came_back_is_known_though_the_process_ended_before_it_wrote_so(
    user: User, payee: Cashu, tmp_path: Path, gate: Gate
) -> None:
    means = lock(user, payee, 8000, "bond", over=True)
    assert await states(user) == {"bond": "over: `fallow deposit back` takes it back"}
    with opened(user) as (purse, _):
        assert purse.take_back(means, wall_ms() // 1000) == 7000
    assert await states(user) == {"bond": "taken back"}
    with opened(user) as (_, book):
        assert [made.back for made in book.all_made()] == [True]
    gate.lost = {"/v1/checkstate": 0}  # what is decided is not asked for again
    assert await states(user) == {"bond": "taken back"}
    for _ in range(2):
        assert (await user("deposit", "back", "bond"))["ucr"] == 7000
    assert await units(user) == FUNDED - 2
    out = tmp_path / "bond.means"
    for words in (
        (payee.address, "8000", "--out", out),
        (PLACE + "/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5", "5"),
    ):
        assert "error" in await user("deposit", "make", *words, "--reference", "bond", code=1)
    assert not out.exists()
    assert await user.owed(NODE) == 0


async def test_a_deposit_that_was_taken_is_paid_whoever_looks_first(user: User, payee: Cashu, gate: Gate) -> None:
    """And in whole units of the mint, as the node counts it."""
    means = lock(user, payee, 7500, "spring")
    lock(user, payee, 2000, "autumn")
    assert await user.owed(NODE) == 0
    taken = payee.take(means)
    assert taken.ucr == 8000
    gate.lost = {"/v1/checkstate": 0}
    told = await user("balance")
    assert (told["unseen_deposits"], told["parties"]) == (["spring", "autumn"], [])
    assert (await user("balance", NODE.hex()))["unseen_deposits"] == ["spring", "autumn"]
    unknown = "not known: the mint does not answer"
    assert await states(user) == {"spring": unknown, "autumn": unknown}
    gate.lost.clear()
    told = await user("balance")
    assert told["unseen_deposits"] == []
    assert [(each["party"], each["theirs_ucr"]) for each in told["parties"]] == [(NODE.hex(), -8000)]
    told = await user("balance", NODE.hex())
    assert told["unseen_deposits"] == []
    (entry,) = told["entries"]
    assert entry == {"reference": taken.id.hex(), "ours_ucr": 0, "theirs_ucr": -8000}
    assert await states(user) == {"spring": "taken by its payee", "autumn": "locked"}
    gate.lost = {"/v1/checkstate": 0}
    assert await states(user) == {"spring": "taken by its payee", "autumn": unknown}
    assert await user.owed(NODE) == -8000
    gate.lost.clear()
    assert "[spent]" in await user("deposit", "back", "spring", code=1)
    assert await user.owed(NODE) == -8000
    listed = {each["reference"]: each["ucr"] for each in (await user("deposit", "list"))["made"]}
    assert listed == {"spring": 8000, "autumn": 2000}


async def test_who_would_take_back_what_was_taken_learns_that_it_was_paid(user: User, payee: Cashu) -> None:
    payee.take(lock(user, payee, 8000, "spring", over=True))
    assert "[spent]" in await user("deposit", "back", "spring", code=1)
    assert await user.owed(NODE) == -8000


async def test_what_a_client_took_is_no_payment(user: User, payee: Cashu, tmp_path: Path) -> None:
    out = tmp_path / "bond"
    make = ("deposit", "make", payee.address, "4000", "--reference", "bond", "--out", out)
    await user(*make)
    payee.take(out.read_bytes())
    assert (await user("balance"))["parties"] == []
    assert await states(user) == {"bond": "taken by its payee"}
    assert "[spent]" in await user(*make, code=1)


async def test_one_deposit_is_made_at_a_time(user: User, payee: Cashu, tmp_path: Path) -> None:
    """Else one process could forget what another has begun, and its tokens would be locked under no name."""
    make = ("deposit", "make", payee.address, "4000", "--reference", "bond", "--out", tmp_path / "bond")
    with opened(user) as (_, book), book.making():
        assert "[busy]" in await user(*make, code=1)
        with pytest.raises(Refused) as caught, book.making():
            raise AssertionError("both at once")
        assert caught.value.code is Code.BUSY
    assert (await user(*make))["state"] == "locked"


def test_the_first_form_of_the_book_is_carried_over(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as old:
        old.execute(
            """CREATE TABLE made (reference TEXT PRIMARY KEY, payee BLOB NOT NULL, address TEXT NOT NULL, place TEXT NOT NULL,
               ucr INTEGER NOT NULL, until_s INTEGER NOT NULL, handed INTEGER NOT NULL DEFAULT 0,
               back INTEGER NOT NULL DEFAULT 0) STRICT"""
        )
        old.execute("INSERT INTO made VALUES ('a', ?, 'key', 'here', 5, 9, 1, 0)", (b"p" * 32,))
        old.commit()
    for taken in (False, True):
        with closing(DepositBook(tmp_path)) as book:
            assert book.all_made() == [Made("a", b"p" * 32, "key", "here", 5, 9, handed=True, taken=taken)]
            book.note_taken("a")


async def test_two_who_begin_to_rely_at_once_are_both_relied_on(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = (await user("purse", "show"))["key"]
    owners = {name: settled(tmp_path / name, mint_of(user)) for name in ("one", "two")}
    for name, owner in owners.items():
        monkeypatch.setenv("FALLOW_HOME", str(owner.home))
        await owner.fill(10)
        await owner("deposit", "make", key, "4000", "--reference", "bond", "--out", tmp_path / f"{name}.means")
    monkeypatch.setenv("FALLOW_HOME", str(user.home))
    command = [sys.executable, "-P", "-m", "fallow.cli", "deposit", "rely"]
    async with trio.open_nursery() as nursery:
        for name, owner in owners.items():
            words = [*command, str(tmp_path / f"{name}.means"), "--owner", owner.key.hex()]
            for _ in range(2):
                nursery.start_soon(partial(trio.run_process, words, env=dict(os.environ)))
    deposits = TrustList.load(user.home).deposits
    assert sorted(each.owner for each in deposits) == sorted(owner.key for owner in owners.values())
    assert {each.means.read_bytes() for each in deposits} == {
        (tmp_path / f"{name}.means").read_bytes() for name in owners
    }

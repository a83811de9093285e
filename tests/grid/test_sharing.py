"""Members of a feeder tell each other what they know, over the network's seam; what they lent outlives them."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import trio
from nacl.signing import SigningKey

from fallow.node.grid import sharing
from fallow.node.grid.ledger import FORGOT_MS, GIVEN, HELD, LEDGER, ROSTER, SET_ASIDE, Ledger
from fallow.node.grid.member import FORGET_MS, Allowance, Member
from fallow.node.grid.sharing import Sharing
from fallow.node.log import EventLog
from fallow.node.machine import HERE, boot_ms, wall_ms
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, NetworkError, StoreError
from fallow.protocol.feeders import lenders
from fallow.protocol.grid import FeederMember, FeederRoster
from fallow.protocol.limits import SKEW_MS
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.messages.grid import FeederReply, FeederRequest
from fallow.protocol.streams import FEEDER_PROTOCOL
from fallow.testnet.simnet.scenario import Faults, Load
from fallow.testnet.simnet.scenario_file import changed, load
from fallow.testnet.simnet.tasks.simulation import simulate_tasks

GRID = SigningKey(b"\x11" * 32)
KEYS = [SigningKey(bytes([n]) * 32) for n in range(1, 5)]
SHARE_W = 4_000


def roster(begins_ms: int) -> Signed[FeederRoster]:
    members = tuple(FeederMember(key, SHARE_W) for key in sorted(bytes(each.verify_key) for each in KEYS))
    return sign(FeederRoster("t-17", 1, 4 * SHARE_W, members, begins_ms, begins_ms + 86_400_000), GRID)


@pytest.fixture(autouse=True)
def nothing_to_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here has an engine that has to draw less before a lease goes out."""
    monkeypatch.setattr(sharing, "SETTLE_S", 0.0)


class OneStream:
    """A question that has come, and its answer."""

    def __init__(self, peer: bytes, frame: bytes) -> None:
        self.peer, self.sent_bytes = peer, 0
        self._frame: bytes | None = frame
        self.answers: list[bytes] = []

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        frame, self._frame = self._frame, None
        if frame is None:
            raise NetworkError(Code.STREAM_CLOSED, "the other side has closed the stream")
        return frame

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.answers.append(frame)

    async def close(self) -> None: ...

    async def reset(self) -> None: ...


class Wire:
    """As much of a network as a member uses: it asks the others there, if they are."""

    def __init__(self, key: bytes, there: dict[bytes, Sharing]) -> None:
        self.key, self._there = key, there

    def whereabouts(self, peer: bytes) -> tuple[str, ...]:
        return ("/somewhere",)

    async def get(self, key: str) -> bytes | None:
        return None

    async def request(self, peer: bytes, protocol: str, frame: bytes, addresses: object = ()) -> bytes:
        assert protocol == FEEDER_PROTOCOL
        stream = OneStream(self.key, frame)
        if peer in self._there:
            await self._there[peer].answer(stream)
        if not stream.answers:
            raise NetworkError(Code.PEER_UNREACHABLE, "nobody is there")
        return stream.answers[0]


class Street:
    """Four members, each with its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.there: dict[bytes, Sharing] = {}
        self.wants: dict[bytes, float] = {}
        self.told: dict[bytes, Allowance] = {}
        self.ledgers: dict[bytes, Ledger] = {}

    def add(
        self, key: SigningKey, *rosters: Signed[FeederRoster], file: Path | None = None, made_ms: int = 0
    ) -> Sharing:
        own, folder = bytes(key.verify_key), self.path / bytes(key.verify_key).hex()[:8]
        folder.mkdir(exist_ok=True)
        ledger = self.ledgers[own] = Ledger(folder / LEDGER, made_ms)
        member = ledger.member(key, bytes(GRID.verify_key), "t-17", wall_ms())
        for each in rosters:
            member.take_roster_untrusted(each.envelope, wall_ms())
        wants: Callable[[], float] = lambda: self.wants.get(own, 0.0)  # noqa: E731

        def tell(found: Allowance) -> None:
            self.told[own] = found

        wire = Wire(own, self.there)
        self.there[own] = Sharing(wire, member, ledger, wants, tell, EventLog(folder), file)  # type: ignore[arg-type]
        return self.there[own]


async def test_a_member_that_wants_more_borrows_from_those_that_may_lend(tmp_path: Path) -> None:
    street, paper = Street(tmp_path), roster(wall_ms() - 3 * SKEW_MS)
    borrower, *others = [street.add(key, paper) for key in KEYS]
    own = borrower.member.key
    street.wants = {own: 2 * SHARE_W, others[0].member.key: SHARE_W}
    await borrower._round()
    part_w = SHARE_W // 3
    assert [each.record.lent_w for each in borrower.member.held] == [part_w] * 2
    later_ms = wall_ms()
    assert borrower.member.allowance(later_ms).watts == SHARE_W + 2 * part_w
    assert sum(each.member.allowance(later_ms).watts for each in street.there.values()) == 4 * SHARE_W
    lent = [each.member.key for each in others if each.member.given]
    assert [street.told[key].watts for key in lent] == [SHARE_W - part_w] * 2


async def test_nothing_is_lent_or_borrowed_while_it_is_not_known_what_is_drawn(tmp_path: Path) -> None:
    street, paper = Street(tmp_path), roster(wall_ms() - 3 * SKEW_MS)
    here, *_ = [street.add(key, paper) for key in KEYS]
    own = here.member.key
    street.wants = {own: inf}
    borrower = next(each.key for each in paper.record.members if own in lenders(paper, each.key))
    asked = OneStream(borrower, encode_message(FeederRequest((paper.id,), paper.id, 500)))
    await here.answer(asked)  # type: ignore[arg-type]
    await here._round()
    assert len(asked.answers) == 1
    assert here.member.given == here.member.held == []
    street.wants = {}
    await here.answer(OneStream(borrower, encode_message(FeederRequest((paper.id,), paper.id, 500))))  # type: ignore[arg-type]
    assert len(here.member.given) == 1


@pytest.mark.parametrize("minutes", [-60, -10, 10, 60])
async def test_setting_the_clock_gives_nothing_back_that_is_lent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    street, paper = Street(tmp_path), roster(wall_ms() - 24 * 60_000 - 3_600_000)
    borrower, *others = [street.add(key, paper) for key in KEYS]
    own = borrower.member.key
    street.wants = {own: 2 * SHARE_W}
    await borrower._round()
    assert borrower.look().watts > SHARE_W
    monkeypatch.setattr(sharing, "wall_ms", lambda: wall_ms() + minutes * 60_000)
    assert sum(each.look().watts for each in street.there.values()) <= 4 * SHARE_W
    for lender in others:
        assert lender.look().watts < SHARE_W
        assert "its clock was set" in str(lender.look())
        await lender._round()
        assert lender.look().watts < SHARE_W, "what is over by one clock alone is not forgotten"
    held = len(borrower.member.held)
    await borrower._round()
    assert len(borrower.member.held) == held, "nothing more is borrowed"
    monkeypatch.setattr(sharing, "boot_ms", lambda: boot_ms() + 2 * 3_600_000)
    monkeypatch.setattr(sharing, "wall_ms", lambda: wall_ms() + (minutes + 120) * 60_000)
    for each in street.there.values():
        await each._round()
        assert each.look().watts == SHARE_W
        assert "its clock" not in str(each.look())


@pytest.mark.spec("G-27")
@pytest.mark.parametrize("minutes", [-60, -10, 10, 60])
async def test_setting_the_clock_across_a_restart_gives_nothing_back_that_is_lent(tmp_path: Path, minutes: int) -> None:
    ahead_ms = {"wall": 0, "boot": 0}
    HERE.set(
        replace(
            HERE.get(),
            wall_ns=lambda: time.time_ns() + ahead_ms["wall"] * 1_000_000,
            boot_ns=lambda: time.monotonic_ns() + ahead_ms["boot"] * 1_000_000,
        )
    )
    street, paper = Street(tmp_path), roster(wall_ms() - 24 * 60_000 - 3_600_000)
    borrower, *others = [street.add(key, paper) for key in KEYS]
    street.wants = {borrower.member.key: 2 * SHARE_W}
    await borrower._round()
    lent_w = {each.member.key: SHARE_W - each.look().watts for each in others}
    assert sum(lent_w.values()) > 0 and borrower.look().watts > SHARE_W
    ahead_ms["wall"], street.wants = minutes * 60_000, {}
    again = [street.add(key, paper) for key in KEYS]
    for each in again:
        await each._round()
        assert each.look().watts == SHARE_W - lent_w.get(each.member.key, 0), "and what it borrowed counts for nothing"
    if abs(minutes) == 60:  # else the leases may hold by the new clock, too
        assert any("it has just started" in str(each.look()) for each in again[1:])
    for clock in ahead_ms:
        ahead_ms[clock] += sharing.DOUBT_MS + 3_600_000
    for each in again:
        await each._round()
        assert each.look().watts == SHARE_W
        assert "just started" not in str(each.look())


async def test_many_leases_at_a_time_are_all_stored(tmp_path: Path) -> None:
    street, paper = Street(tmp_path), roster(wall_ms() - 3 * SKEW_MS)
    here = street.add(KEYS[0], paper)
    stored: list[bool] = []

    async def keep(number: int) -> None:
        stored.append(await here._keep(GIVEN, number.to_bytes(32, "big"), bytes(number), wall_ms()))

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(keep, number)
    assert stored == [True] * 40


@pytest.mark.spec("G-26")
async def test_strangers_get_no_answer(tmp_path: Path) -> None:
    street = Street(tmp_path)
    asked = street.add(KEYS[0], roster(wall_ms() - 3 * SKEW_MS))
    question = encode_message(FeederRequest((), bytes(32), 0))
    stranger, neighbour = OneStream(b"\x99" * 32, question), OneStream(bytes(KEYS[1].verify_key), question)
    for stream in (stranger, neighbour):
        await asked.answer(stream)  # type: ignore[arg-type]
    assert stranger.answers == []
    reply = decode_message_untrusted(neighbour.answers[0])
    assert isinstance(reply, FeederReply)
    assert len(reply.rosters) == 1


@pytest.mark.spec("G-27")
async def test_a_lease_is_on_disk_and_less_is_drawn_before_anybody_sees_it(tmp_path: Path) -> None:
    street, paper = Street(tmp_path), roster(wall_ms() - 3 * SKEW_MS)
    lender = street.add(KEYS[0], paper)
    own = lender.member.key
    borrower = next(each.key for each in paper.record.members if own in lenders(paper, each.key))
    question = encode_message(FeederRequest((paper.id,), paper.id, 500))
    street.ledgers[own].close()  # no more can be stored
    refused = OneStream(borrower, question)
    await lender.answer(refused)  # type: ignore[arg-type]
    reply = decode_message_untrusted(refused.answers[0])
    assert isinstance(reply, FeederReply)
    assert reply.leases == ()
    assert street.told[own].watts == SHARE_W - 500
    lender = street.add(KEYS[0], paper)
    stored = OneStream(borrower, question)
    await lender.answer(stored)  # type: ignore[arg-type]
    again = Ledger(street.ledgers[own].path, wall_ms())
    member = again.member(KEYS[0], bytes(GRID.verify_key), "t-17", wall_ms())
    assert [each.envelope for each in member.given] == list(decode_message_untrusted(stored.answers[0]).leases)  # type: ignore[union-attr]


@pytest.mark.spec("G-27")
async def test_a_file_that_was_lost_or_damaged_costs_the_share_until_no_old_lease_can_be_in_force(
    tmp_path: Path,
) -> None:
    path = tmp_path / LEDGER
    path.write_bytes(os.urandom(4096))
    now_ms = wall_ms()
    ledger = Ledger(path, now_ms)
    member = ledger.member(KEYS[0], bytes(GRID.verify_key), "t-17", now_ms)
    member.take_roster_untrusted(roster(now_ms - 3 * SKEW_MS).envelope, now_ms)
    assert path.with_name(LEDGER + SET_ASIDE).exists()
    assert member.allowance(now_ms + FORGOT_MS - 1).watts == 0
    assert member.allowance(now_ms + FORGOT_MS).watts == SHARE_W
    assert "the record of what it lent is new" in str(member.allowance(now_ms))


async def test_what_was_kept_is_there_again_and_what_is_over_goes(tmp_path: Path) -> None:
    now_ms = wall_ms()
    paper = roster(now_ms - 3 * SKEW_MS)
    lender, borrower = (Member(key, bytes(GRID.verify_key), "t-17") for key in (KEYS[0], KEYS[1]))
    for each in (lender, borrower):
        each.take_roster_untrusted(paper.envelope, now_ms)
    lease = lender.grant(borrower.key, paper.id, 500, 0, now_ms, bytes(16))
    assert lease is not None
    for key, kind in ((KEYS[0], GIVEN), (KEYS[1], HELD)):
        ledger = Ledger(tmp_path / kind, 0)
        ledger.keep(ROSTER, "t-17", paper.id, paper.envelope, paper.record.expires_ms)
        ledger.keep(kind, "t-17", lease.id, lease.envelope, lease.record.expires_ms)
        ledger.close()
        ledger = Ledger(tmp_path / kind, 0)
        found = ledger.member(key, bytes(GRID.verify_key), "t-17", now_ms)
        assert [each.id for each in (found.given if kind == GIVEN else found.held)] == [lease.id]
        assert list(found.rosters) == [paper.id]
        ledger.forget(lease.record.expires_ms + FORGET_MS)
        found = ledger.member(key, bytes(GRID.verify_key), "t-17", now_ms)
        assert (found.given, found.held, list(found.rosters)) == ([], [], [paper.id])
        ledger.close()
        with pytest.raises(StoreError):
            ledger.forget(0)


async def test_a_roster_comes_from_a_file_and_goes_from_member_to_member(tmp_path: Path) -> None:
    street, paper = Street(tmp_path), roster(wall_ms() - 3 * SKEW_MS)
    file = tmp_path / "roster"
    first = street.add(KEYS[0], file=file)
    await first._round()
    assert first.member.rosters == {}
    assert str(first.look()) == f"no roster of t-17 holds now: {file}: No such file or directory"
    file.write_bytes(sign(paper.record, KEYS[0]).envelope)
    await first._round()
    assert str(first.look()).startswith(f"no roster of t-17 holds now: {file}: ")
    assert "No such file" not in str(first.look())
    file.write_bytes(paper.envelope)
    await first._round()
    assert list(first.member.rosters) == [paper.id]
    following = sign(
        replace(
            paper.record, epoch=2, not_before_ms=paper.record.expires_ms, expires_ms=paper.record.expires_ms + 1000
        ),
        GRID,
    )
    first.member.take_roster_untrusted(following.envelope, wall_ms())
    for key in KEYS[1:]:
        other = street.add(key, paper)
        del street.there[other.member.key]
        await other._ask(first.member.key, bytes(32), 0)
        assert list(other.member.rosters) == [paper.id, following.id]


async def test_a_roster_file_that_was_refused_once_is_tried_again_and_a_fault_that_is_over_is_forgotten(
    tmp_path: Path,
) -> None:
    street, file, now_ms = Street(tmp_path), tmp_path / "roster", wall_ms()
    early, paper = roster(now_ms - 2 * 86_400_000), roster(now_ms - 3 * SKEW_MS)
    file.write_bytes(paper.envelope)
    here = street.add(KEYS[0], file=file)
    clash = replace(paper.record, cap_w=paper.record.cap_w + 1)
    here.member.take_roster_untrusted(sign(clash, GRID).envelope, now_ms)
    await here._round()
    assert here._file_fault and paper.id not in here.member.rosters
    here.member.rosters = {early.id: early}  # what was in its way is over
    await here._round()
    assert not here._file_fault and paper.id in here.member.rosters
    file.rename(tmp_path / "away")
    await here._round()
    assert "No such file" in here._file_fault
    (tmp_path / "away").rename(file)
    await here._round()
    assert not here._file_fault


# --- Simulated: the real members on the simulated network


NIGHT = replace(
    load("feeder-night"), nodes=8, duration_h=0.5, load=Load(0.0),
    faults=Faults(loss=0.1, duplication=0.2, reordering=0.2, clock_skew_ms=100_000, partitions_per_day=60, partition_s=300,
                  kills_per_day=20, restart_s=60, freezes_per_day=40, freeze_s=60, feeder_liars=0.2),
)  # fmt: skip


@pytest.mark.parametrize("seed", range(1, 4))
def test_the_cap_holds_whatever_happens(seed: int) -> None:
    outcome = simulate_tasks(NIGHT, seed)
    assert outcome.violations == (), f"seed {seed}"
    assert outcome.figures.feeder is not None
    assert outcome.figures.feeder.most <= 1


def test_leases_make_more_of_the_cap_useful() -> None:
    feeder = simulate_tasks(replace(NIGHT, faults=Faults()), 1).figures.feeder
    assert feeder is not None
    assert feeder.alone * 1.1 < feeder.used <= feeder.ideal + 0.01 <= 1.01
    assert feeder.alone < feeder.reached <= feeder.portions <= feeder.ideal + 0.01


def test_a_night_replays() -> None:
    short = changed(NIGHT, "duration_h", 0.1)
    assert simulate_tasks(short, 3).trace_hash == simulate_tasks(short, 3).trace_hash

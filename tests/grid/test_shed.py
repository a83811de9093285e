"""Shed orders: kept, replaced, forgotten, and what they ask of the owner's zones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from fallow.node.grid import shed
from fallow.node.grid.shed import Orders
from fallow.node.log import EventLog, wall_ms
from fallow.node.machine import boot_ms
from fallow.node.rules.hours import Now
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.errors import Code, RemoteProtocolError
from fallow.protocol.grid import ShedOrder
from fallow.protocol.limits import SHED_BYTES_MAX, SKEW_MS

GRID, OTHER = SigningKey(b"\x07" * 32), SigningKey(b"\x08" * 32)
KEY = bytes(GRID.verify_key)
NOW_MS, BOOT_MS = wall_ms(), boot_ms()
HOUR = 3_600_000


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clocks stand where they stood when this file was read, however long ago that was."""
    monkeypatch.setattr(shed, "boot_ms", lambda: BOOT_MS)


def order(key: SigningKey = GRID, **changes: Any) -> Signed[ShedOrder]:
    plain = ShedOrder("home", "peak", 1, False, 0, 0, NOW_MS, NOW_MS + HOUR, NOW_MS, "the feeder is full")
    return sign(replace(plain, **changes), key)


def orders(folder: Path) -> Orders:
    return Orders([KEY], ["home", "depot"], folder, EventLog(folder))


def take(held: Orders, *given: Signed[ShedOrder], now_ms: int = NOW_MS) -> list[bool]:
    return [held.take_untrusted(each.envelope, KEY, now_ms) for each in given]


def now(ms: float = 0) -> Now:
    return Now(BOOT_MS + int(ms), NOW_MS + int(ms))


def test_a_stop_and_a_cap_hold_in_the_owners_zones_as_long_as_any_clock_may_say(tmp_path: Path) -> None:
    held = orders(tmp_path)
    assert take(held, order(), order(zone="depot", cap_w=700), order(zone="elsewhere")) == [True, True, True]
    (stop,), ((watts, why),) = held.asked(now()).stops, held.asked(now()).caps
    assert stop.startswith("the grid asks to stop until ") and stop.endswith(
        "(shed order for home: the feeder is full)"
    )
    assert watts == 700 and why.startswith("the grid asks for less until ")
    ends_ms = HOUR + SKEW_MS
    assert held.asked(now(ends_ms - 1)).stops and held.asked(now(ends_ms - 1)).changes_in_ms == 1
    assert not held.asked(now(ends_ms)).less
    assert held.asked(now(-SKEW_MS)).stops and not held.asked(now(-SKEW_MS - 1)).less


@pytest.mark.spec("G-20")
def test_what_was_replaced_or_is_known_is_no_news(tmp_path: Path) -> None:
    held = orders(tmp_path)
    first, second = order(), order(sequence=2, cap_w=500)
    assert take(held, second, second, first) == [True, False, False]
    assert held.asked(now()).caps[0][0] == 500 and list(held.of(KEY)) == [second.id]
    assert take(held, order(sequence=3, cancelled=True), second) == [True, False]
    assert not held.asked(now()).less


def test_two_of_one_sequence_both_stand_and_no_flood_of_them(tmp_path: Path) -> None:
    held = orders(tmp_path)
    assert take(held, *(order(cap_w=watts) for watts in range(900, 905))) == [True] * shed.SAME_MAX + [False]
    assert held.asked(now()).caps[0][0] == 900


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (order(OTHER), Code.BAD_SIGNATURE),
        (replace(order(), envelope=order().envelope[:-1] + bytes([order().envelope[-1] ^ 1])), Code.BAD_SIGNATURE),
        (replace(order(), envelope=b"junk"), Code.BAD_ENCODING),
        (replace(order(), envelope=bytes(SHED_BYTES_MAX + 1)), Code.TOO_LARGE),
        (order(issued_ms=NOW_MS + SKEW_MS + 60_000), Code.EXPIRED),
        (
            order(start_ms=NOW_MS - 9 * 24 * HOUR, end_ms=NOW_MS - 8 * 24 * HOUR, issued_ms=NOW_MS - 9 * 24 * HOUR),
            Code.EXPIRED,
        ),
    ],
)
def test_what_no_trusted_key_signed_or_cannot_matter_any_more_is_refused(
    tmp_path: Path, given: Signed[ShedOrder], code: Code
) -> None:
    held = orders(tmp_path)
    with pytest.raises(RemoteProtocolError) as found:
        take(held, given)
    assert found.value.code is code and not held.asked(now()).less


@pytest.mark.spec("G-23")
def test_a_key_that_signs_without_end_leaves_room_for_the_owners_zones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = orders(tmp_path)
    others = [order(zone=f"zone-{number}") for number in range(shed.OTHERS_MAX + 3)]
    assert take(held, *others).count(True) == shed.OTHERS_MAX
    assert take(held, *(order(event=f"e{number}") for number in range(shed.OWN_MAX + 2))).count(True) == shed.OWN_MAX
    assert take(held, order(zone="zone-1", sequence=2), order(event="e1", sequence=2)) == [True, True]
    late_ms = NOW_MS + 9 * 24 * HOUR
    monkeypatch.setattr(shed, "boot_ms", lambda: BOOT_MS + 9 * 24 * HOUR)
    fresh = order(zone="zone-x", start_ms=late_ms, end_ms=late_ms + HOUR, issued_ms=late_ms)
    assert take(held, fresh, now_ms=late_ms) == [True]
    assert list(held.of(KEY)) == [fresh.id], "what cannot matter any more has made room"


def test_a_restart_finds_them_if_their_key_is_trusted_still(tmp_path: Path) -> None:
    held = orders(tmp_path)
    take(held, order(), order(zone="elsewhere"))
    held.save()
    assert (tmp_path / shed.STATE).stat().st_mode & 0o777 == 0o600
    again = orders(tmp_path)
    assert again.asked(now()).stops and again.of(KEY) == held.of(KEY)
    assert take(again, order()) == [False]
    distrusting = Orders([bytes(OTHER.verify_key)], ["home"], tmp_path, EventLog(tmp_path))
    assert not distrusting.asked(now()).less
    for damaged in (b"", b"\xff" * 40, held.asked(now()).stops[0].encode()):
        (tmp_path / shed.STATE).write_bytes(damaged)
        assert not orders(tmp_path).asked(now()).less


def test_the_owner_is_told_what_comes_and_strangers_texts_are_plain(tmp_path: Path) -> None:
    held = orders(tmp_path)
    take(held, order(start_ms=NOW_MS + HOUR, end_ms=NOW_MS + 2 * HOUR, reason="red\x1b[31m\nalert"))
    first, second = held.heard(now())
    assert first == "shed orders of 1 grid keys for home, depot: 1 known"
    assert "beginning in 60 min (red [31m alert)" in second


def test_setting_the_clock_ends_no_stop_order_that_is_in_force(tmp_path: Path) -> None:
    held = orders(tmp_path)
    take(held, order())
    for hours in (-30, -3, 0, 3, 30):
        assert held.asked(replace(now(), wall_ms=NOW_MS + hours * HOUR)).stops
    over = now(HOUR + 2 * SKEW_MS)
    assert not held.asked(over).less
    assert not held.asked(replace(over, wall_ms=NOW_MS + 30 * HOUR)).less


@pytest.mark.parametrize("hours", [-30, -3, 3, 30])
def test_an_order_that_comes_after_the_clock_was_set_ends_none_that_is_in_force(tmp_path: Path, hours: int) -> None:
    held = orders(tmp_path)
    take(held, order())
    wrong_ms = NOW_MS + hours * HOUR
    take(held, order(event="other", issued_ms=min(NOW_MS, wrong_ms), cap_w=900), now_ms=wrong_ms)
    assert held.asked(replace(now(), wall_ms=wrong_ms)).stops
    assert not held.asked(replace(now(HOUR + 2 * SKEW_MS), wall_ms=wrong_ms + HOUR + 2 * SKEW_MS)).stops
    held.forget(NOW_MS + 90 * 24 * HOUR)
    assert held.asked(now()).stops, "by the clock that nobody sets it still matters"


def test_a_machine_that_starts_without_the_time_keeps_its_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = orders(tmp_path)
    take(held, order())
    held.save()
    monkeypatch.setattr(shed, "wall_ms", lambda: 0)
    again = orders(tmp_path)
    assert again.asked(now()).stops

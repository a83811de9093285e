"""When a peer that says nothing is asked, and when it is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.node.network.silence import (
    ASK_OTHER_S,
    ASK_S,
    DEAD_S,
    STREAM_ASK_S,
    STREAM_DEAD_S,
    TICK_S,
    Finding,
    Silence,
)

NOTHING, ASK = Finding(), Finding(ask=True)
ROLES = pytest.mark.parametrize("ask_s", [ASK_S, ASK_OTHER_S])
CONNECTION_S, STREAM_S = 10.0, 2.0
"""As the seam promises them."""


def until(silence: Silence, end_s: float) -> list[tuple[float, Finding]]:
    """What is found until then, by somebody who looks whenever it is due."""
    found = []
    while (now := silence.due) <= end_s:
        found.append((now, silence.look(now)))
        if found[-1][1].peer_gone:
            break
    return found


@ROLES
def test_who_says_nothing_is_asked_once_and_gone_within_ten_seconds(ask_s) -> None:
    found = until(Silence(ask_s, 0.0), CONNECTION_S)
    assert found[0] == (ask_s, ASK)
    assert [finding for _, finding in found[1:-1]] == [NOTHING] * (len(found) - 2)
    assert found[-1][1] == Finding(peer_gone=True)
    assert DEAD_S <= found[-1][0] < DEAD_S + TICK_S


def test_of_two_that_are_there_one_asks() -> None:
    asker, other = Silence(ASK_S, 0.0), Silence(ASK_OTHER_S, 0.0)
    for _ in range(100):
        now = asker.due
        assert now < other.due
        assert asker.look(now) == ASK
        asker.heard(now + 0.5)
        other.heard(now + 0.25)


@ROLES
def test_a_watched_stream_ends_within_two_seconds_of_the_last_word(ask_s) -> None:
    silence = Silence(ask_s, 0.0)
    silence.watch(3.0)
    silence.heard(4.0)
    found = until(silence, 4.0 + STREAM_S)
    assert found[0] == (4.0 + STREAM_ASK_S, ASK)
    assert found[-1][1] == Finding(streams_gone=True)


@ROLES
@given(quiet_s=st.floats(0, DEAD_S))
def test_what_begins_on_a_quiet_connection_has_the_time_of_every_stream(ask_s, quiet_s) -> None:
    silence = Silence(ask_s, 0.0)
    until(silence, quiet_s)
    silence.watch(quiet_s)
    found = until(silence, quiet_s + STREAM_S)
    [gone_at, *_] = [at for at, finding in found if finding.streams_gone or finding.peer_gone]
    assert gone_at >= min(quiet_s + STREAM_DEAD_S, DEAD_S)
    [asked_at] = [at for at, finding in found if finding.ask] or [0.0]
    assert gone_at >= asked_at + STREAM_DEAD_S


@ROLES
def test_whoever_keeps_beginning_streams_asks_all_the_same(ask_s) -> None:
    silence, now = Silence(ask_s, 0.0), 0.0
    found: list[tuple[float, Finding]] = []
    while not found or not found[-1][1].peer_gone:
        silence.watch(now)
        now += STREAM_ASK_S / 2
        found += until(silence, now)
        silence.unwatch()
    assert found[-1][0] <= CONNECTION_S


@ROLES
def test_time_in_which_nothing_could_be_heard_does_not_count(ask_s) -> None:
    silence = Silence(ask_s, 0.0)
    assert silence.look(1000.0) == ASK
    for stop in range(1, 20):
        assert silence.look(1000.0 * (stop + 1)) == NOTHING
    found = until(silence, 20_000.0 + CONNECTION_S)
    assert found[-1][1].peer_gone
    assert found[-1][0] >= 20_000.0 + DEAD_S - ask_s


@given(st.lists(st.floats(0, 3 * TICK_S), max_size=30))
def test_any_word_ends_the_silence(pauses) -> None:
    silence, now = Silence(ASK_S, 0.0), 0.0
    for pause in pauses:
        now += pause
        silence.look(now)
        silence.heard(now)
        assert silence.silent_s == 0
        assert silence.due == now + ASK_S

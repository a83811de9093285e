"""When a peer that says nothing is asked whether it is there, and when it counts as gone. Sans-I/O.

    quiet --nothing for `ask_s`, or for `STREAM_ASK_S` while a stream is watched--> asked --nothing--> gone
      ^                                                                              |
      '------------------------------- any byte -------------------------------------'

Only silence after a question counts: nobody owes a word to whoever has not asked. Of whom nothing is expected so little is
asked that what stands idle costs some 45 bytes a second at either end.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ASK_S: Final = 5.5
ASK_OTHER_S: Final = 7.0
"""Silence after which whoever has dialled asks, and after which the other side does: while both are there, one of them asks."""

DEAD_S: Final = 9.25
"""Silence, the one before the question and the one after it, after which the peer is gone: with the next whole tick, so within
ten seconds. Of that before the question no more counts than is waited with it: this side may itself have been stopped."""

STREAM_ASK_S: Final = 0.75
STREAM_DEAD_S: Final = 1.0
"""While streams are watched: silence before the question, and silence after it that ends them, two seconds after the peer's
last word at most. A second is two round trips on a bad mobile link."""

TICK_S: Final = 0.5
"""Silence counts in whole ticks. One that came late by as much again is none: this side was held up, and could not hear."""


class Finding(NamedTuple):
    """What is to be done as of now."""

    ask: bool = False
    streams_gone: bool = False
    """The watched ones end."""
    peer_gone: bool = False


class Silence:
    """The silence of one peer. Times are in seconds of any steady clock."""

    def __init__(self, ask_s: float, now: float) -> None:
        self.silent_s = 0.0
        """For so long nothing has come, although it was asked for."""
        self._ask_s = ask_s
        self.watched = False
        """Whether a stream is."""
        self._heard_at = self._watched_at = now
        self._asked = False
        self._ticked_at = now
        self._before_s = self._stream_silent_s = 0.0
        """Silence before the question; and after it, since streams are watched."""

    def heard(self, now: float) -> None:
        """Something came."""
        self._heard_at = now
        if self._asked:
            self._asked, self.silent_s = False, 0.0

    def watch(self, now: float) -> None:
        """From now on a stream is watched. To a question that stands it gets the time that every stream gets."""
        self.watched, self._watched_at = True, now
        self._stream_silent_s = -TICK_S  # the tick under way began before

    def unwatch(self) -> None:
        """No stream is watched any more."""
        self.watched = False

    @property
    def due(self) -> float:
        """When to look next, if nothing comes until then."""
        if self._asked:
            return self._ticked_at + TICK_S
        idle_at = self._heard_at + self._ask_s
        if not self.watched:
            return idle_at
        return min(idle_at, max(self._heard_at, self._watched_at) + STREAM_ASK_S)

    def look(self, now: float) -> Finding:
        """What follows from the silence until now, once it is `due`."""
        if now < self.due:
            return Finding()
        if not self._asked:
            self._asked, self._ticked_at = True, now
            self._before_s, self.silent_s = min(now - self._heard_at, self._ask_s), 0.0
            self._stream_silent_s = 0.0
            return Finding(ask=True)
        on_time, self._ticked_at = now < self._ticked_at + 2 * TICK_S, now
        if on_time:
            self.silent_s += TICK_S
            self._stream_silent_s += TICK_S
        return Finding(
            streams_gone=self.watched and self._stream_silent_s >= STREAM_DEAD_S,
            peer_gone=self._before_s + self.silent_s >= DEAD_S,
        )

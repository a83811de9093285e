"""The order to end: what is still to be learned is learned before it."""

from __future__ import annotations

import os
import signal

import trio

from fallow.node.owners_word import Ending


async def test_the_last_look_is_at_those_who_are_still_there() -> None:
    """Once everything is cancelled, connections end beside the book."""
    ending, cancelled = Ending(), list[bool]()
    with trio.open_signal_receiver(signal.SIGUSR1) as signals, trio.CancelScope() as whole:
        ending.last_look = lambda: cancelled.append(whole.cancel_called)
        os.kill(os.getpid(), signal.SIGUSR1)
        await ending.await_it(signals, whole)
    assert cancelled == [False]
    assert whole.cancel_called

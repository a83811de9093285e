"""Where libp2p's exceptions become ours, and where its tasks end.

py-libp2p 0.8.1 raises some forty kinds of exception from below (OSError, KeyError, its own, exception groups of them),
which no caller can list. This module is the task boundary at which anything that is an `Exception` is caught, once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import trio

from ...protocol.errors import Code, FallowError, NetworkError

T = TypeVar("T")


@contextmanager
def translated(code: Code, message: str) -> Iterator[None]:
    """What libp2p raises inside leaves as a `NetworkError` with this code; our own errors pass as they are."""
    try:
        yield
    except FallowError:
        raise
    except Exception as error:
        cause = str(error) or type(error).__name__
        raise NetworkError(code, f"{message}: {cause}") from error


@contextmanager
def one_error() -> Iterator[None]:
    """What a nursery inside raises leaves without the nursery's group around it, if it is one error."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__


class Tasks:
    """The background tasks of one network: they outlive the call that began them, and end with the network."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._closed = False

    def close(self) -> None:
        """Everything in the background has been told to end."""
        self._closed = True
        self._nursery.cancel_scope.cancel()

    @property
    def closed(self) -> bool:
        """Whether nothing begins any more."""
        return self._closed

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        """The task runs until it or the network ends; what libp2p raises in it is dropped."""
        if not self._closed:
            self._nursery.start_soon(_guarded, task)

    async def finish(
        self, call: Callable[[], Awaitable[T]], ceiling_s: float, undo: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        """The result of a call that is let finish even if the caller is cancelled; then it is undone.

        libp2p loses streams, slots and locks when cancelled between two of its steps (swarm_connection.py:324,
        basic_host.py:872), so nothing but its ceiling cancels it. Raises `peer_unreachable` at the ceiling.
        """
        outcome: list[T] = []
        failure = [NetworkError(Code.STREAM_CLOSED, "the network was closed")]
        done = trio.Event()
        abandoned = False

        async def task() -> None:
            try:
                with translated(Code.PEER_UNREACHABLE, "the network failed"), trio.move_on_after(ceiling_s) as scope:
                    outcome.append(await call())
                if scope.cancelled_caught:
                    failure.append(NetworkError(Code.PEER_UNREACHABLE, f"no answer within {ceiling_s:g} s"))
            except NetworkError as error:
                failure.append(error)
            finally:
                done.set()
            if abandoned:
                await discard()

        async def discard() -> None:
            if outcome and undo is not None:
                with trio.move_on_after(ceiling_s):
                    await undo(outcome[0])

        self.spawn(task)
        try:
            if not self._closed:
                await done.wait()
        except trio.Cancelled:
            abandoned = True
            if done.is_set():
                self.spawn(discard)
            raise
        if outcome:
            return outcome[0]
        raise failure[-1]


async def _guarded(task: Callable[[], Awaitable[None]]) -> None:
    with suppress(NetworkError), translated(Code.STREAM_CLOSED, "ended"):
        await task()

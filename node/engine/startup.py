"""From a worker's `Begin` to its `Ready`: what it may say on the way, and what is concluded if it does not get there.

The daemon knows the order in which bundles are loaded, since it gave it: a worker that keeps another is no sound one. And it
knows over which bundle a worker ended, since each is announced before anything of it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from ...protocol.errors import Code, EngineError, RemoteProtocolError
from ...protocol.identity import cid
from .blame import Blame
from .messages import Failed, Fatal, Here, Loading, Message, Overrun, Ready, Unserved
from .process import WorkerProcess

START_S_MAX: Final = 300.0
"""For each bundle that is loaded: compiling a large one from scratch beside five that do the same takes a minute or two."""

BEGIN_S_MAX: Final = 5.0
"""A spare that waits answers `Begin` in milliseconds; one that had to be read back from swap, in a second or two."""

IMPORT_S_MAX: Final = 30.0
"""From a spare's start to its being able to answer: a second for its imports, and 20 on a machine with no time to spare."""


async def until_ready(
    process: WorkerProcess,
    blame: Blame,
    stopped: Callable[[], bool],
    loading: Callable[[bytes], None],
    *,
    spare: bool = False,
) -> Ready:
    """What the worker says when it is ready. Raises `EngineError` with what it says, or its log, if it is not.

    A bundle over which it ends goes to `blame`, unless we have `stopped` the worker. Of each that it loads, `loading` is told.
    A `spare` has had its time for imports
    and has to answer at once: one that is frozen is found out in seconds, and another is started.
    """
    now = trio.current_time()
    by = max(now + BEGIN_S_MAX, process.started_s + IMPORT_S_MAX) if spare else now + START_S_MAX
    loaded: list[bytes] = []
    unserved: set[bytes] = set()
    try:
        if not isinstance(said := await _next(process, by), Here):
            raise await _not_ready_untrusted(process, said, f"It did not answer within {by - now:.0f} s.")
        while True:
            message = await _next(process, trio.current_time() + START_S_MAX)
            match message:
                case Loading() if message.bundle in process.bundles[len(loaded) : len(loaded) + 1]:
                    loaded.append(message.bundle)
                    loading(message.bundle)
                case Unserved() if message.bundle in loaded[-1:] and message.bundle not in unserved:
                    unserved.add(message.bundle)
                    blame.refuses(message.bundle, error_untrusted(message), believed=len(loaded) == 1)
                case Unserved() | Loading() if message.bundle not in process.bundles:
                    raise RemoteProtocolError(Code.ILLEGAL_MOVE, "It speaks of a bundle that nobody had asked for.")
                case Ready():
                    if {each.bundle for each in message.served} - set(process.bundles):
                        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "A bundle is served that nobody had asked for.")
                    if sorted(each.bundle for each in message.served) != sorted(set(process.bundles) - unserved):
                        raise RemoteProtocolError(
                            Code.ILLEGAL_MOVE, "A bundle is neither served nor refused, or is both."
                        )
                    return message
                case Overrun() if message.bundle in loaded[-1:]:
                    raise _ended_over(blame, loaded, f"{message.message}.", believed=len(loaded) == 1)
                case None | _Silent() if loaded and not stopped():
                    late = f"It was not ready within {START_S_MAX:.0f} s."
                    why = late if message else f"{await process.how_it_ended()} {process.log.last_words()}"
                    raise _ended_over(blame, loaded, why, believed=False)
                case _:
                    raise await _not_ready_untrusted(process, message, f"It was not ready within {START_S_MAX:.0f} s.")
    except RemoteProtocolError as error:
        raise EngineError(Code.WORKER_FAILED, f"The worker began with nonsense. {error.message}") from None


class _Silent:
    """Nothing came in time."""


async def _next(process: WorkerProcess, by: float) -> Message | _Silent | None:
    """The next message; None at the end."""
    with trio.move_on_at(by):
        return await anext(process, None)
    return _Silent()


def _ended_over(blame: Blame, loaded: list[bytes], why: str, *, believed: bool) -> EngineError:
    what = f"The worker ended over bundle {cid(loaded[-1])}: {why}"
    return blame.ended_over(loaded[-1], what, believed=believed)


async def _not_ready_untrusted(process: WorkerProcess, said: Message | _Silent | None, late: str) -> EngineError:
    """Why a worker that had not begun with any bundle, or that we stopped, is not ready."""
    match said:
        case Fatal():
            return error_untrusted(said)
        case None:
            why = f"{await process.how_it_ended()} {process.log.last_words()}"
            return EngineError(Code.WORKER_FAILED, f"The worker did not start. {why}")
        case _Silent():
            return EngineError(Code.WORKER_FAILED, f"The worker did not start. {late}")
    raise RemoteProtocolError(Code.ILLEGAL_MOVE, "Something came that has no place before the worker is ready.")


def error_untrusted(message: Failed | Fatal | Unserved) -> EngineError:
    """What the worker says went wrong. Raises `RemoteProtocolError` for a code that there is not."""
    try:
        return EngineError(Code(message.code), message.message)
    except ValueError:
        raise RemoteProtocolError(Code.BAD_RECORD, f"{message.code!r} is not a code.") from None

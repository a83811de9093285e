"""A question about other preferences, answered by a process of its own: a second or two of Python beside the daemon's loop
would hold up the owner's word."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from ...protocol.errors import Code, FallowError, StoreError
from ..rules.hours import Now
from ..whatif import Answer, ask

ANSWER_S: Final = 60.0
"""A week takes two seconds of one core; a worker may have all cores busy."""


async def asked(state: Path, changes: Mapping[str, object], first: int, until: Now) -> Answer:
    """As `whatif.ask` says. Raises `FallowError`, also where no answer comes in time."""
    question = pickle.dumps((state, dict(changes), first, until))
    command = [sys.executable, "-P", "-m", __name__]
    with trio.move_on_after(ANSWER_S):
        done = await trio.run_process(
            command, stdin=question, capture_stdout=True, stderr=subprocess.DEVNULL, check=False
        )
        if done.returncode == 0:
            found = pickle.loads(done.stdout)
            if isinstance(found, Answer):
                return found
            raise FallowError(*found)
    raise StoreError(Code.TIMED_OUT, "The days could not be gone through again; nothing was changed.")


def main() -> None:
    """The question is on standard input, the answer goes to standard output."""
    found: Answer | tuple[Code, str]
    try:
        found = ask(*pickle.load(sys.stdin.buffer))
    except FallowError as error:
        found = error.code, error.message
    sys.stdout.buffer.write(pickle.dumps(found))


if __name__ == "__main__":
    main()

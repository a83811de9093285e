"""Text that streams to somebody who cannot take it back: an SSE client, a pipe."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.errors import Code, Refused
from .answers import Chunk


@dataclass
class SettledText:
    """Of a text whose end checkers may withdraw, what they no longer can: every character is given out once.

    Where not every window is checked, one that was given out may still turn out wrong, when its executor is found at fault:
    then `Refused(rejected)` is raised, unless it is written again just as it was.
    """

    text: str = ""
    given: str = ""

    def take(self, chunk: Chunk) -> str:
        """What can be given out now that the chunk has come."""
        self.text = self.text[: chunk.length] + chunk.text
        return self._advance(chunk.verified_length)

    def finish(self, text: str) -> str:
        """The rest, now that the whole text is settled."""
        self.text = text
        return self._advance(len(text))

    def _advance(self, settled: int) -> str:
        settled = min(settled, len(self.text))
        both = min(settled, len(self.given))
        if self.text[:both] != self.given[:both]:
            message = (
                "An executor was found at fault, and what was given out of this text before is not what the model says."
            )
            raise Refused(Code.REJECTED, message)
        new = self.text[len(self.given) : settled]
        self.given += new
        return new

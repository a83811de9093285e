"""Text that streams to somebody who cannot take it back: an SSE client, a pipe."""

from __future__ import annotations

from dataclasses import dataclass

from .answers import Chunk


@dataclass
class SettledText:
    """Of a text whose end checkers may withdraw, what they no longer can: every character is given out once."""

    text: str = ""
    given: int = 0

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
        new = self.text[self.given : settled]
        self.given = max(self.given, settled)
        return new

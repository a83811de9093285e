"""The text as it stands: tokens so far, how far they are verified, and what the reader has been shown of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..protocol.identity import peer_id
from ..protocol.policy import Policy
from ..protocol.work import Parameters
from .answers import Chunk
from .bundles import ClientBundle
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextRequest:
    """What the caller asked for, in tokens."""

    bundle: ClientBundle
    prompt: tuple[int, ...]
    parameters: Parameters
    stop: tuple[str, ...]
    policy: Policy
    amount_ucr_max: int
    preferred: tuple[bytes, ...]
    hedge: int = 1
    """Executors that race for the first piece."""


class Draft:
    """An answer under way. Tokens may be cut off again; the reader is told only if what follows is different."""

    def __init__(self, tokenizer: Tokenizer, end_tokens: Sequence[int], max_tokens: int, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._ends = frozenset(end_tokens)
        self._max_tokens = max_tokens
        self._stop = tuple(stop)
        self._shown = ""
        self._shown_verified = 0
        self._abandoned = False
        self._known: dict[int, str] = {}
        self.tokens: list[int] = []
        self.values: list[int] = []
        """Each token's proof value, as its executor gave it."""
        self.verified = 0
        """Tokens that were checked, or that chance did not draw for it. Only a fault found later still withdraws the latter."""

    @property
    def ended(self) -> bool:
        """The model's own end, or the number of tokens asked for."""
        return len(self.tokens) == self._max_tokens or bool(self.tokens and self.tokens[-1] in self._ends)

    def ends_at(self, position: int) -> bool:
        """Whether the token before this position is one that ends a text."""
        return 0 < position <= len(self.tokens) and self.tokens[position - 1] in self._ends

    @property
    def finish_reason(self) -> str | None:
        """`stop` or `length`; None while the text goes on."""
        if (
            self._abandoned
            or (self.tokens and self.tokens[-1] in self._ends)
            or self._stop_at(self._decoded(len(self.tokens))) is not None
        ):
            return "stop"
        return "length" if len(self.tokens) >= self._max_tokens else None

    @property
    def text(self) -> str:
        """Up to the first stop string, if there is one."""
        return self._text(len(self.tokens))

    def add(self, tokens: Sequence[int], values: Sequence[int]) -> None:
        """More tokens, with their proof values."""
        self.tokens.extend(tokens)
        self.values.extend(values)

    def cut(self, position: int) -> None:
        """The tokens from `position` on are withdrawn."""
        del self.tokens[position:], self.values[position:]
        self._known = {count: text for count, text in self._known.items() if count <= position}
        if position < self.verified:
            self.verified = position
            self._shown_verified = min(self._shown_verified, len(self._text(position)))

    def abandon(self) -> None:
        """The reader has left: the text ends here."""
        self._abandoned = True

    def show(self, executor: bytes) -> Chunk | None:
        """What the reader has to be told now: new text, or only that more of it is verified; None if nothing is new."""
        text = self.text
        if self._shown.startswith(text) and self.finish_reason is None:
            text = self._shown  # being written again just as before
        verified = min(len(self._text(self.verified)), len(text))
        if text == self._shown and verified <= self._shown_verified:
            return None
        kept = len(_common(text, self._shown))
        retracted = kept < len(self._shown)
        self._shown, self._shown_verified = text, verified
        return Chunk(text[kept:], peer_id(executor), kept, retracted, verified)

    def _text(self, count: int) -> str:
        text = self._decoded(count)
        return text[: self._stop_at(text)]

    def _decoded(self, count: int) -> str:
        """The first `count` tokens as text. The last two results are kept: the whole, and what is verified of it."""
        if count not in self._known:
            if len(self._known) > 1:
                del self._known[min(self._known, key=lambda kept: (kept == self.verified, kept))]
            self._known[count] = self._tokenizer.decode(self.tokens[:count])
        return self._known[count]

    def _stop_at(self, text: str) -> int | None:
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        return min(found, default=None)


def _common(one: str, other: str) -> str:
    """Their common beginning."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return one[:at]
    return min(one, other, key=len)

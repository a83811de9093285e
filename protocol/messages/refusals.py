"""A no with its reason, as it goes to the other side and as it is heard there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import Code, FallowError, Refused
from ..limits import TEXT_BYTES_MAX
from ..schema import Text, Uint, Word


@dataclass(frozen=True, slots=True)
class RefuseMessage:
    """Node: no, and why."""

    KIND: ClassVar[str] = "refuse"
    code: Word
    """From the registry of errors."""
    detail: Text
    """For a person; nothing is decided by it."""
    retry_after_ms: Uint
    """When the same may be accepted; 0 if that cannot be said."""


def refusal(error: FallowError) -> RefuseMessage:
    """What the other side is told. For what was said of its own request: other errors may name this machine's files."""
    retry_ms = error.retry_after_ms if isinstance(error, Refused) else 0
    return RefuseMessage(
        str(error.code), error.message[: TEXT_BYTES_MAX // 4], retry_ms
    )  # a letter has 4 bytes at most


def refused(message: RefuseMessage) -> Refused:
    """What the other side has said."""
    return Refused(code_of(message.code), message.detail, message.retry_after_ms)


def code_of(word: str) -> Code:
    """A code that the other side has named. One of another version counts as `bad_record`."""
    try:
        return Code(word)
    except ValueError:
        return Code.BAD_RECORD

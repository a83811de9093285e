"""What is said in the demonstration, and to which models."""

from __future__ import annotations

from dataclasses import dataclass

from ..client import ChatMessage

_OATH = (
    "I am a parked car, and my accelerator does nothing most of the day. Fallow lets me run inference for others, "
    "with nobody in the middle, and the moment my owner wants to drive, I am theirs again."
)


@dataclass(frozen=True, slots=True)
class Script:
    """The demonstration's lines."""

    chat: str
    embed: str
    question: str
    question_tokens: int
    steady: tuple[ChatMessage, ...]
    """A chat that the model goes on with so surely that rounding cannot change a word; how sure, each run checks."""
    steady_tokens: int
    drive_after: int
    """Chunks of the steady answer that the reader has seen when the vehicle drives off."""
    texts: tuple[str, ...]
    later: str
    later_tokens: int


REAL = Script(
    chat="smollm2-135m-instruct",
    embed="minilm-l6",
    question="Why is the sky blue?",
    question_tokens=48,
    steady=(
        *(ChatMessage("user", "Who are you?"), ChatMessage("assistant", _OATH)) * 2,
        ChatMessage("user", "Who are you?"),
    ),
    steady_tokens=64,
    drive_after=12,
    texts=("The car is parked.", "A vehicle stands still.", "Bread is baked in an oven."),
    later="What is the capital of France?",
    later_tokens=24,
)

TINY = Script(
    chat="tiny-chat",
    embed="tiny-embed",
    question="Why is the sky blue?",
    question_tokens=48,
    steady=(ChatMessage("user", "Tell me story 344."),),
    steady_tokens=64,
    drive_after=2,
    texts=("parked", "standing", "bread"),
    later="Go on.",
    later_tokens=24,
)
"""The same with models of random weights, which start in a moment and know nothing."""

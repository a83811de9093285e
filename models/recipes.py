"""Every model that Fallow can build, by name."""

from __future__ import annotations

from functools import partial
from typing import Final

from ..protocol.errors import Code, ConfigError
from .minilm import minilm
from .recipe import Recipe
from .silero import silero
from .smollm2 import smollm2, smollm2_in_blocks
from .text_direction import text_direction
from .tiny import tiny_chat, tiny_chat_in_blocks, tiny_embed

RECIPES: Final[dict[str, Recipe]] = {
    recipe.name: recipe
    for recipe in (
        Recipe("smollm2-135m-instruct", smollm2),
        Recipe("smollm2-135m-instruct-q4", smollm2_in_blocks),
        Recipe("minilm-l6", minilm),
        Recipe("silero-vad", silero),
        Recipe("text-direction", text_direction),
        Recipe("tiny-chat", tiny_chat),
        Recipe("tiny-chat-x2", partial(tiny_chat, devices=2)),
        Recipe("tiny-chat-q4", tiny_chat_in_blocks),
        Recipe("tiny-embed", tiny_embed),
    )
}


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises `ConfigError(unknown_name)` if there is none."""
    if name not in RECIPES:
        raise ConfigError(Code.UNKNOWN_NAME, f"There is no recipe for {name!r}, only for {', '.join(RECIPES)}.")
    return RECIPES[name]

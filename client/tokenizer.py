"""Text to tokens and back, on the client's side: nodes see numbers only, and both sides count the same tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as _Tokenizer

from ..protocol.bundle import Manifest
from ..protocol.errors import Code, Refused

UNFINISHED = "\ufffd"
"""What a token sequence decodes to where a character's bytes are not all there yet."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn: `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


Prompt = str | Sequence[ChatMessage]


class Tokenizer:
    """The bundle's own tokenizer and chat template."""

    def __init__(self, manifest: Manifest, tokenizer_json: bytes) -> None:
        self._tokenizer = _Tokenizer.from_buffer(tokenizer_json)
        self._template = manifest.chat_template
        self._ends = manifest.end_tokens

    def prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """The tokens of a prompt; a chat is rendered by the bundle's template, which ends where the answer begins."""
        if isinstance(prompt, str):
            prompt = [ChatMessage("user", prompt)]
        for message in prompt:
            _check_text(message.role + message.content)
        if self._template is None:
            return self.text("\n".join(message.content for message in prompt))
        messages: list[Mapping[str, str]] = [{"role": m.role, "content": m.content} for m in prompt]
        try:
            template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(self._template)
            rendered = template.render(messages=messages, add_generation_prompt=True, **self._special_words())
        except TemplateError as error:
            raise Refused(Code.BAD_RECORD, f"The bundle's chat template does not take this chat: {error}.") from None
        return tuple(self._tokenizer.encode(rendered, add_special_tokens=False).ids)

    def text(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, with what the model wants around it."""
        _check_text(text)
        if not (tokens := tuple(self._tokenizer.encode(text).ids)):
            raise Refused(Code.BAD_CONFIG, "A text that has no tokens cannot be worked on.")
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text, without special tokens and without a last character that is not complete."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True)).rstrip(UNFINISHED)

    def _special_words(self) -> dict[str, str]:
        end = self._tokenizer.id_to_token(self._ends[0]) if self._ends else ""
        return {"bos_token": "", "eos_token": end or ""}


def _check_text(text: str) -> None:
    """Raises `Refused(bad_config)` for what is no text: half a surrogate pair, as JSON can carry it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(Code.BAD_CONFIG, f"The text is not Unicode: {error.reason} at {error.start}.") from None

"""What OpenAI clients ask for, checked and in our terms. Pure: JSON values in, requests or `ApiError` out.

What changes an answer and is not supported is refused, never silently ignored; what only labels a request (`user`,
`metadata`) is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..protocol.codec import INTEGER_MAX
from ..protocol.limits import CALL_INPUTS_MAX, OUTPUT_TOKENS_MAX, STOP_STRINGS_MAX, TEXT_BYTES_MAX
from .tokenizer import ChatMessage

MAX_TOKENS = 256
"""Where a request names no bound; the same as the SDK's."""
MESSAGES_MAX = 1024

# A value with which a feature is off counts as not asked for: several client libraries send them all.
_OFF: tuple[object, ...] = (None, False, 0, [], {}, "")
_CHAT_UNSUPPORTED = (
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "prediction",
    "presence_penalty", "tools", "top_logprobs", "web_search_options",
)  # fmt: skip


class ApiError(Exception):
    """A refusal in OpenAI's terms."""

    def __init__(self, status: int, message: str, code: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.retry_after_s = retry_after_s
        """None: the same request again cannot help."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`POST /v1/chat/completions`."""

    model: str
    messages: tuple[ChatMessage, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """`POST /v1/embeddings`."""

    model: str
    texts: tuple[str, ...]
    base64: bool


def parse_chat(body: object) -> ChatRequest:
    """Raises `ApiError(400)` that names the parameter."""
    table = _table(body)
    for name in _CHAT_UNSUPPORTED:
        if table.get(name) not in _OFF:
            raise _bad(name, "is not supported by this gateway", "unsupported_parameter")
    if table.get("n") not in (None, 1):
        raise _bad("n", "must be 1: ask several times for several answers", "unsupported_parameter")
    if table.get("response_format") not in (None, {"type": "text"}):
        raise _bad("response_format", "can only be text", "unsupported_parameter")
    if table.get("modalities") not in (None, ["text"]):
        raise _bad("modalities", "can only be text", "unsupported_parameter")
    options = table.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _bad("stream_options", "must be an object")
    return ChatRequest(
        model=_text(table, "model"),
        messages=_messages(table.get("messages")),
        max_tokens=_max_tokens(table),
        temperature=_number(table, "temperature", 0.0, 2.0),
        top_p=_top_p(table),
        seed=_seed(table.get("seed")),
        stop=_stop(table.get("stop")),
        stream=_flag(table, "stream"),
        include_usage=_flag(options, "include_usage"),
    )


def parse_embeddings(body: object) -> EmbeddingsRequest:
    """Raises `ApiError(400)` that names the parameter."""
    table = _table(body)
    if table.get("dimensions") is not None:
        raise _bad("dimensions", "is not supported: vectors are as long as the model's", "unsupported_parameter")
    given = table.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise _bad("input", "must be a text or a list of texts, none of them empty (tokens are not taken)")
    if len(texts) > CALL_INPUTS_MAX:
        raise _bad("input", f"may hold {CALL_INPUTS_MAX} texts at once, not {len(texts)}")
    encoding = table.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise _bad("encoding_format", "must be float or base64")
    return EmbeddingsRequest(_text(table, "model"), tuple(texts), encoding == "base64")


def parse_max_price(text: str) -> int:
    """Micro-credits, from a header. Raises `ApiError(400)`."""
    if not re.fullmatch(r"[0-9]{1,16}", text):
        raise _bad("X-Fallow-Max-Price", "must be a whole number of micro-credits of at most 16 digits")
    return int(text)


def _bad(name: str, problem: str, code: str = "invalid_parameter") -> ApiError:
    return ApiError(400, f"`{name}` {problem}.", code)


def _table(body: object) -> Mapping[str, object]:
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object.", "invalid_body")
    return body


def _text(table: Mapping[str, object], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or not value:
        raise _bad(name, "must be a text")
    return value


def _flag(table: Mapping[str, object], name: str) -> bool:
    value = table.get(name)
    if value is not None and type(value) is not bool:
        raise _bad(name, "must be true or false")
    return bool(value)


def _number(table: Mapping[str, object], name: str, default: float, most: float) -> float:
    value = table.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise _bad(name, f"must be a number from 0 to {most:g}")
    return float(value)


def _top_p(table: Mapping[str, object]) -> float:
    value = _number(table, "top_p", 1.0, 1.0)
    if value < 1e-6:
        raise _bad("top_p", "must be above 0: a temperature of 0 takes the likeliest token")
    return value


def _max_tokens(table: Mapping[str, object]) -> int:
    name = "max_tokens" if table.get("max_completion_tokens") is None else "max_completion_tokens"
    value = table.get(name)
    if value is None:
        return MAX_TOKENS
    if type(value) is not int or not 1 <= value <= OUTPUT_TOKENS_MAX:
        raise _bad(name, f"must be a whole number from 1 to {OUTPUT_TOKENS_MAX}")
    return value


def _seed(value: object) -> int | None:
    if value is not None and (type(value) is not int or not 0 <= value <= INTEGER_MAX):
        raise _bad("seed", "must be a whole number that is not negative")
    return value if isinstance(value, int) else None


def _stop(value: object) -> tuple[str, ...]:
    strings = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(
        isinstance(text, str) and 0 < len(text.encode()) <= TEXT_BYTES_MAX for text in strings
    ):
        raise _bad("stop", "must be a text or a list of texts")
    if len(strings) > STOP_STRINGS_MAX:
        raise _bad("stop", f"may hold {STOP_STRINGS_MAX} texts")
    return tuple(strings)


def _messages(value: object) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MESSAGES_MAX:
        raise _bad("messages", f"must be a list of 1 to {MESSAGES_MAX} messages")
    return tuple(_message(f"messages[{index}]", message) for index, message in enumerate(value))


def _message(where: str, message: object) -> ChatMessage:
    match message:
        case {"role": "system" | "developer", "content": content}:
            role = "system"  # `developer` is what newer clients call it
        case {"role": "user" | "assistant" as role, "content": content}:
            pass
        case _:
            raise _bad(where, "must have a content, and a role of system, developer, user or assistant")
    return ChatMessage(role, _content(f"{where}.content", content))


def _content(where: str, content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = []
    for part in parts:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case _:
                raise _bad(where, "must be a text, or a list of parts of type text", "unsupported_content")
    return "".join(texts)

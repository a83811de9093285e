"""What OpenAI clients are told, and where our errors have their place in HTTP. Pure.

Every answer carries one field of its own, `fallow`: how it was checked, by whom it was computed, how many receipts; and
of a text, whose tokens no receipt covers.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from ..protocol.errors import REGISTRY, Code, FallowError, Refused
from .answers import Answer, Embeddings, PaidReceipt, Usage
from .gateway_requests import ApiError

Body: TypeAlias = dict[str, Any]
"""A JSON object."""

UNCHECKED = "unchecked"
"""The outcome where assurance `none` was asked for."""
RETRY_S = 2
"""Where nobody says when: nodes come and go within seconds."""

_STATUS: Final[dict[Code, int]] = {
    Code.UNKNOWN_NAME: 404,
    Code.UNKNOWN_ENTRY: 400,
    Code.INPUT_TOO_LONG: 400,
    Code.TOO_LARGE: 413,
    Code.PRICE_TOO_HIGH: 402,
    Code.CREDIT_EXHAUSTED: 402,
    Code.PREPAY: 402,
    Code.REJECTED: 502,
    Code.TIMED_OUT: 504,
}
_COMES_AND_GOES: Final = frozenset(
    {
        Code.NO_EXECUTOR, Code.BUSY, Code.OWNER_NEEDS_MACHINE, Code.UNSATISFIABLE_ASSURANCE, Code.UNKNOWN_BUNDLE,
        Code.BOOTSTRAP_UNREACHABLE, Code.PEER_UNREACHABLE, Code.STREAM_CLOSED,
    }
)  # fmt: skip
"""503: the same request may well be answered a little later."""


def api_error(error: FallowError) -> ApiError:
    """The error with its place in HTTP. A retry is suggested only where it can help and costs nothing."""
    message = f"{error.message} {error.advice}"
    if error.code in _COMES_AND_GOES:
        wait_ms = error.retry_after_ms if isinstance(error, Refused) else 0
        return ApiError(503, message, error.code, max(1, math.ceil(wait_ms / 1000)) if wait_ms else RETRY_S)
    if isinstance(error, Refused) and error.code in (Code.BAD_CONFIG, Code.BAD_RECORD):
        return ApiError(400, message, error.code)  # the SDK's own no: a parameter, or a chat that the template refuses
    return ApiError(_STATUS.get(error.code, 500), message, error.code)


def error_body(error: ApiError) -> Body:
    """The error in OpenAI's shape."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}


def error_headers(error: ApiError) -> dict[str, str]:
    """What tells OpenAI's clients whether and when to try again."""
    if error.retry_after_s is None:
        return {"x-should-retry": "false"}
    return {"x-should-retry": "true", "retry-after": str(error.retry_after_s)}


def model(name: str) -> Body:
    """One bundle of the trust list."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "fallow"}


def models(names: Iterable[str]) -> Body:
    """All of them."""
    return {"object": "list", "data": [model(name) for name in names]}


def completion(job_id: str, created_s: int, name: str, assurance: str, answer: Answer) -> Body:
    """A whole chat completion."""
    message = {"role": "assistant", "content": answer.text}
    return {
        "id": job_id,
        "object": "chat.completion",
        "created": created_s,
        "model": name,
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}],
        "usage": _usage(answer.usage),
        "fallow": _checked_text(answer, assurance),
    }


class CompletionChunks:
    """The events of one streamed chat completion, in the order in which they are sent: first, text, last."""

    def __init__(self, job_id: str, created_s: int, name: str, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._shared: Body = {"id": job_id, "object": "chat.completion.chunk", "created": created_s, "model": name}

    def first(self) -> bytes:
        """Who speaks."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def text(self, text: str) -> bytes:
        """More of the text."""
        return self._chunk({"content": text}, None)

    def last(self, assurance: str, answer: Answer) -> bytes:
        """Why it ended and how it was checked; what it used, if that was asked for; and the end of the stream."""
        ended = self._chunk({}, answer.finish_reason, {"fallow": _checked_text(answer, assurance)})
        usage = sse({**self._shared, "choices": [], "usage": _usage(answer.usage)}) if self._include_usage else b""
        return ended + usage + b"data: [DONE]\n\n"

    def _chunk(self, delta: Body, finish_reason: str | None, more: Body | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        usage = {"usage": None} if self._include_usage else {}
        return sse({**self._shared, "choices": [choice], **usage, **(more or {})})


def sse(body: Body) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def embeddings(name: str, assurance: str, vectors: Embeddings, *, as_base64: bool) -> Body:
    """Vectors, as numbers or as base64 of little-endian float32."""
    encode = _base64 if as_base64 else list
    return {
        "object": "list",
        "model": name,
        "data": [{"object": "embedding", "index": i, "embedding": encode(v)} for i, v in enumerate(vectors)],
        "usage": {"prompt_tokens": vectors.usage.prompt_tokens, "total_tokens": vectors.usage.prompt_tokens},
        "fallow": _checked(vectors, assurance),
    }


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _usage(usage: Usage) -> Body:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _checked_text(answer: Answer, assurance: str) -> Body:
    """Of a text, what no receipt covers, too."""
    notices: list[Body] = [
        {
            "code": each.code,
            "message": f"{each.message} {REGISTRY[each.code].advice}",
            "node": each.node,
            "tokens": each.tokens,
            "unpaid_ucr": each.unpaid_ucr,
        }
        for each in answer.notices
    ]
    return {**_checked(answer, assurance), "unpaid_ucr": answer.unpaid_ucr, "notices": notices}


def _checked(result: Answer | Embeddings, assurance: str) -> Body:
    return {
        "assurance": assurance,
        "outcome": result.verdict.outcome if result.verdict else UNCHECKED,
        "executors": _nodes(result.receipts, "executor"),
        "checkers": _nodes(result.receipts, "checker"),
        "receipts": len(result.receipts),
        "paid_ucr": sum(paid.paid_ucr for paid in result.receipts),
    }


def _nodes(receipts: Sequence[PaidReceipt], role: str) -> list[str]:
    return list(dict.fromkeys(paid.executor for paid in receipts if paid.role == role))

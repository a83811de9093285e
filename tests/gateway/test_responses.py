"""What OpenAI clients are told: shapes, base64, and where each error has its place in HTTP."""

import base64
import json
import struct
from dataclasses import replace

import pytest

from fallow.client.answers import Answer, Embeddings, Notice, Proof, Usage
from fallow.client.gateway_requests import ApiError
from fallow.client.gateway_responses import (
    CompletionChunks,
    api_error,
    completion,
    embeddings,
    error_body,
    error_headers,
)
from fallow.protocol.errors import Code, FallowError, Refused

ANSWER = Answer("blue", (1, 2), "stop", None, (), Usage(3, 2), (), Proof(()))
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def events(stream: bytes) -> list[object]:
    return [json.loads(event) for event in stream.decode().removesuffix("data: [DONE]\n\n").split("data: ")[1:]]


def test_a_completion_has_openais_shape_and_our_field() -> None:
    body = completion("id", 7, "m", "none", ANSWER)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "blue"}
    assert (body["choices"][0]["finish_reason"], body["usage"]) == ("stop", USAGE)
    assert (body["fallow"]["outcome"], body["fallow"]["assurance"]) == ("unchecked", "none")
    assert (body["fallow"]["notices"], body["fallow"]["unpaid_ucr"]) == ([], 0)


def test_what_no_receipt_covers_is_told_with_the_text_and_at_a_streams_end() -> None:
    told = replace(ANSWER, notices=(Notice(Code.UNSIGNED, "Nobody signed.", "12D3KooWnode", 2, 70),))
    (ended,) = events(CompletionChunks("id", 7, "m", include_usage=False).last("none", told))
    assert isinstance(ended, dict)
    for ours in (completion("id", 7, "m", "none", told)["fallow"], ended["fallow"]):
        (notice,) = ours["notices"]
        assert (notice["code"], notice["node"], notice["tokens"]) == ("unsigned", "12D3KooWnode", 2)
        assert notice["message"].startswith("Nobody signed. Nothing is owed")
        assert (notice["unpaid_ucr"], ours["unpaid_ucr"]) == (70, 70)


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_ends_with_reason_usage_and_done(include_usage: bool) -> None:
    chunks = CompletionChunks("id", 7, "m", include_usage)
    last = chunks.last("none", ANSWER)
    assert last.endswith(b"data: [DONE]\n\n")
    ended, *usage = events(last)
    assert isinstance(ended, dict)
    assert (ended["choices"][0]["finish_reason"], ended["fallow"]["outcome"]) == ("stop", "unchecked")
    assert [event["usage"] for event in usage if isinstance(event, dict)] == ([USAGE] if include_usage else [])
    (first,) = events(chunks.first())
    assert isinstance(first, dict)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert ("usage" in first) == include_usage


def test_vectors_come_as_numbers_or_as_base64() -> None:
    vectors = Embeddings(((0.5, -1.0), (2.0, 0.25)), None, (), Usage(4, 0), Proof(()))
    plain = embeddings("m", "none", vectors, as_base64=False)
    assert [item["embedding"] for item in plain["data"]] == [[0.5, -1.0], [2.0, 0.25]]
    coded = embeddings("m", "none", vectors, as_base64=True)
    assert struct.unpack("<2f", base64.b64decode(coded["data"][1]["embedding"])) == (2.0, 0.25)
    assert plain["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


@pytest.mark.parametrize(
    ("code", "status", "retry"),
    [
        (Code.UNKNOWN_NAME, 404, False),
        (Code.INPUT_TOO_LONG, 400, False),
        (Code.TOO_LARGE, 413, False),
        (Code.PRICE_TOO_HIGH, 402, False),
        (Code.NO_EXECUTOR, 503, True),
        (Code.UNSATISFIABLE_ASSURANCE, 503, True),
        (Code.BUSY, 503, True),
        (Code.REJECTED, 502, False),
        (Code.CORRUPT_STORE, 500, False),
    ],
)
def test_each_error_has_its_status(code: Code, status: int, retry: bool) -> None:
    told = api_error(FallowError(code, "It happened."))
    assert told.status == status
    assert (error_headers(told)["x-should-retry"] == "true", "retry-after" in error_headers(told)) == (retry, retry)
    assert error_body(told)["error"]["code"] == code
    assert told.message.startswith("It happened. ")


def test_every_code_of_the_registry_has_a_status() -> None:
    assert all(400 <= api_error(FallowError(code, "")).status < 600 for code in Code)


def test_a_node_that_says_when_is_believed() -> None:
    assert error_headers(api_error(Refused(Code.BUSY, "", 3200)))["retry-after"] == "4"


def test_our_own_no_to_a_parameter_is_the_callers_fault() -> None:
    assert api_error(Refused(Code.BAD_CONFIG, "")).status == 400
    assert error_body(ApiError(400, "no"))["error"]["type"] == "invalid_request_error"

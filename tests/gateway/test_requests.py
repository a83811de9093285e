"""What OpenAI clients send, in our terms: what changes an answer and is not supported is refused by name."""

from typing import Any

import pytest

from fallow.client.gateway_requests import ApiError, parse_chat, parse_embeddings
from fallow.client.tokenizer import ChatMessage

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": HELLO, **more}


def test_a_bare_request_has_the_sdks_defaults() -> None:
    asked = parse_chat(chat())
    assert asked.messages == (ChatMessage("user", "hello"),)
    assert (asked.max_tokens, asked.temperature, asked.top_p, asked.seed, asked.stop) == (256, 0.0, 1.0, None, ())
    assert (asked.stream, asked.include_usage) == (False, False)


def test_every_parameter_is_taken() -> None:
    asked = parse_chat(
        chat(
            max_tokens=5,
            temperature=1,
            top_p=0.5,
            seed=7,
            stop="end",
            stream=True,
            stream_options={"include_usage": True},
            user="somebody",
            metadata={"a": "b"},
        )
    )
    assert (asked.max_tokens, asked.temperature, asked.top_p, asked.seed, asked.stop) == (5, 1.0, 0.5, 7, ("end",))
    assert (asked.stream, asked.include_usage) == (True, True)


def test_the_newer_name_of_the_bound_wins() -> None:
    assert parse_chat(chat(max_tokens=5, max_completion_tokens=9)).max_tokens == 9


def test_roles_and_parts_become_plain_turns() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    asked = parse_chat(chat(messages=messages))
    assert asked.messages == (ChatMessage("system", "be brief"), ChatMessage("user", "ab"))


def test_features_that_are_off_count_as_not_asked_for() -> None:
    parse_chat(chat(n=1, tools=[], logprobs=False, frequency_penalty=0, presence_penalty=0.0, logit_bias={}))
    parse_chat(chat(response_format={"type": "text"}, modalities=["text"], stop=None, seed=None, stream=None))


REFUSED: dict[str, dict[str, Any]] = {
    "model": chat(model=""),
    "messages": chat(messages=[]),
    "messages[0]": chat(messages=[{"role": "tool", "content": "x"}]),
    "messages[0].content": chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
    "n": chat(n=2),
    "tools": chat(tools=[{"type": "function"}]),
    "logprobs": chat(logprobs=True),
    "response_format": chat(response_format={"type": "json_object"}),
    "frequency_penalty": chat(frequency_penalty=0.5),
    "max_tokens": chat(max_tokens=0),
    "max_completion_tokens": chat(max_completion_tokens=10**6),
    "temperature": chat(temperature=2.5),
    "top_p": chat(top_p=0),
    "seed": chat(seed=-1),
    "stop": chat(stop=["a", "b", "c", "d", "e"]),
    "stream": chat(stream="yes"),
    "stream_options": chat(stream_options=3),
    "include_usage": chat(stream_options={"include_usage": 1}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    with pytest.raises(ApiError) as raised:
        parse_chat(REFUSED[name])
    assert (raised.value.status, raised.value.retry_after_s) == (400, None)
    assert raised.value.message.startswith(f"`{name}`")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), True, "1", [1]])
def test_no_odd_number_gets_through(wrong: Any) -> None:
    with pytest.raises(ApiError):
        parse_chat(chat(temperature=wrong))


@pytest.mark.parametrize("body", [None, [], "text", 3])
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    with pytest.raises(ApiError):
        parse_chat(body)


def test_one_text_or_several_are_embedded() -> None:
    assert parse_embeddings({"model": "m", "input": "a"}).texts == ("a",)
    asked = parse_embeddings({"model": "m", "input": ["a", "b"], "encoding_format": "base64"})
    assert (asked.texts, asked.base64) == (("a", "b"), True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": []},
        {"input": ""},
        {"input": [1, 2]},
        {"input": ["a"] * 65},
        {"input": "a", "dimensions": 8},
        {"input": "a", "encoding_format": "hex"},
        {},
    ],
)
def test_other_inputs_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as raised:
        parse_embeddings({"model": "m", **wrong})
    assert raised.value.status == 400

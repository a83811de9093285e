"""The gateway as a process before real nodes, asked by the unmodified `openai` package."""

import http.client
import json
import signal
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from . import function
from .conftest import Shell

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def url(mesh: Shell) -> Iterator[str]:
    with mesh.running("gateway", "--listen", "127.0.0.1:0", "--json") as (process, said):
        yield said["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none is needed", max_retries=0, timeout=60) as client:
        yield client


def chat(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny-chat", "messages": HELLO, "max_tokens": 40, **more})


def test_models_are_the_trust_lists_names(client: openai.OpenAI) -> None:
    shown = {model.id for model in client.models.list()}
    assert {"tiny-chat", "tiny-embed"} <= shown
    assert function.NAME not in shown  # OpenAI's API has no words for arrays
    assert client.models.retrieve("tiny-chat").id == "tiny-chat"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")
    with pytest.raises(openai.NotFoundError, match="function of arrays"):
        client.models.retrieve(function.NAME)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["tiny-embed", function.NAME])
def test_a_model_that_writes_no_text_is_a_bad_request(model: str, stream: bool, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="has no entry 'generate'; it offers call") as refused:
        chat(client, model=model, stream=stream)
    assert (refused.value.code, refused.value.type) == ("unknown_entry", "invalid_request_error")


@pytest.mark.parametrize(
    ("model", "why"), [("tiny-chat", "has no entry 'call'"), (function.NAME, "is a function of arrays, not of texts")]
)
def test_a_model_that_makes_no_vectors_of_texts_is_a_bad_request(model: str, why: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=why) as refused:
        client.embeddings.create(model=model, input="hello")
    assert refused.value.code == "unknown_entry"


def test_a_chat_is_answered_and_says_how_it_was_checked(client: openai.OpenAI) -> None:
    answer = chat(client)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 40)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 40
    proof = answer.fallow
    assert (proof["outcome"], proof["assurance"]) == ("accepted", "adaptive:20000")
    assert proof["executors"]
    assert proof["checkers"]
    assert proof["receipts"] >= 4


def test_a_streamed_chat_is_the_same_text_with_usage_at_its_end(client: openai.OpenAI) -> None:
    *chunks, last = chat(client, stream=True, stream_options={"include_usage": True}, max_tokens=100)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == chat(client, max_tokens=100).choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 1
    assert (last.choices, last.usage.completion_tokens) == ([], 100)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert chunks[-1].fallow["outcome"] == "accepted"


def test_assurance_can_be_set_for_each_request(client: openai.OpenAI) -> None:
    answer = chat(client, extra_headers={"X-Fallow-Assurance": "none"})
    assert (answer.fallow["outcome"], answer.fallow["checkers"]) == ("unchecked", [])


def test_two_executors_race_if_the_header_says_so(client: openai.OpenAI) -> None:
    plain = chat(client, extra_headers={"X-Fallow-Assurance": "quorum:2/3"})  # unchecked, it may be the liar's own
    raced = chat(client, extra_headers={"X-Fallow-Assurance": "quorum:2/3+hedge:2"})
    assert raced.fallow["assurance"] == "quorum:2/3+hedge:2"
    assert raced.choices[0].message.content == plain.choices[0].message.content


def test_a_gateway_has_the_default_and_the_cap_that_it_was_started_with(mesh: Shell) -> None:
    words = ("--assurance", "none+hedge:2", "--max-price", "400")
    with (
        mesh.running("gateway", "--listen", "127.0.0.1:0", "--json", *words) as (_, said),
        openai.OpenAI(base_url=said["url"], api_key="none is needed", max_retries=0, timeout=60) as client,
    ):
        answer = chat(client)
        assert (answer.fallow["assurance"], answer.fallow["checkers"]) == ("none+hedge:2", [])
        vectors = client.embeddings.create(model="tiny-embed", input="a")
        assert vectors.fallow["assurance"] == "none+hedge:2"  # type: ignore[attr-defined]
        other = chat(client, extra_headers={"X-Fallow-Assurance": "adaptive"})
        assert other.fallow["assurance"] == "adaptive:20000"
        for cap in ("400", "999999999"):  # a header lowers it, and does not raise it
            assert chat(client, extra_headers={"X-Fallow-Max-Price": cap}).choices
        with pytest.raises(openai.APIStatusError) as dear:
            chat(client, max_tokens=150, extra_headers={"X-Fallow-Max-Price": "999999999"})
        assert (dear.value.status_code, dear.value.code) == (402, "price_too_high")


@pytest.mark.parametrize("kind", ["text", "vectors"])
def test_a_request_can_lower_what_an_order_may_cost(kind: str, client: openai.OpenAI) -> None:
    def ask(cap: str) -> Any:
        headers = {"X-Fallow-Max-Price": cap}
        if kind == "text":
            return chat(client, extra_headers=headers)
        return client.embeddings.create(model="tiny-embed", input="a", extra_headers=headers)

    with pytest.raises(openai.APIStatusError) as dear:
        ask("1")
    assert (dear.value.status_code, dear.value.code) == (402, "price_too_high")
    for wrong in ("", "-1", "1.5", "ten", "1" * 17):
        with pytest.raises(openai.BadRequestError, match="X-Fallow-Max-Price") as refused:
            ask(wrong)
        assert refused.value.code == "invalid_parameter"


def test_a_stop_string_ends_the_text(client: openai.OpenAI) -> None:
    text = chat(client).choices[0].message.content
    stop = text[10:13]
    answer = chat(client, stop=[stop])
    assert answer.choices[0].message.content == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_gives_the_same_text_again(client: openai.OpenAI) -> None:
    once, again, other = (
        chat(client, seed=seed, temperature=1.0, top_p=0.9).choices[0].message.content for seed in (7, 7, 8)
    )
    assert once == again != other


def test_vectors_come_as_floats_and_as_base64(client: openai.OpenAI) -> None:
    coded = client.embeddings.create(model="tiny-embed", input=["a", "b"], encoding_format="base64")
    plain = client.embeddings.create(model="tiny-embed", input="a", encoding_format="float")
    usual = client.embeddings.create(model="tiny-embed", input="a")
    assert isinstance(coded.data[0].embedding, str)
    assert len(plain.data[0].embedding) == len(usual.data[0].embedding) == 64
    assert usual.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-3)
    assert plain.usage.prompt_tokens > 0


@pytest.mark.parametrize(
    ("more", "kind", "code", "retry"),
    [
        ({"model": "nope"}, openai.NotFoundError, "unknown_name", "false"),
        ({"n": 2}, openai.BadRequestError, "unsupported_parameter", "false"),
        ({"messages": [{"role": "user", "content": "x" * 4000}]}, openai.BadRequestError, "input_too_long", "false"),
        (
            {"extra_headers": {"X-Fallow-Assurance": "most"}},
            openai.BadRequestError,
            "unsatisfiable_assurance",
            "false",
        ),
        (
            {"extra_headers": {"X-Fallow-Assurance": "quorum:9/16"}},
            openai.InternalServerError,
            "unsatisfiable_assurance",
            "true",
        ),
        ({"stream": True, "model": "nope"}, openai.NotFoundError, "unknown_name", "false"),
    ],
)
def test_errors_are_openais_own(
    more: dict[str, Any], kind: type[openai.APIStatusError], code: str, retry: str, client: openai.OpenAI
) -> None:
    with pytest.raises(kind) as raised:
        chat(client, **more)
    assert raised.value.code == code
    assert raised.value.response.headers["x-should-retry"] == retry


def test_a_client_that_leaves_is_no_trouble(client: openai.OpenAI, url: str) -> None:
    stream = chat(client, stream=True, max_tokens=200)
    next(iter(stream))
    stream.close()
    asked = json.dumps({"model": "tiny-chat", "messages": HELLO, "max_tokens": 200})
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=30)
    connection.request("POST", "/v1/chat/completions", asked, {"Content-Type": "application/json"})
    connection.close()  # without waiting for a word of the answer
    assert chat(client, max_tokens=4).usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Host": "rebound.example"}, "{}", 403),
        ({"Content-Type": "text/plain"}, "{}", 415),
        ({}, "{", 400),
        ({}, "[" * 100_000, 400),
        ({}, " " * (1024 * 1024 + 1), 413),
    ],
)
def test_what_no_openai_client_sends_is_refused(headers: dict[str, str], body: str, status: int, url: str) -> None:
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=30)
    try:
        connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        assert (answer.status, set(json.load(answer))) == (status, {"error"})
    finally:
        connection.close()


def test_a_busy_port_is_said(url: str, mesh: Shell) -> None:
    ran = mesh("gateway", "--listen", url.split("/")[2])
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[0].endswith("[port_busy]")

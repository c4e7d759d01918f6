# SPDX-License-Identifier: Apache-2.0
"""Answers as the official SDKs understand them, with receipts that cover exactly what the caller sees."""

import asyncio
import json
import os
from dataclasses import replace

import pytest
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from unit.enclave.harness import CHAT, Enclave, FakeEngine, Inner

from adyton_enclave.engine import (
    Event,
    Finished,
    GenerationRequest,
    TextDelta,
    TokenLogprob,
    TopLogprob,
    Usage,
    sampling_key,
)
from adyton_enclave.exchange import ExchangeFacts, InnerRequest
from adyton_enclave.receipts import ReceiptBook
from adyton_enclave.server import make_api
from adyton_protocol.errors import EngineStopped, OutOfMemory, QueueFull
from adyton_protocol.sse import is_comment

STREAM = CHAT | {"stream": True}
TEXT: dict[str, object] = {"model": "fake", "prompt": "say"}
TEXTS = {"path": "/v1/completions"}


@pytest.fixture
def enclave() -> Enclave:
    """An enclave over a scripted engine."""
    return Enclave()


def texts_of(inner: Inner) -> dict[int, str]:
    """Text of each choice of a streamed chat."""
    texts: dict[int, str] = {}
    for event in inner.data():
        if event == "[DONE]":
            continue
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
    return texts


async def test_a_chat_completion_is_what_the_sdk_expects(enclave: Enclave) -> None:
    """The SDK's own model validates the answer; names, usage and fingerprint are filled in."""
    inner = await enclave.ask(CHAT | {"n": 2})
    answer = ChatCompletion.model_validate(inner.json(), strict=True)
    assert answer.id.startswith("chatcmpl-")
    assert answer.created == enclave.clock.wall
    assert answer.system_fingerprint == "fp_" + "1" * 12
    assert [choice.message.content for choice in answer.choices] == ["one two three"] * 2
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert inner.headers["x-receipt-id"].startswith("rcpt-")


async def test_a_stream_is_what_the_sdk_expects(enclave: Enclave) -> None:
    """Role first, deltas, one finish per choice, usage last, ``[DONE]``; every chunk validates."""
    sealed = enclave.seal(STREAM | {"n": 2, "stream_options": {"include_usage": True}})
    inner = sealed.open(await enclave.post(sealed.bytes, sealed.media_type))
    *events, done = inner.data()
    assert done == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate(event, strict=True) for event in events]
    assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant", "assistant"]
    assert texts_of(inner) == {0: "one two three", 1: "one two three"}
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    verified = sealed.check_receipt(inner, enclave.keyset)
    (finished,) = verified.receipt.events_of("generation.finished")
    assert finished.fields["finish_reasons"] == ["stop", "stop"]
    assert verified.receipt.chat_id == chunks[0].id


async def test_the_receipt_stands_right_before_done(enclave: Enclave) -> None:
    """SDKs stop reading at ``[DONE]``, so the receipt comes before it, in the same group of events."""
    groups = (await enclave.ask(STREAM)).groups()
    meaningful = [group for group in groups if group.strip(b": \n")]
    assert meaningful[-1] == b"data: [DONE]\n\n"
    assert meaningful[-2].startswith(b": adyton-receipt ")


async def test_a_text_completion_is_what_the_sdk_expects(enclave: Enclave) -> None:
    """Several prompts and several answers each: the index counts through."""
    inner = await enclave.ask(TEXT | {"prompt": ["a", "bc"], "n": 2}, **TEXTS)
    answer = Completion.model_validate(inner.json(), strict=True)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert {choice.text for choice in answer.choices} == {"one two three"}
    requests = [generation.request for generation in enclave.engine.generations]
    assert [request.prompt_token_ids for request in requests] == [(97,), (98, 99)]
    # Same key, different paths: the draws of the prompts are independent, and each can be replayed alone.
    assert [request.first_choice for request in requests] == [0, 2]
    assert requests[0].key == requests[1].key


async def test_a_streamed_text_completion_merges_its_prompts(enclave: Enclave) -> None:
    """All choices arrive, each with one finish."""
    inner = await enclave.ask(TEXT | {"prompt": ["a", "b"], "stream": True}, **TEXTS)
    *events, done = inner.data()
    assert done == "[DONE]"
    for event in events:
        Completion.model_validate({**event, "choices": [{**event["choices"][0], "finish_reason": "stop"}]})
    texts = {0: "", 1: ""}
    for event in events:
        texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert texts == {0: "one two three", 1: "one two three"}
    assert [event["choices"][0]["finish_reason"] for event in events].count("stop") == 2


def with_logprobs(request: GenerationRequest) -> list[Event | Exception]:
    """Two tokens with one alternative each."""
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    top = (TopLogprob(token="no", bytes=b"no", logprob=-2.0),)
    tokens = [
        TokenLogprob(token=text, bytes=text.encode(), logprob=-0.5, top=top) for text in ("yes", " sir")
    ]
    return [
        *(TextDelta(index=0, text=token.token, logprobs=(token,)) for token in tokens),
        Finished(index=0, finish_reason="length", usage=usage),
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs(stream: bool) -> None:
    """Chat reports tokens, bytes and alternatives; completions report offsets into the text."""
    enclave = Enclave(engine=FakeEngine(with_logprobs))
    inner = await enclave.ask(CHAT | {"logprobs": True, "top_logprobs": 1, "stream": stream})
    if stream:
        chunks = [ChatCompletionChunk.model_validate(event) for event in inner.data()[:-1]]
        found = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
        content = [entry for logprobs in found for entry in logprobs.content or []]
    else:
        answer = ChatCompletion.model_validate(inner.json())
        assert answer.choices[0].logprobs is not None
        content = answer.choices[0].logprobs.content or []  # type: ignore[assignment]
    assert [(entry.token, entry.bytes) for entry in content] == [
        ("yes", [121, 101, 115]),
        (" sir", [32, 115, 105, 114]),
    ]
    assert content[0].top_logprobs[0].token == "no"
    text = await enclave.ask(TEXT | {"logprobs": 1}, **TEXTS)
    logprobs = text.json()["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["yes", " sir"]
    assert logprobs["text_offset"] == [0, 3]
    assert logprobs["top_logprobs"] == [{"no": -2.0}, {"no": -2.0}]


async def test_the_engine_gets_what_was_asked_for(enclave: Enclave) -> None:
    """Given values reach the engine, missing ones are the model's defaults."""
    await enclave.ask(CHAT | {"temperature": 0, "top_k": 5, "seed": 11, "stop": "x", "max_tokens": 9})
    await enclave.ask(CHAT)
    asked, standard = (generation.request for generation in enclave.engine.generations)
    assert (asked.sampling.temperature, asked.sampling.top_k, asked.max_tokens) == (0.0, 5, 9)
    assert asked.stop == ("x",)
    assert asked.key == sampling_key(11)
    assert standard.sampling.temperature == 0.5
    assert standard.max_tokens == 40
    assert standard.key != asked.key
    assert standard.timeout_s == 600


async def test_without_a_seed_no_two_requests_share_a_key(enclave: Enclave) -> None:
    """Sampling keys are fresh random bytes."""
    for _ in range(3):
        await enclave.ask(CHAT)
    assert len({generation.request.key for generation in enclave.engine.generations}) == 3


async def test_a_prompt_that_cannot_fit_is_refused_by_name(enclave: Enclave) -> None:
    """Found out before any work, with the field that holds the prompt."""
    chat = await enclave.ask({"messages": [{"role": "user", "content": "x" * 300}]})
    text = await enclave.ask(TEXT | {"prompt": "x" * 300}, **TEXTS)
    assert (chat.status, text.status) == (400, 400)
    assert chat.error()["code"] == text.error()["code"] == "context_length_exceeded"
    assert (chat.error()["param"], text.error()["param"]) == ("messages", "prompt")
    assert not enclave.engine.generations


async def test_the_default_length_is_cut_to_what_is_left(enclave: Enclave) -> None:
    """Who does not ask for a length gets what fits."""
    await enclave.ask(TEXT | {"prompt": "x" * 250}, **TEXTS)
    assert enclave.engine.generations[0].request.max_tokens == 6


async def test_a_large_prompt_is_prepared_beside_the_loop() -> None:
    """A long prompt is served like a short one."""
    enclave = Enclave()
    enclave.engine.models["fake"].n_ctx = 100_000
    assert (await enclave.ask(TEXT | {"prompt": "x" * 20_000}, **TEXTS)).status == 200
    assert len(enclave.engine.generations[0].request.prompt_token_ids) == 20_000


async def test_models_are_listed_with_their_identity(enclave: Enclave) -> None:
    """List and single entry agree with the keyset."""
    listed = (await enclave.ask(method="GET", path="/v1/models")).json()
    shown = (await enclave.ask(method="GET", path="/v1/models/fake")).json()
    assert listed["data"] == [shown]
    Model.model_validate(shown)
    assert shown["identity"] == enclave.keyset.extension.models[0].identity
    assert shown["license"] == "CC0-1.0"
    missing = await enclave.ask(method="GET", path="/v1/models/other")
    assert (missing.status, missing.error()["code"]) == (404, "model_not_found")


async def test_a_model_that_cannot_be_reproduced_is_labelled(enclave: Enclave) -> None:
    """It says so in the list, and to whoever sets a seed; others are not bothered."""
    exact = (await enclave.ask(method="GET", path="/v1/models/fake")).json()
    assert (exact["reproducible"], "not_reproducible_because" in exact) == (True, False)
    assert "adyton-warning" not in (await enclave.ask(CHAT | {"seed": 1})).headers
    enclave.engine.models["fake"].why_inexact = "flash attention is off"
    inexact = (await enclave.ask(method="GET", path="/v1/models/fake")).json()
    assert (inexact["reproducible"], inexact["not_reproducible_because"]) == (False, "flash attention is off")
    seeded = await enclave.ask(CHAT | {"seed": 1, "user": "u"})
    assert seeded.headers["adyton-warning"] == "ignored: user; seed: this model is not reproducible"
    assert "adyton-warning" not in (await enclave.ask(CHAT)).headers


@pytest.mark.parametrize("model", ["fake", "default", None])
async def test_the_model_may_be_the_default(enclave: Enclave, model: str | None) -> None:
    """No name, or ``default``, is the first configured model; the answer says its real name."""
    inner = await enclave.ask(CHAT | {"model": model})
    assert inner.json()["model"] == "fake"


async def test_an_unknown_model_is_a_404(enclave: Enclave) -> None:
    """As OpenAI's API answers it."""
    inner = await enclave.ask(CHAT | {"model": "gpt-9"})
    assert inner.status == 404
    assert inner.error() == {
        "message": "the model does not exist; GET /v1/models lists those that do",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models?x=1", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/chat/completions/", 404),
        ("GET", "/../v1/models", 404),
        ("DELETE", "/v1/aci/receipts/x", 405),
        ("GET", "/v1/aci/receipts/x", 404),
        ("GET", "/readyz", 404),
    ],
)
async def test_routes_are_exact(enclave: Enclave, method: str, path: str, status: int) -> None:
    """Paths and methods match exactly or not at all; the error is sealed like every answer."""
    inner = await enclave.ask(method=method, path=path)
    assert inner.status == status
    assert inner.error()["message"]


async def test_another_media_type_is_a_415(enclave: Enclave) -> None:
    """The inner body is JSON."""
    inner = await enclave.ask(CHAT, headers={"content-type": "text/plain"})
    assert inner.status == 415


async def test_a_receipt_can_be_fetched_later(enclave: Enclave) -> None:
    """By its name, through the sealed channel, byte for byte as it was delivered."""
    sealed = enclave.seal(CHAT)
    inner = sealed.open(await enclave.post(sealed.bytes, sealed.media_type))
    receipt = sealed.check_receipt(inner, enclave.keyset).receipt
    again = await enclave.ask(method="GET", path=f"/v1/aci/receipts/{receipt.receipt_id}")
    assert again.body == receipt.to_bytes()
    by_answer = await enclave.ask(method="GET", path=f"/v1/aci/receipts/{inner.json()['id']}")
    assert by_answer.body == receipt.to_bytes(), "the id of the answer does as well"


async def test_only_the_latest_receipts_are_kept(enclave: Enclave) -> None:
    """Memory is bounded; the oldest goes first."""
    book = ReceiptBook(os.urandom, capacity=2)
    enclave.gateway._application._desk = replace(enclave.gateway._application._desk, book=book)  # type: ignore[attr-defined]
    answers = [await enclave.ask(CHAT) for _ in range(3)]
    for names in (
        [answer.headers["x-receipt-id"] for answer in answers],
        [answer.json()["id"] for answer in answers],
    ):
        assert [book.find(name) is not None for name in names] == [False, True, True]


def rated(request: GenerationRequest) -> list[Event | Exception]:
    """Choice ``i`` says its number; the best by mean log-probability are 2, then 0, then 3, then 1."""
    usage = Usage(prompt_tokens=len(request.prompt_token_ids), completion_tokens=2 * request.n)
    events: list[Event | Exception] = []
    for index in range(request.n):
        value = (-2.0, -4.0, -1.0, -3.0)[index % 4]
        details = tuple(
            TokenLogprob(token=str(index), bytes=b"x", logprob=value, top=()) for _ in range(1 + index)
        )
        assert request.logprobs is not None
        events.append(TextDelta(index=index, text=str(index), logprobs=details))
        events.append(Finished(index=index, finish_reason="stop", usage=usage))
    return events


async def test_best_of_returns_the_likeliest_answers() -> None:
    """By the mean over tokens, so that length does not decide; log-probabilities that nobody asked for stay in."""
    enclave = Enclave(engine=FakeEngine(rated))
    inner = await enclave.ask(TEXT | {"prompt": ["a", "b"], "n": 2, "best_of": 4}, **TEXTS)
    answer = Completion.model_validate(inner.json(), strict=True)
    assert [choice.text for choice in answer.choices] == ["2", "0", "2", "0"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert all(choice.logprobs is None for choice in answer.choices)
    assert [generation.request.n for generation in enclave.engine.generations] == [4, 4]
    assert [generation.request.first_choice for generation in enclave.engine.generations] == [0, 4]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_repeats_the_prompt(enclave: Enclave, stream: bool) -> None:
    """Texts and token ids alike, before every choice of their own prompt, whole and streamed."""
    body = TEXT | {"prompt": ["say ", [0x68, 0x69]], "n": 2, "echo": True, "stream": stream}
    inner = await enclave.ask(body, **TEXTS)
    answers = [event for event in inner.data() if event != "[DONE]"] if stream else [inner.json()]
    texts = [""] * 4
    for answer in answers:
        for choice in answer["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == ["say one two three"] * 2 + ["hione two three"] * 2


@pytest.mark.parametrize("extra", [{"stream": False}, {"stream": True}])
async def test_ignored_parameters_come_back_in_a_header(enclave: Enclave, extra: dict[str, object]) -> None:
    """By the names of our own table, never with what the caller wrote."""
    inner = await enclave.ask(CHAT | extra | {"user": "somebody", "prompt_cache_key": "k"})
    assert inner.headers["adyton-warning"] == "ignored: user, prompt_cache_key"
    assert "adyton-warning" not in (await enclave.ask(CHAT | extra)).headers


async def test_sampling_reaches_the_engine(enclave: Enclave) -> None:
    """Penalties and biases arrive as they were given; a token outside the vocabulary is the caller's mistake."""
    body = CHAT | {"frequency_penalty": 1, "presence_penalty": -1, "repetition_penalty": 1.5}
    await enclave.ask(body | {"logit_bias": {"255": -100}})
    request = enclave.engine.generations[0].request
    assert request.logit_bias == ((255, -100.0),)
    sampling = request.sampling
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (1.0, -1.0)
    assert sampling.repetition_penalty == 1.5
    inner = await enclave.ask(CHAT | {"logit_bias": {"256": 1}})
    assert (inner.status, inner.error()["param"]) == (400, "logit_bias")


async def test_an_engine_that_refuses_is_a_sealed_error(enclave: Enclave) -> None:
    """Full queue: 429 with advice. Stopped: 503. The request's receipt never exists."""
    enclave.engine.refusal = QueueFull("too many requests wait", retry_after_s=2.6)
    full = await enclave.ask(STREAM)
    assert (full.status, full.headers["retry-after"]) == (429, "3")
    assert full.error()["type"] == "rate_limit_error"
    enclave.engine.refusal = EngineStopped("the engine is shutting down")
    stopped = await enclave.ask(CHAT)
    assert (stopped.status, stopped.error()["code"]) == (503, "engine_stopped")
    assert "adyton-receipt" not in stopped.headers


def fails(error: Exception) -> FakeEngine:
    """An engine that breaks off after one word."""
    return FakeEngine(lambda _request: [TextDelta(index=0, text="one"), error])


async def test_a_failure_in_mid_stream_is_an_error_event() -> None:
    """The stream ends authenticated, with an error that SDKs raise, without receipt and without ``[DONE]``."""
    enclave = Enclave(engine=fails(OutOfMemory("the KV cache is full")))
    inner = await enclave.ask(STREAM)
    events = [group for group in inner.groups() if not is_comment(group)]
    assert events[-1].startswith(b'data: {"error"')
    assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "out_of_memory"
    assert b"adyton-receipt" not in inner.body
    assert b"[DONE]" not in inner.body


async def test_a_failure_before_a_whole_answer_is_a_sealed_status() -> None:
    """Nothing of half an answer gets out."""
    inner = await Enclave(engine=fails(OutOfMemory("the KV cache is full"))).ask(CHAT)
    assert (inner.status, inner.error()["code"]) == (503, "out_of_memory")
    assert b"one" not in inner.body


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unexpected_failure_says_nothing(stream: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """An exception whose text holds a prompt reaches neither the log nor the caller; its class name does."""
    canary = "canary-8c21"
    enclave = Enclave(engine=fails(RuntimeError(canary)))
    inner = await enclave.ask(CHAT | {"stream": stream})
    assert canary.encode() not in inner.body
    assert b"internal_error" in inner.body
    logged = capsys.readouterr()
    assert canary not in logged.out + logged.err
    assert "RuntimeError" in logged.err


async def test_one_failing_prompt_of_several_cancels_the_others() -> None:
    """Nothing keeps running for a request that has failed."""

    def script(request: GenerationRequest) -> list[Event | Exception]:
        if request.first_choice:
            return [OutOfMemory("the KV cache is full")]
        return [TextDelta(index=0, text="one")] * 50

    enclave = Enclave(engine=FakeEngine(script))
    inner = await enclave.ask(TEXT | {"prompt": ["a", "b"]}, **TEXTS)
    assert inner.status == 503
    assert all(generation.cancelled for generation in enclave.engine.generations)


async def test_a_refused_prompt_takes_back_the_others(enclave: Enclave) -> None:
    """All prompts are queued, or none."""
    inner = await enclave.ask(TEXT | {"prompt": ["a", "x" * 300]}, **TEXTS)
    assert inner.status == 400
    assert enclave.engine.generations[0].cancelled


async def test_a_stream_closed_after_its_opening_ends_its_generation(enclave: Enclave) -> None:
    """Also when nobody has asked for the first token yet, the engine is told at once."""
    epoch = enclave.ring.current()
    facts = ExchangeFacts(
        enc=bytes(32),
        receipt_secret=bytes(32),
        keyset_digest=epoch.keyset.digest(),
        signer=epoch.signer,
        accepted_at=enclave.clock.wall,
    )
    request = InnerRequest(
        method="POST", path="/v1/chat/completions", headers={}, body=json.dumps(STREAM).encode()
    )
    response = await make_api(enclave.configuration, enclave.engine, enclave.clock.surroundings())(
        request, facts
    )
    assert not isinstance(response.body, bytes)
    await anext(response.body)
    await response.body.aclose()
    assert enclave.engine.generations[0].cancelled


async def test_every_answer_ends_its_generation(enclave: Enclave) -> None:
    """After a complete answer nothing is left running either."""
    await enclave.ask(CHAT)
    await enclave.ask(STREAM)
    await asyncio.sleep(0)
    assert all(generation.cancelled for generation in enclave.engine.generations)

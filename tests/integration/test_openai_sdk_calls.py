# SPDX-License-Identifier: Apache-2.0
"""The ordinary calls of OpenAI's own Python SDK, unmodified, sealed to a running appliance.

The model is tiny and random: its words mean nothing, but every form of an answer is real.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from adyton_protocol.errors import TransportError
from appliance import Appliance
from tiny_appliance import TINY, running_tiny

MESSAGES: Any = [{"role": "user", "content": "hello"}]
CAPITAL_A = 5 + ord("A")
"""Its token: five control tokens come before the bytes."""


@pytest.fixture(scope="module")
def sdk(tiny_appliance: Appliance) -> Iterator[openai.OpenAI]:
    """The synchronous SDK."""
    with tiny_appliance.client() as client:
        yield client.openai()


@pytest.fixture
async def async_sdk(tiny_appliance: Appliance) -> AsyncIterator[openai.AsyncOpenAI]:
    """The asynchronous SDK."""
    async with tiny_appliance.async_client() as client:
        yield client.async_openai()


def text_of(answer: Any) -> str:
    """The first choice's text."""
    return str(answer.choices[0].message.content)


def test_a_stream_ends_with_its_usage(sdk: openai.OpenAI) -> None:
    """Deltas add up to the whole answer, one chunk says why it ended, the last one counts the tokens."""
    asked: Any = {"model": TINY, "messages": MESSAGES, "max_tokens": 6, "seed": 1}
    whole = sdk.chat.completions.create(**asked)
    chunks = list(sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == text_of(whole)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices[0].finish_reason] == [
        "length"
    ]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 6


def test_the_stream_helper_gathers_the_answer(sdk: openai.OpenAI) -> None:
    """The SDK's own accumulator over a stream ends in the answer that a whole call gives."""
    asked: Any = {"model": TINY, "messages": MESSAGES, "max_tokens": 12, "seed": 1}
    # The helper takes an answer that was cut by its length for an error.
    asked["stop"] = text_of(sdk.chat.completions.create(**asked))[4]
    with sdk.chat.completions.stream(**asked) as stream:
        gathered = stream.get_final_completion()
    assert text_of(gathered) == text_of(sdk.chat.completions.create(**asked))


def test_n_gives_that_many_different_choices(sdk: openai.OpenAI) -> None:
    """Each choice has its index and its own draws; the prompt is counted once."""
    answer = sdk.chat.completions.create(
        model=TINY, messages=MESSAGES, n=4, max_tokens=8, temperature=1.5, seed=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 32


def test_a_seed_repeats_an_answer_and_another_seed_does_not(sdk: openai.OpenAI) -> None:
    """Equal seeds give equal answers."""

    def ask(seed: int) -> str:
        return text_of(
            sdk.chat.completions.create(
                model=TINY, messages=MESSAGES, max_tokens=12, temperature=1.5, seed=seed
            )
        )

    assert ask(5) == ask(5)
    assert ask(5) != ask(6)


def test_logprobs_come_with_their_alternatives(sdk: openai.OpenAI) -> None:
    """Each token has its log-probability, its bytes and the asked number of alternatives, best first."""
    answer = sdk.chat.completions.create(
        model=TINY, messages=MESSAGES, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 4
    for token in logprobs.content:
        values = [top.logprob for top in token.top_logprobs]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert token.logprob == values[0]
        assert sum(math.exp(value) for value in values) <= 1.0 + 1e-6


def test_a_stop_ends_the_answer_before_it(sdk: openai.OpenAI) -> None:
    """The stop string is not part of the answer."""
    asked: Any = {"model": TINY, "messages": MESSAGES, "max_tokens": 12, "seed": 1}
    whole = text_of(sdk.chat.completions.create(**asked))
    stop = whole[4]
    cut = sdk.chat.completions.create(**asked, stop=[stop])
    assert text_of(cut) == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_a_bias_forces_a_token_and_a_penalty_drives_it_out(sdk: openai.OpenAI) -> None:
    """+100 makes a token certain; a frequency penalty takes 2 off for each occurrence."""
    asked: Any = {
        "model": TINY, "messages": MESSAGES, "max_tokens": 8, "temperature": 0,
        "logit_bias": {str(CAPITAL_A): 100},
    }  # fmt: skip
    assert text_of(sdk.chat.completions.create(**asked)) == "A" * 8
    asked["logit_bias"] = {str(CAPITAL_A): 15}
    plain = text_of(sdk.chat.completions.create(**asked))
    penalised = text_of(sdk.chat.completions.create(**asked, frequency_penalty=2, presence_penalty=2))
    assert penalised.count("A") < plain.count("A")
    repeated = text_of(sdk.chat.completions.create(**asked, extra_body={"repetition_penalty": 2}))
    assert repeated.count("A") < plain.count("A")


def test_what_is_ignored_comes_back_in_a_warning(sdk: openai.OpenAI) -> None:
    """Labels do not fail a request, and the caller is told that they did nothing."""
    raw = sdk.chat.completions.with_raw_response.create(
        model=TINY, messages=MESSAGES, max_tokens=1, user="u-1", metadata={"a": "b"}
    )
    assert raw.headers["adyton-warning"] == "ignored: user, metadata"
    quiet = sdk.chat.completions.with_raw_response.create(model=TINY, messages=MESSAGES, max_tokens=1)
    assert "adyton-warning" not in quiet.headers


def test_a_salt_caches_the_prefix_and_nothing_else_does(sdk: openai.OpenAI) -> None:
    """The same prompt again is computed anew without a salt, and mostly found with one; the answer is the same."""
    asked: Any = {
        "model": TINY, "messages": [{"role": "user", "content": "hello " * 40}], "max_tokens": 4, "seed": 1,
    }  # fmt: skip
    plain = [sdk.chat.completions.create(**asked) for _ in range(2)]
    salted = [
        sdk.chat.completions.create(**asked, extra_body={"cache_salt": "a salt of this test"})
        for _ in range(2)
    ]
    cached = [answer.usage.prompt_tokens_details.cached_tokens for answer in (*plain, *salted)]  # type: ignore[union-attr]
    assert cached[:3] == [0, 0, 0]
    assert (cached[3] or 0) > 20
    assert len({text_of(answer) for answer in (*plain, *salted)}) == 1


def test_the_flexible_tier_is_named_and_a_deadline_is_kept(sdk: openai.OpenAI) -> None:
    """`flex` comes back in the answer; work that cannot be done in time is an error of the SDK's own."""
    answer = sdk.chat.completions.create(model=TINY, messages=MESSAGES, max_tokens=1, service_tier="flex")
    assert answer.service_tier == "flex"
    with pytest.raises(openai.InternalServerError) as late:
        sdk.chat.completions.create(
            model=TINY, messages=MESSAGES, max_tokens=2000, extra_body={"deadline_ms": 5}
        )
    assert (late.value.status_code, late.value.code) == (504, "deadline_exceeded")


def test_plain_completions(sdk: openai.OpenAI) -> None:
    """Several prompts, echo, best_of, logprobs and streaming work on the older endpoint too."""
    answer = sdk.completions.create(
        model=TINY, prompt=["the", "an"], max_tokens=3, n=2, best_of=3, echo=True, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text[:2] for choice in answer.choices] == ["th", "th", "an", "an"]
    with_logprobs = sdk.completions.create(model=TINY, prompt="the", max_tokens=3, logprobs=2)
    logprobs = with_logprobs.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.token_logprobs or ()) == 3
    chunks = list(
        sdk.completions.create(
            model=TINY, prompt="the", max_tokens=3, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_models_are_listed_and_found(sdk: openai.OpenAI) -> None:
    """Every listed model can be retrieved by its name, and says which digest it has."""
    models = list(sdk.models.list())
    assert TINY in {model.id for model in models}
    for model in models:
        found = sdk.models.retrieve(model.id)
        assert found == model
        assert str(found.to_dict()["identity"]).startswith("sha256:")


def test_errors_are_the_sdks_own(sdk: openai.OpenAI) -> None:
    """400 and 404 arrive as the SDK's exceptions, with our code and the field at fault."""
    with pytest.raises(openai.BadRequestError) as bad:
        sdk.chat.completions.create(model=TINY, messages=MESSAGES, temperature=7)
    assert (bad.value.code, bad.value.param) == ("invalid_request", "temperature")
    with pytest.raises(openai.BadRequestError) as unknown:
        sdk.chat.completions.create(model=TINY, messages=MESSAGES, extra_body={"temprature": 1})
    assert (unknown.value.code, unknown.value.param) == ("unknown_parameter", "temprature")
    with pytest.raises(openai.BadRequestError) as long:
        sdk.chat.completions.create(model=TINY, messages=MESSAGES, max_tokens=10**6)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("no-such-model")


def test_a_timeout_is_a_transport_error(sdk: openai.OpenAI) -> None:
    """A time-out between two pieces is an error of the channel, not of the API, and the next call works."""
    with pytest.raises(TransportError):
        sdk.with_options(timeout=1e-6).chat.completions.create(model=TINY, messages=MESSAGES)
    assert sdk.models.list().data


def test_a_stream_that_is_left_early_frees_the_engine(sdk: openai.OpenAI) -> None:
    """Breaking off a long answer neither blocks nor breaks the next one."""
    stream = sdk.chat.completions.create(model=TINY, messages=MESSAGES, max_tokens=400, stream=True)
    with contextlib.closing(stream):
        next(iter(stream))
    assert text_of(sdk.chat.completions.create(model=TINY, messages=MESSAGES, max_tokens=2))


async def test_the_async_sdk_streams_and_can_be_cancelled(async_sdk: openai.AsyncOpenAI) -> None:
    """Concurrent streams arrive whole; a cancelled task ends at once, and the next call works."""

    async def stream(seed: int) -> str:
        chunks = await async_sdk.chat.completions.create(
            model=TINY, messages=MESSAGES, max_tokens=6, seed=seed, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    answers = await asyncio.gather(*(stream(seed) for seed in (1, 2, 1)))
    assert answers[0] == answers[2]
    begun = asyncio.Event()

    async def long() -> None:
        chunks = await async_sdk.chat.completions.create(
            model=TINY, messages=MESSAGES, max_tokens=400, stream=True
        )
        async for _ in chunks:
            begun.set()

    task = asyncio.create_task(long())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await stream(1) == answers[0]


async def test_a_full_queue_is_a_rate_limit_with_advice(tmp_path: Path) -> None:
    """When no place is left, the SDK raises its RateLimitError, and the answer says when to come back."""
    limits = tmp_path / "limits.toml"
    limits.write_text("[limits]\nmax_queue = 1\nmax_sequences = 1\n")
    with running_tiny(tmp_path, "--enclave-config", str(limits)) as small:
        async with small.async_client() as client:
            sdk = client.async_openai()
            await sdk.models.list()
            calls = [
                sdk.chat.completions.create(model=TINY, messages=MESSAGES, max_tokens=100) for _ in range(12)
            ]
            answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert refused
    assert all(answer.code == "queue_full" for answer in refused)
    assert all(int(answer.response.headers["retry-after"]) >= 1 for answer in refused)
    assert all(not isinstance(answer, BaseException) or answer in refused for answer in answers)
    assert len(refused) < len(answers)

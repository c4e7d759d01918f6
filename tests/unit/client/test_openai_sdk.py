# SPDX-License-Identifier: Apache-2.0
"""The unmodified openai SDK on top of the sealed transport."""

import httpx
import openai
import pytest
from memory_appliance import (
    MODEL,
    QUESTION,
    URL,
    WORDS,
    MemoryAppliance,
    policy,
    problem,
    serving,
    simulation,
)

from adyton import AsyncClient, Client
from adyton_protocol.errors import AppraisalError, OpenError, RelayRefused, TransportError, TruncatedMessage

MESSAGES = [{"role": "user", "content": QUESTION}]


def client_of(memory: MemoryAppliance) -> Client:
    """A synchronous client."""
    return Client(URL, simulation=simulation(), transport=memory.transport)


def async_client_of(memory: MemoryAppliance) -> AsyncClient:
    """An asynchronous client."""
    return AsyncClient(URL, simulation=simulation(), transport=memory.transport)


def test_the_sdk_completes_and_streams(memory: MemoryAppliance) -> None:
    """Unary and streamed completions arrive as the SDK's own types, each with its receipt."""
    client = client_of(memory)
    sdk = client.openai()
    whole = sdk.chat.completions.create(model=MODEL.name, messages=MESSAGES)
    assert whole.choices[0].message.content == "".join(WORDS)
    stream = sdk.chat.completions.create(model=MODEL.name, messages=MESSAGES, stream=True)
    words = [chunk.choices[0].delta.content for chunk in stream]
    assert tuple(words) == WORDS
    assert len(client.receipts) == 2
    assert [model.id for model in sdk.models.list()] == [MODEL.name]


async def test_the_async_sdk_completes_and_streams(memory: MemoryAppliance) -> None:
    """The same for the asynchronous SDK."""
    client = async_client_of(memory)
    sdk = client.async_openai()
    whole = await sdk.chat.completions.create(model=MODEL.name, messages=MESSAGES)
    assert whole.choices[0].message.content == "".join(WORDS)
    stream = await sdk.chat.completions.create(model=MODEL.name, messages=MESSAGES, stream=True)
    words = [chunk.choices[0].delta.content async for chunk in stream]
    assert tuple(words) == WORDS
    assert len(client.receipts) == 2


def test_a_cut_stream_raises_our_error_through_the_sdk(memory: MemoryAppliance) -> None:
    """The SDK stops reading at its end marker; therefore a cut anywhere, also after it, is noticed before it."""
    client = client_of(memory)
    for kept in (2, 4, 5, 6):
        memory.deliver = lambda chunks, kept=kept: list(chunks[:kept])
        with pytest.raises(TruncatedMessage):
            list(client.openai().chat.completions.create(model=MODEL.name, messages=MESSAGES, stream=True))
    assert client.receipts == ()


async def test_a_cut_stream_raises_our_error_through_the_async_sdk(memory: MemoryAppliance) -> None:
    """The same for the asynchronous SDK."""
    client = async_client_of(memory)
    for kept in (2, 4, 5, 6):
        memory.deliver = lambda chunks, kept=kept: list(chunks[:kept])
        stream = await client.async_openai().chat.completions.create(
            model=MODEL.name, messages=MESSAGES, stream=True
        )
        with pytest.raises(TruncatedMessage):
            [chunk async for chunk in stream]


def test_our_errors_pass_through_the_sdk_unchanged(memory: MemoryAppliance) -> None:
    """The SDK wraps httpx's errors only; ours reach the caller as they are, and are not retried."""
    memory.deliver = lambda chunks: [*chunks[:1], b"\x10" + b"x" * 16]
    with pytest.raises(OpenError):
        client_of(memory).openai().chat.completions.create(model=MODEL.name, messages=MESSAGES)
    refused = problem(503, "urn:adyton:problem:busy", "busy", **{"retry-after": "1"})
    memory.intercept = lambda _memory, sent: refused if sent.method == "POST" else None
    memory.sent.clear()
    with pytest.raises(RelayRefused):
        client_of(memory).openai().chat.completions.create(model=MODEL.name, messages=MESSAGES)
    assert len(memory.gateway_posts) == 1


def test_a_refused_appliance_gets_nothing_from_the_sdk(memory: MemoryAppliance) -> None:
    """Simulated evidence is refused by a client that was not told to accept it, also below the SDK."""
    client = Client(URL, policy=policy(), transport=memory.transport)
    with pytest.raises(AppraisalError):
        client.openai().chat.completions.create(model=MODEL.name, messages=MESSAGES)
    assert memory.gateway_posts == []


def test_refusals_of_the_enclave_are_the_sdks_own_errors(memory: MemoryAppliance) -> None:
    """A sealed 404 is the SDK's ``NotFoundError`` with our code."""
    with pytest.raises(openai.NotFoundError) as caught:
        client_of(memory).openai().chat.completions.create(model="unknown", messages=MESSAGES)
    assert caught.value.code == "model_not_found"


def test_nothing_of_the_sdks_environment_leaks(
    memory: MemoryAppliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, base URL, organisation and proxies of the environment are neither used nor sent."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-key")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.test/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "canary-organisation")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with serving(memory) as url, Client(url, simulation=simulation()) as client:
        client.openai().chat.completions.create(model=MODEL.name, messages=MESSAGES)
    assert "canary" not in repr([(sent.path, sent.headers) for sent in memory.sent])
    assert "canary" not in repr(memory.inner[-1].headers)


def test_what_goes_around_the_transport_meets_a_name_that_never_resolves(memory: MemoryAppliance) -> None:
    """A WebSocket or a replaced HTTP client fails instead of reaching the host in the clear."""
    sdk = client_of(memory).openai()
    assert sdk.base_url.host == "adyton.invalid"
    reached: list[httpx.Request] = []
    plain = httpx.Client(
        transport=httpx.MockTransport(lambda request: reached.append(request) or httpx.Response(500))
    )
    with pytest.raises(openai.InternalServerError):
        sdk.with_options(http_client=plain).models.list()
    assert {request.url.host for request in reached} == {"adyton.invalid"}


def test_over_a_real_socket(memory: MemoryAppliance) -> None:
    """The same over HTTP, and a connection that is cut in mid-answer is the documented error."""
    with serving(memory) as url, Client(url, simulation=simulation()) as client:
        sdk = client.openai()
        stream = sdk.chat.completions.create(model=MODEL.name, messages=MESSAGES, stream=True)
        assert [chunk.choices[0].delta.content for chunk in stream] == list(WORDS)
        memory.deliver = lambda chunks: [*chunks[:2], ConnectionAbortedError()]
        with pytest.raises(TruncatedMessage):
            list(sdk.chat.completions.create(model=MODEL.name, messages=MESSAGES, stream=True))
    with (
        pytest.raises(TransportError, match="nothing answers"),
        Client(url, simulation=simulation()) as client,
    ):
        client.verify()


async def test_over_a_real_socket_asynchronously(memory: MemoryAppliance) -> None:
    """The same on an event loop."""
    with serving(memory) as url:
        async with AsyncClient(url, simulation=simulation()) as client:
            sdk = client.async_openai()
            stream = await sdk.chat.completions.create(model=MODEL.name, messages=MESSAGES, stream=True)
            assert [chunk.choices[0].delta.content async for chunk in stream] == list(WORDS)
            memory.deliver = lambda chunks: [*chunks[:2], ConnectionAbortedError()]
            stream = await sdk.chat.completions.create(model=MODEL.name, messages=MESSAGES, stream=True)
            with pytest.raises(TruncatedMessage):
                [chunk async for chunk in stream]

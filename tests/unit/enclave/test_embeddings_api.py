# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/embeddings``: what goes in, what comes out, what is refused."""

import base64
import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from unit.enclave.harness import CHAT, Enclave, FakeEngine, FakeModel, Inner

from adyton_enclave.api.embedding_request import parse_embedding_call
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.config import parse_configuration
from adyton_protocol.errors import ConfigError, InvalidRequest, QueueFull

PATH = {"path": "/v1/embeddings"}
LIMITS = RequestLimits(max_candidates=1, max_prompts=1, max_inputs=3, max_input_tokens=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["model", "input", "encoding_format", "dimensions", "user", "privacy", "other"])


@pytest.fixture
def enclave() -> Enclave:
    """An enclave over a scripted engine."""
    return Enclave()


def vectors(inner: Inner) -> list[list[float]]:
    """The vectors of an answer in the order of their indices."""
    answer = CreateEmbeddingResponse.model_validate(inner.json(), strict=True)
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return [item.embedding for item in answer.data]


async def test_the_answer_is_what_the_sdk_expects(enclave: Enclave) -> None:
    """The SDK's own type validates it; usage counts every input; vectors have length one."""
    inner = await enclave.ask({"model": "fake", "input": ["hello", "you"]}, **PATH)
    answer = CreateEmbeddingResponse.model_validate(inner.json(), strict=True)
    assert (answer.model, answer.object) == ("fake", "list")
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (8, 8)
    first, second = vectors(inner)
    expected = np.array([5, 2, ord("h"), 0])
    assert np.allclose(first, expected / np.linalg.norm(expected), rtol=1e-6)
    assert np.isclose(np.linalg.norm(second), 1.0)
    assert enclave.engine.embedded[0].timeout_s == 600


@pytest.mark.parametrize(
    ("given_input", "expected"),
    [
        ("ab", ((97, 98),)),
        (["ab", "c"], ((97, 98), (99,))),
        ([7, 8], ((7, 8),)),
        ([[7, 8], [9]], ((7, 8), (9,))),
        (["a", [9]], ((97,), (9,))),
    ],
)
async def test_every_form_of_input_is_taken(
    enclave: Enclave, given_input: object, expected: tuple[tuple[int, ...], ...]
) -> None:
    """A text, texts, token ids, arrays of them."""
    inner = await enclave.ask({"input": given_input}, **PATH)
    assert inner.status == 200
    assert enclave.engine.embedded[0].inputs == expected


async def test_base64_holds_the_same_numbers(enclave: Enclave) -> None:
    """Little-endian float32, as the SDK decodes it."""
    plain = await enclave.ask({"input": "hello"}, **PATH)
    packed = await enclave.ask({"input": "hello", "encoding_format": "base64"}, **PATH)
    data = base64.b64decode(packed.json()["data"][0]["embedding"], validate=True)
    assert np.frombuffer(data, dtype="<f4").tolist() == plain.json()["data"][0]["embedding"]


async def test_the_receipt_covers_the_answer(enclave: Enclave) -> None:
    """Model identity, the whole body, and usage."""
    sealed = enclave.seal({"input": "hello"}, **PATH)
    inner = sealed.open(await enclave.post(sealed.bytes, sealed.media_type))
    verified = sealed.check_receipt(inner, enclave.keyset)
    assert verified.receipt.endpoint == "/v1/embeddings"
    types = [event.type for event in verified.receipt.events]
    assert types == ["request.received", "model.identity", "generation.finished", "response.returned"]


async def test_shorter_vectors_only_where_the_model_was_trained_for_it(enclave: Enclave) -> None:
    """``dimensions`` cuts and brings to length one again; elsewhere it is refused by name."""
    assert (await enclave.ask({"input": "hello", "dimensions": 4}, **PATH)).status == 200
    refused = await enclave.ask({"input": "hello", "dimensions": 2}, **PATH)
    assert (refused.status, refused.error()["code"]) == (400, "unsupported_parameter")
    assert refused.error()["param"] == "dimensions"
    trained = Enclave(model_extra="embeddings = true\nmatryoshka = true")
    inner = await trained.ask({"input": "hello", "dimensions": 2}, **PATH)
    assert np.allclose(vectors(inner)[0], np.array([5, 2]) / np.sqrt(29), rtol=1e-6)
    for dimensions in (0, 5, 2**40):
        wrong = await trained.ask({"input": "hello", "dimensions": dimensions}, **PATH)
        assert (wrong.status, wrong.error()["param"]) == (400, "dimensions")
    assert len(trained.engine.embedded) == 1


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "invalid_request"),
        ({"input": ""}, "input", "invalid_request"),
        ({"input": []}, "input", "invalid_request"),
        ({"input": ["a", ""]}, "input", "invalid_request"),
        ({"input": [[]]}, "input", "invalid_request"),
        ({"input": [True]}, "input", "invalid_request"),
        ({"input": [-1]}, "input", "invalid_request"),
        ({"input": {"text": "a"}}, "input", "invalid_request"),
        ({"input": ["a"] * 4}, "input", "invalid_request"),
        ({"input": "a" * 21}, "input", "invalid_request"),
        ({"input": ["a" * 11, "a" * 10]}, "input", "invalid_request"),
        ({"input": [5] * 21}, "input", "invalid_request"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "invalid_request"),
        ({"input": "a", "privacy": "none"}, "privacy", "invalid_request"),
        ({"input": "a", "model": "other"}, "model", "model_not_found"),
        ({"input": "a", "stream": True}, "stream", "unknown_parameter"),
    ],
)
async def test_what_is_wrong_is_named(body: dict[str, object], param: str, code: str) -> None:
    """OpenAI's error shape with the field at fault, and nothing is computed."""
    enclave = Enclave("[limits]\nmax_inputs = 3\nmax_input_tokens = 20")
    inner = await enclave.ask(body, **PATH)
    assert inner.status == (404 if code == "model_not_found" else 400)
    assert (inner.error()["param"], inner.error()["code"]) == (param, code)
    assert enclave.engine.embedded == []


async def test_a_model_serves_what_the_operator_says() -> None:
    """A generator without embeddings embeds nothing; an embedding model answers nothing; ``default`` finds each."""
    engine = FakeEngine()
    engine.models = {"fake": FakeModel(embedding_width=0)}
    refused = await Enclave(engine=engine).ask({"model": "fake", "input": "a"}, **PATH)
    assert (refused.status, refused.error()["code"]) == (400, "model_unsuitable")
    engine.models = {"fake": FakeModel(generates=False)}
    enclave = Enclave(engine=engine)
    refused = await enclave.ask(CHAT)
    assert (refused.status, refused.error()["code"]) == (400, "model_unsuitable")
    assert (await enclave.ask({"input": "a"}, **PATH)).status == 200
    without = {name: value for name, value in CHAT.items() if name != "model"}
    assert (await enclave.ask(without)).error()["code"] == "model_not_found"


async def test_refusals_of_the_engine_reach_the_caller(enclave: Enclave) -> None:
    """A full queue is a 429 that says when to come back."""
    enclave.engine.refusal = QueueFull("too many requests wait", retry_after_s=7)
    inner = await enclave.ask({"input": "a"}, **PATH)
    assert (inner.status, inner.headers["retry-after"]) == (429, "7")


async def test_what_is_ignored_is_said(enclave: Enclave) -> None:
    """``user`` changes nothing and comes back in the warning header."""
    inner = await enclave.ask({"input": "a", "user": "somebody"}, **PATH)
    assert inner.headers["adyton-warning"] == "ignored: user"


async def test_large_requests_and_answers_are_whole(enclave: Enclave) -> None:
    """Beside the event loop, the same as in it."""
    inner = await enclave.ask({"input": ["hello you"] * 2048}, **PATH)
    assert len(vectors(inner)) == 2048
    assert len(set(map(tuple, vectors(inner)))) == 1


@given(st.dictionaries(FIELDS, JSON, max_size=5))
def test_no_body_raises_anything_else(body: dict[str, object]) -> None:
    """Every body is a call or an InvalidRequest that names a field."""
    with contextlib.suppress(InvalidRequest):
        call = parse_embedding_call(json.dumps(body).encode(), LIMITS)
        assert call.inputs
        assert all(call.inputs)


def _model(lines: str) -> bytes:
    head = 'version = 1\nattester = "gramine"\n[[model]]\nname = "m"\npath = "m.gguf"\nn_ctx = 64\n'
    return f'{head}content = "sha256:{"a" * 64}"\nweights = "sha256:{"b" * 64}"\n{lines}'.encode()


def test_the_configuration_says_what_a_model_may_do() -> None:
    """Off unless asked for; an embedding model embeds; contradictions are refused."""
    (plain,) = parse_configuration(_model("")).models
    assert (plain.role, plain.embeddings, plain.matryoshka) == ("generator", False, False)
    (both,) = parse_configuration(_model("embeddings = true")).models
    assert (both.role, both.embeddings) == ("generator", True)
    (only,) = parse_configuration(_model('role = "embedding"\nmatryoshka = true')).models
    assert (only.role, only.embeddings, only.matryoshka) == ("embedding", True, True)
    for wrong in ('role = "embedding"\nembeddings = false', "matryoshka = true", 'role = "scorer"'):
        with pytest.raises(ConfigError):
            parse_configuration(_model(wrong))

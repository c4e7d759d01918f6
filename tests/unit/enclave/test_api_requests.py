# SPDX-License-Identifier: Apache-2.0
"""Requests are parsed at the edge: complete, typed and bounded, or refused with the name of the field."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.enclave.harness import CHAT

from adyton_enclave.api.chat_request import parse_chat_request
from adyton_enclave.api.chat_task import ChatTask
from adyton_enclave.api.completion_request import CompletionRequest, parse_completion_request
from adyton_enclave.api.errors import UnknownParameter, UnsupportedParameter
from adyton_enclave.api.parameters import CHAT as CHAT_PATH
from adyton_enclave.api.parameters import COMPLETIONS as COMPLETIONS_PATH
from adyton_enclave.api.parameters import PARAMETERS, Parameter, Treatment
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.privacy import Profile
from adyton_protocol.errors import InvalidRequest

LIMITS = RequestLimits(max_candidates=16, max_prompts=4)
TEXT: dict[str, object] = {"prompt": "x"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "model", "messages", "prompt", "n", "max_tokens", "max_completion_tokens", "stop", "temperature", "top_p",
        "top_k", "min_p", "seed", "logprobs", "top_logprobs", "stream", "stream_options", "privacy", "user", "tools",
        "response_format", "frequency_penalty", "echo", "best_of", "logit_bias", "unknown",
        "tool_choice", "parallel_tool_calls", "reasoning_effort",
        "chat_template_kwargs",
    ]
)  # fmt: skip


def chat(body: object) -> ChatTask:
    """Parse a chat request."""
    return parse_chat_request(json.dumps(body).encode(), LIMITS)


def completion(body: object) -> CompletionRequest:
    """Parse a completion request."""
    return parse_completion_request(json.dumps(body).encode(), LIMITS)


def test_a_minimal_chat_request() -> None:
    """Messages suffice; everything else is the model's default."""
    parsed = chat({"messages": [{"role": "user", "content": "hello"}]})
    assert parsed.messages == ({"role": "user", "content": "hello"},)
    assert parsed.options.model == "default"
    assert parsed.options.n == 1
    assert parsed.options.temperature is None
    assert parsed.options.privacy is None
    assert not parsed.options.stream


def test_every_field_is_taken() -> None:
    """What is served arrives as it was meant."""
    parsed = chat(
        CHAT
        | {
            "n": 3, "max_completion_tokens": 7, "stop": ["a", "b"], "temperature": 0, "top_p": 0.5, "top_k": 40,
            "min_p": 0.1, "seed": -5, "logprobs": True, "top_logprobs": 2, "stream": True,
            "stream_options": {"include_usage": True}, "privacy": "cadence", "user": "somebody",
            "frequency_penalty": 0.5, "presence_penalty": -2, "repetition_penalty": 1.1,
            "logit_bias": {"9": -100, "05": 2.5},
        }
    )  # fmt: skip
    options = parsed.options
    assert (options.n, options.max_tokens, options.stop, options.seed) == (3, 7, ("a", "b"), -5)
    assert (options.temperature, options.top_p, options.top_k, options.min_p) == (0.0, 0.5, 40, 0.1)
    assert (options.logprobs, options.stream, options.include_usage) == (2, True, True)
    assert options.privacy is Profile.CADENCE
    penalties = (options.frequency_penalty, options.presence_penalty, options.repetition_penalty)
    assert penalties == (0.5, -2.0, 1.1)
    assert options.logit_bias == ((5, 2.5), (9, -100.0))
    assert options.ignored == ("user",)


def test_text_parts_and_developer_messages() -> None:
    """Content parts are joined; ``developer`` is OpenAI's newer word for ``system``."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    parsed = chat({"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}]})
    assert parsed.messages == ({"role": "system", "content": "s"}, {"role": "user", "content": "ab"})


def test_an_answer_of_the_sdk_can_be_sent_back() -> None:
    """``message.model_dump()`` of an earlier answer, null fields and all, is a valid message."""
    message = {
        "content": "answer", "refusal": None, "role": "assistant", "annotations": None, "audio": None,
        "function_call": None, "tool_calls": None,
    }  # fmt: skip
    assert chat({"messages": [message]}).messages == ({"role": "assistant", "content": "answer"},)


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": "2"}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"seed": 2**63}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": {}}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"presence_penalty": "x"}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logit_bias": []}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {"5": True}}, "logit_bias"),
        ({"logit_bias": {"5": "1"}}, "logit_bias"),
        ({"logit_bias": {"hello": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"\u0661": 1}}, "logit_bias"),
        ({"logit_bias": {"9" * 11: 1}}, "logit_bias"),
        ({"logit_bias": {"5": 1, "05": 1}}, "logit_bias"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        ({"privacy": "loud"}, "privacy"),
        ({"privacy": 1}, "privacy"),
        ({"model": 5}, "model"),
        ({"model": "x" * 200}, "model"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_a_wrong_field_is_named(extra: dict[str, object], param: str) -> None:
    """The error's ``param`` is the path of the field at fault."""
    with pytest.raises(InvalidRequest) as caught:
        chat(CHAT | extra)
    assert caught.value.param == param
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("field", "asks", "neutral"),
    [
        ("modalities", ["text", "audio"], ["text"]),
        ("store", True, False),
        ("functions", [{}], []),
        ("validation", {}, None),
    ],
)
def test_what_is_not_served_is_refused_unless_it_asks_for_nothing(
    field: str, asks: object, neutral: object
) -> None:
    """No field is silently ignored; a default value that SDKs send along does no harm."""
    with pytest.raises(UnsupportedParameter) as caught:
        chat(CHAT | {field: asks})
    assert caught.value.param == field
    chat(CHAT | {field: neutral})


def test_what_is_no_text_is_refused() -> None:
    """Images, deprecated functions and tools of other types cannot be served, and the error says so."""
    for message in (
        {"role": "function", "content": "x", "name": "f"},
        {"role": "assistant", "content": "x", "tool_calls": [{"id": "1", "type": "custom"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
    ):
        with pytest.raises(UnsupportedParameter):
            chat({"messages": [message]})


@pytest.mark.parametrize(
    ("prompt", "parsed"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        (["a", [2]], ("a", (2,))),
        ("", ("",)),
    ],
)
def test_prompts_of_every_shape(prompt: object, parsed: object) -> None:
    """A text, several, token ids, or several of them."""
    assert completion({"prompt": prompt}).prompts == parsed


@pytest.mark.parametrize(
    "prompt", [None, [], [[]], 5, [1, "a"], [-1], [1.5], [True], {"a": 1}, [[["a"]]], ["a"] * 5, [2**40]]
)
def test_a_wrong_prompt_is_named(prompt: object) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidRequest) as caught:
        completion({"prompt": prompt})
    assert caught.value.param == "prompt"


def test_best_of_is_at_least_n() -> None:
    """More candidates than choices are a matter of whole answers: a stream cannot take back what it said."""
    assert completion(TEXT | {"best_of": 3, "n": 2}).options.candidates == 3
    assert completion(TEXT | {"n": 2}).options.candidates == 2
    completion(TEXT | {"best_of": 2, "n": 2, "stream": True})
    for extra in ({"best_of": 1, "n": 2}, {"best_of": 2, "stream": True}, {"best_of": 17}, {"best_of": 0}):
        with pytest.raises(InvalidRequest) as caught:
            completion(TEXT | extra)
        assert caught.value.param == "best_of"


def test_echo_excludes_logprobs() -> None:
    """Those of the prompt are not computed, and leaving them out in silence would be a wrong answer."""
    assert completion(TEXT | {"echo": True}).echo
    with pytest.raises(InvalidRequest) as caught:
        completion(TEXT | {"echo": True, "logprobs": 0})
    assert caught.value.param == "echo"


def test_harmless_parameters_are_ignored_by_name() -> None:
    """Client code does not break on labels and hints; which ones were dropped is told, values are not."""
    extra = {"user": "u", "metadata": {"a": "b"}, "verbosity": "low", "store": False}
    assert chat(CHAT | extra).options.ignored == ("user", "metadata", "verbosity")


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_the_table_is_what_the_parser_does(parameter: Parameter) -> None:
    """Supported: taken or found wrong. Ignored: named. Refused: refused. Everywhere else: unknown."""
    for endpoint, parse, base in ((CHAT_PATH, chat, CHAT), (COMPLETIONS_PATH, completion, TEXT)):
        body = base | {parameter.name: {"no": ["such value"]}}
        if endpoint not in parameter.endpoints:
            if not any(other.name == parameter.name and endpoint in other.endpoints for other in PARAMETERS):
                with pytest.raises(UnknownParameter):
                    parse(body)
        elif parameter.treatment is Treatment.IGNORED:
            assert parse(body).options.ignored == (parameter.name,)
        else:
            with pytest.raises(InvalidRequest) as caught:
                parse(body)
            has_members = parameter.name in {"stream_options", "scaling"}
            assert not isinstance(caught.value, UnknownParameter) or has_members
            assert isinstance(caught.value, UnsupportedParameter) == (
                parameter.treatment is Treatment.REFUSED
            )


def test_completion_logprobs_are_a_number() -> None:
    """Zero asks for the log-probabilities of the drawn tokens alone."""
    assert completion(TEXT | {"logprobs": 0}).options.logprobs == 0
    assert completion(TEXT).options.logprobs is None
    with pytest.raises(InvalidRequest):
        completion(TEXT | {"logprobs": True})


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"messages": 1, "messages": 2}',
        b'{"temperature": NaN}', b'{"temperature": Infinity}', b'{"model": "\\ud800"}', b'{"n": ' + b"9" * 5000 + b"}",
        b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
def test_malformed_json_is_one_error(body: bytes) -> None:
    """Not UTF-8, not JSON, not an object, ambiguous, or not Unicode: refused, without quoting the body."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat_request(body, LIMITS)
    assert caught.value.__cause__ is None


def test_messages_of_errors_never_quote_values() -> None:
    """What the caller wrote does not come back in an error, so that it cannot end up in anybody's log."""
    canary = "canary-7f3a"
    for extra in (
        {"temperature": canary},
        {"privacy": canary},
        {"messages": [{"role": canary, "content": 1}]},
    ):
        with pytest.raises(InvalidRequest) as caught:
            chat(CHAT | extra)
        assert canary not in str(caught.value)


def test_an_unknown_name_is_shown_cut_and_printable() -> None:
    """The one thing that is quoted is the name of an unknown field, harmlessly."""
    with pytest.raises(UnknownParameter) as caught:
        chat(CHAT | {"\x1b[31m" + "x" * 500: 1})
    assert len(str(caught.value)) < 120
    assert "\x1b" not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(body: bytes) -> None:
    """Whatever bytes arrive, the outcome is a request or an InvalidRequest."""
    for parse in (parse_chat_request, parse_completion_request):
        with contextlib.suppress(InvalidRequest):
            parse(body, LIMITS)


@given(st.dictionaries(FIELDS, JSON, max_size=6), st.booleans())
def test_any_fields_parse_or_are_refused(extra: dict[str, object], is_chat: bool) -> None:
    """The same for JSON objects with our field names and arbitrary values; what parses is within bounds."""
    with contextlib.suppress(InvalidRequest):
        options = (chat(CHAT | extra) if is_chat else completion(TEXT | extra)).options
        assert 1 <= options.n <= 16
        assert options.temperature is None or 0 <= options.temperature <= 2
        assert options.logprobs is None or 0 <= options.logprobs <= 20

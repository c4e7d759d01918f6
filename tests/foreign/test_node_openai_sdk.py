# SPDX-License-Identifier: Apache-2.0
"""The ordinary calls of OpenAI's own Node SDK, unmodified, over a sealed `fetch` of foreign parts."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from appliance import Appliance
from tiny_appliance import TINY

NPM = Path(__file__).parent / "npm"

pytestmark = pytest.mark.skipif(
    not (NPM / "node_modules" / "openai").is_dir() or not shutil.which("node"),
    reason="needs Node.js and `make foreign`",
)


@pytest.fixture(scope="module")
def results(tiny_appliance: Appliance) -> Any:
    """What the calls gave, by name; one process makes them all."""
    done = subprocess.run(
        ["node", "openai_calls.mjs", tiny_appliance.url, TINY],
        cwd=NPM, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def text_of(chunks: Any) -> str:
    """Deltas of the first choice, joined."""
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


def test_node_lists_models(results: Any) -> None:
    """The model is listed and retrieved."""
    assert TINY in [model["id"] for model in results["models"]]
    assert results["model"] in results["models"]


def test_node_gets_whole_answers(results: Any) -> None:
    """Chat with two choices, and a plain completion."""
    answer = results["chat"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["completion_tokens"] == 8
    assert results["completion"]["object"] == "text_completion"
    assert results["completion"]["choices"][0]["finish_reason"] == "length"


def test_node_streams(results: Any) -> None:
    """Chunks arrive one by one, end with the usage, and add up to the whole answer of the same seed."""
    chunks = results["stream"]
    assert text_of(chunks) == results["chat"]["choices"][0]["message"]["content"]
    assert len(chunks) >= 4
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    assert results["streamHelper"]["choices"][0]["message"]["content"] == text_of(chunks)


def test_node_gets_logprobs(results: Any) -> None:
    """Each token has its alternatives."""
    content = results["logprobs"]["choices"][0]["logprobs"]["content"]
    assert [len(token["top_logprobs"]) for token in content] == [2, 2, 2]


def test_node_gets_what_a_schema_demands(results: Any) -> None:
    """A JSON schema is kept to by a model that knows nothing of it."""
    answer = results["jsonSchema"]
    assert isinstance(answer["warm"], bool)
    assert answer["city"] in {"Thebes", "Delphi"}


def test_node_calls_tools(results: Any) -> None:
    """A required call, whole and streamed, and the conversation that goes on with its result."""
    whole, streamed = results["toolCall"]["first"], results["toolStream"]
    for answer in (whole, streamed):
        (call,) = answer["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "get_weather"
        assert json.loads(call["function"]["arguments"])["city"] in {"Thebes", "Delphi"}
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert results["toolCall"]["second"]["choices"][0]["message"]["content"]


def test_node_gets_responses(results: Any) -> None:
    """Whole and streamed, the same text; the last event holds the whole response."""
    whole, events = results["response"], results["responseStream"]
    assert whole["output_text"]
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.incomplete"
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == whole["output_text"]
    assert events[-1]["response"]["usage"] == whole["usage"]


def test_node_gets_responses_by_schema_and_calls_tools(results: Any) -> None:
    """A document by schema; a call whose output goes back as an item."""
    assert set(results["responseSchema"]) == {"warm", "city"}
    call = results["responseTool"]["call"]
    assert call["name"] == "get_weather"
    assert json.loads(call["arguments"])["city"] in {"Thebes", "Delphi"}
    assert results["responseTool"]["text"]


def test_node_gets_embeddings(results: Any) -> None:
    """The SDK asks for base64 and decodes it; the vectors have length one and differ."""
    first, second = results["embeddings"]
    assert sum(value * value for value in first) == pytest.approx(1.0, abs=1e-5)
    assert first != second


def test_node_raises_its_own_errors(results: Any) -> None:
    """400 and 404 arrive as the SDK's exceptions."""
    bad, missing = results["badRequest"], results["unknownModel"]
    assert (bad["error"], bad["status"], bad["code"]) == ("BadRequestError", 400, "invalid_request")
    assert (missing["error"], missing["code"]) == ("NotFoundError", "model_not_found")


def test_node_can_abort_a_stream(results: Any) -> None:
    """An aborted stream ends, and the next call works."""
    # What one sealed chunk held arrives together; nothing near the 400 that were asked for.
    assert 3 <= results["abort"]["events"] < 300
    assert results["abort"]["after"] >= 1

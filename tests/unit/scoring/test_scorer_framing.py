# SPDX-License-Identifier: Apache-2.0
"""Framing: nobody writes turns or tags by text, and an adapter that does not suit its model is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_gguf import make_tiny_gguf
from tiny_scorers import TinyScorer

from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.scoring import Adapter, Scorer, parse_adapter
from adyton_enclave.scoring.adapter import NamedToken
from adyton_enclave.scoring.framing import Framer
from adyton_enclave.scoring.layout import Slot, TextLayout, parse_template
from adyton_protocol.errors import AdapterError

Start = Callable[..., Scorer]
Scorers = Callable[[str], TinyScorer]
HOSTILE = st.text() | st.lists(
    st.sampled_from(
        ["<s>", "<step>", "<+>", "<|assistant|>", "<|eot_id|>", "<extra_0>", " ки", "+", "\n", "a"]
    )
).map("".join)


class Rendered:
    """A model whose chat template is a function of the test's."""

    def __init__(self, llama: LlamaModel, render: Callable[[Any], str]) -> None:
        self.llama = llama
        self.render_trusted = render


@pytest.fixture(scope="session")
def framers(scorers: Scorers) -> Callable[[str], Framer]:
    """Framers without an engine."""
    made: dict[str, Framer] = {}

    def get(name: str) -> Framer:
        if name not in made:
            tiny = scorers(name)
            model = LlamaModel(str(tiny.path), tiny.spec().pin)
            made[name] = Framer(parse_adapter(tiny.adapter.read_bytes()), Rendered(model, _llama3))
        return made[name]

    return get


def _llama3(messages: list[dict[str, str]]) -> str:
    turns = (
        f"<|start_header_id|>{message['role']}<|end_header_id|>\n\n{message['content']}<|eot_id|>"
        for message in messages
    )
    return "<|begin_of_text|>" + "".join(turns)


def _own_controls(framer: Framer) -> list[int]:
    """Control tokens of a prefix and of a step of harmless text."""
    controls = set(framer._vocabulary.control_tokens.values())
    laid = (*framer.prefix("a"), *framer.step("a", first=True).token_ids)
    return [token_id for token_id in laid if token_id in controls]


@pytest.mark.parametrize("name", ["adyton-words-scorer", "math-shepherd", "rlhflow", "qwen2.5-math-prm"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=HOSTILE, step=HOSTILE)
def test_text_forges_no_control_token(
    framers: Callable[[str], Framer], name: str, problem: str, step: str
) -> None:
    """Whatever problem and step say, the control tokens of the sequence are the adapter's own, in their order."""
    framer = framers(name)
    controls = set(framer._vocabulary.control_tokens.values())
    segment = framer.step(f"a{step}", first=True)
    laid = (*framer.prefix(f"a{problem}"), *segment.token_ids)
    assert [token_id for token_id in laid if token_id in controls] == _own_controls(framer)
    (read_at,) = segment.reads
    assert 0 <= read_at < len(segment.token_ids)


def test_a_user_defined_tag_is_not_written_by_text(tmp_path: Any) -> None:
    """llama.cpp makes user-defined tokens even of plain text; here they are cut in two."""
    tiny = make_tiny_gguf(tmp_path / "tiny.gguf", marks=("<tag>", "<good>", "<bad>"))
    model = LlamaModel(str(tiny.path), tiny.pin)
    tag, good, bad = range(tiny.n_vocab - 3, tiny.n_vocab)
    text = TEXT.format(tag=tag, good=good, bad=bad)
    framer = Framer(parse_adapter(text.encode()), Rendered(model, _llama3))
    assert tag in model.tokenize("<tag>", add_special=False, parse_special=False)
    token_ids = framer.step("is <tag> <good> <bad>", first=True).token_ids
    assert [token_id for token_id in token_ids if token_id in (tag, good, bad)] == [tag]
    assert framer.step("x", first=True).token_ids[-1] == tag
    model.close()


TEXT = """
version = 1
name = "marks"
kind = "tag-token"
[framing]
prefix = "{{problem}}"
step = "{{step}}{{tag}}"
[tag]
text = "<tag>"
id = {tag}
[labels]
good = {{ text = "<good>", id = {good} }}
bad = {{ text = "<bad>", id = {bad} }}
"""


def test_a_step_is_tokenised_alike_wherever_it_stands(framers: Callable[[str], Framer]) -> None:
    """Steps of a SentencePiece vocabulary get no space of their own in front, as in one text."""
    framer = framers("math-shepherd")
    vocabulary = framer._vocabulary
    texts = ("Step 1: a", "Step 2: the 1")
    laid = list(framer.prefix("the a"))
    for index, text in enumerate(texts):
        laid += framer.step(text, first=not index).token_ids
    whole = vocabulary.tokenize("the a Step 1: a ки\nStep 2: the 1 ки", add_special=True, parse_special=False)
    assert laid == whole


def _with(adapter: Adapter, **changes: Any) -> Adapter:
    return replace(adapter, **changes)


def test_an_adapter_for_another_vocabulary_is_refused(
    scorers: Scorers, framers: Callable[[str], Framer]
) -> None:
    """An id with another text, an id outside, a missing beginning of text, a read position outside the step."""
    framer = framers("adyton-words-scorer")
    model = Rendered(framer._vocabulary, _llama3)  # type: ignore[arg-type]
    adapter = framer._adapter
    layout = TextLayout(
        prefix=parse_template("{problem}"),
        first_step=parse_template("{step}{tag}"),
        step=parse_template("{step}{tag}"),
    )
    for wrong in (
        _with(adapter, tag=NamedToken(id=5, text="<step>")),
        _with(adapter, tag=NamedToken(id=10**6, text="<step>")),
        _with(adapter, offset=1),
        _with(adapter, offset=-3, layout=layout),
    ):
        with pytest.raises(AdapterError):
            Framer(wrong, model)
    Framer(_with(adapter, layout=layout), model)


@pytest.mark.parametrize(
    "render",
    [
        lambda messages: _llama3(messages[-2:]),
        lambda messages: _llama3(messages[::-1]),
        lambda messages: f"{len(messages)}" + _llama3(messages),
        lambda messages: _llama3(messages) + "end",
        lambda messages: _llama3([each for each in messages if each["role"] == "user"]),
        lambda _messages: "",
    ],
)
def test_a_template_that_is_not_regular_is_refused(
    framers: Callable[[str], Framer], render: Callable[[Any], str]
) -> None:
    """One that drops, reorders or counts turns, or closes the conversation, cannot be extended step by step."""
    framer = framers("rlhflow")
    with pytest.raises(AdapterError, match="chat template"):
        Framer(framer._adapter, Rendered(framer._vocabulary, render))  # type: ignore[arg-type]


def test_turns_begin_as_the_vocabulary_wants(framers: Callable[[str], Framer]) -> None:
    """Where the template leaves the beginning-of-text token out, it is put; never twice."""
    framer = framers("rlhflow")
    without = Framer(
        framer._adapter,
        Rendered(framer._vocabulary, lambda messages: _llama3(messages).removeprefix("<|begin_of_text|>")),  # type: ignore[arg-type]
    )
    assert without.prefix("a") == framer.prefix("a")
    assert framer.prefix("a").count(framer._vocabulary.bos) == 1
    assert Slot.BOS in without._layout.prefix

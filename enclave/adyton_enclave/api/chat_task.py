# SPDX-License-Identifier: Apache-2.0
"""A conversation to go on with, as every chat-like endpoint asks for it, and what the engine needs for it.

Nothing here knows how an endpoint words its requests and answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from adyton_enclave.api.answer_grammar import answer_grammar
from adyton_enclave.api.chat_messages import Message
from adyton_enclave.api.chat_reader import ChatReader
from adyton_enclave.api.generate import Guidance, Served, off_loop
from adyton_enclave.api.pieces import PlainReader, Reader
from adyton_enclave.api.reasoning import ReasoningSplitter
from adyton_enclave.api.scaling_request import ScalingCall
from adyton_enclave.api.template_options import TemplateOptions
from adyton_enclave.api.tool_calls import CallParser
from adyton_enclave.api.tool_prompt import with_tools
from adyton_enclave.api.tools import ToolSet
from adyton_enclave.api.types import Options
from adyton_enclave.engine.dialect import CALL_MARKS, Dialect
from adyton_enclave.scaling.refine import feedback_messages
from adyton_enclave.scaling.search import Feedback
from adyton_enclave.scaling.strategies import FollowUp

_CALL_ID_BYTES: Final = 12
_TAIL_TOKENS: Final = 8
"""Prompts that open the reasoning end with its mark and little white space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTask:
    """A parsed request.

    Attributes:
        messages: The caller's, checked; roles are system, user, assistant and tool.
        document: Checked schema of the JSON document that the answer's text has to be.
        tools: What may be called; None for nothing.
        size_bytes: Of the request; decides whether the prompt is prepared beside the event loop.
        scaling: What search was asked for, beside what the model's name may say.
    """

    options: Options
    messages: tuple[Message, ...] = field(repr=False)
    document: Mapping[str, object] | None = field(default=None, repr=False)
    tools: ToolSet | None = None
    template_options: TemplateOptions = field(default_factory=TemplateOptions)
    size_bytes: int
    scaling: ScalingCall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedChat:
    """What the engine needs, who reads its answer, and parameters that turned out to mean nothing here.

    Attributes:
        follow_up: Makes the prompt of the same conversation with earlier answers behind it.
    """

    prompt: tuple[int, ...] = field(repr=False)
    follow_up: FollowUp
    guidance: Guidance
    reader: Reader
    ignored: tuple[str, ...]


async def prepare_chat(task: ChatTask, served: Served, entropy: Callable[[int], bytes]) -> PreparedChat:
    """Render the conversation with the model's template and compile the grammar of its answer.

    Args:
        task: Attacker-controlled, parsed.
        served: The model.
        entropy: Source of random bytes, for ids of calls.

    Raises:
        InvalidRequest: The model cannot continue this conversation, or a schema cannot be enforced.
    """
    model = served.model
    dialect = model.dialect
    tools = () if task.tools is None else task.tools.tools
    messages, definitions = with_tools(_without_reasoning(task.messages, dialect), tools, dialect)
    variables, ignored = task.template_options.resolve(dialect)

    async def render(conversation: Sequence[Mapping[str, object]]) -> tuple[int, ...]:
        return await off_loop(
            lambda: model.apply_chat_template(conversation, tools=definitions, options=variables),
            task.size_bytes,
        )

    async def follow_up(feedback: Feedback) -> tuple[int, ...]:
        return await render([*messages, *_without_reasoning(feedback_messages(feedback), dialect)])

    prompt = await render(messages)
    reasoning = dialect.reasoning is not None and model.spell(prompt[-_TAIL_TOKENS:]).rstrip().endswith(
        dialect.reasoning[0]
    )
    grammar = answer_grammar(dialect, document=task.document, tools=task.tools, reasoning=reasoning)
    constraint = None
    if grammar is not None:
        param = "tools" if task.document is None else "response_format"
        constraint = await model.compile_grammar(grammar, param=param)
    marks = {*(dialect.reasoning or ()), *(CALL_MARKS if tools else ())}
    guidance = Guidance(
        prompt_field="messages",
        constraint=constraint,
        visible_control_ids=frozenset(
            token_id for mark, token_id in dialect.control_ids.items() if mark in marks
        ),
    )
    reader = _reader(task, dialect, entropy, reasoning=reasoning)
    return PreparedChat(prompt=prompt, follow_up=follow_up, guidance=guidance, reader=reader, ignored=ignored)


def problem_of(messages: Sequence[Message]) -> str:
    """What a scorer is told is asked: the last message of the user; empty if there is none."""
    for message in reversed(messages):
        content = message["content"]
        if message["role"] == "user" and isinstance(content, str):
            return content
    return ""


def _reader(task: ChatTask, dialect: Dialect, entropy: Callable[[int], bytes], *, reasoning: bool) -> Reader:
    marks, tools = dialect.reasoning, task.tools
    if marks is None and tools is None:
        return PlainReader()
    names = () if tools is None else tuple(tool.name for tool in tools.tools)
    return ChatReader(
        splitter=None if marks is None else lambda: ReasoningSplitter(marks, open_already=reasoning),
        parser=None if tools is None else lambda: CallParser(dialect.tool_format, names),
        new_call_id=lambda: "call_" + entropy(_CALL_ID_BYTES).hex(),
    )


def _without_reasoning(messages: Sequence[Message], dialect: Dialect) -> list[Message]:
    """Earlier answers without the reasoning in their text, which templates cut off but cannot see any more."""
    if dialect.reasoning is None:
        return list(messages)
    closing = dialect.reasoning[1]
    cleaned: list[Message] = []
    for message in messages:
        content = message["content"]
        if message["role"] == "assistant" and isinstance(content, str) and closing in content:
            cleaned.append({**message, "content": content.rpartition(closing)[2].lstrip("\n")})
        else:
            cleaned.append(message)
    return cleaned

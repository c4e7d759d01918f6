# SPDX-License-Identifier: Apache-2.0
"""A conversation to go on with, as every chat-like endpoint asks for it, and how it becomes a job.

Nothing here knows how an endpoint words its requests and answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from adyton_enclave.api.generate import Guidance, Served, off_loop
from adyton_enclave.api.pieces import PlainReader, Reader
from adyton_enclave.api.types import Options

Message = Mapping[str, object]
"""In OpenAI's shape, with content as one string: what chat templates take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTask:
    """A parsed request.

    Attributes:
        messages: The caller's, checked; roles are system, user and assistant.
        size_bytes: Of the request; decides whether the prompt is prepared beside the event loop.
    """

    options: Options
    messages: tuple[Message, ...] = field(repr=False)
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedChat:
    """What the engine needs, and who reads its answer."""

    prompt: tuple[int, ...] = field(repr=False)
    guidance: Guidance
    reader: Reader


async def prepare_chat(task: ChatTask, served: Served) -> PreparedChat:
    """Render the conversation with the model's template.

    Raises:
        InvalidRequest: The model cannot continue this conversation.
    """
    prompt = await off_loop(lambda: served.model.apply_chat_template(task.messages), task.size_bytes)
    return PreparedChat(prompt=prompt, guidance=Guidance(prompt_field="messages"), reader=PlainReader())

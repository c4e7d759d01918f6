# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/chat/completions``, parsed at the edge."""

from adyton_enclave.api.chat_messages import parse_messages
from adyton_enclave.api.chat_task import ChatTask
from adyton_enclave.api.fields import Fields, parse_object
from adyton_enclave.api.parameters import CHAT, treat
from adyton_enclave.api.response_format import parse_response_format
from adyton_enclave.api.scaling_request import parse_scaling
from adyton_enclave.api.template_options import parse_template_options
from adyton_enclave.api.tools import parse_tools
from adyton_enclave.api.types import MAX_TOKENS, MAX_TOP_LOGPROBS, RequestLimits, parse_options


def parse_chat_request(body: bytes, limits: RequestLimits) -> ChatTask:
    """Parse the attacker-controlled body of a chat completion.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    fields = Fields(parse_object(body))
    wants_logprobs = fields.flag("logprobs")
    top_logprobs = fields.whole("top_logprobs", low=0, high=MAX_TOP_LOGPROBS)
    if top_logprobs is not None and not wants_logprobs:
        raise fields.wrong("top_logprobs", "requires logprobs to be true")
    options = parse_options(
        fields,
        limits,
        max_tokens=_max_tokens(fields),
        logprobs=(top_logprobs or 0) if wants_logprobs else None,
        ignored=treat(fields, CHAT),
    )
    task = ChatTask(
        options=options,
        messages=parse_messages(fields),
        document=parse_response_format(fields),
        tools=parse_tools(fields),
        template_options=parse_template_options(fields),
        size_bytes=len(body),
        scaling=parse_scaling(fields, limits),
    )
    fields.finish()
    return task


def _max_tokens(fields: Fields) -> int | None:
    current = fields.whole("max_completion_tokens", low=1, high=MAX_TOKENS)
    deprecated = fields.whole("max_tokens", low=1, high=MAX_TOKENS)
    if current is not None and deprecated is not None and current != deprecated:
        raise fields.wrong("max_tokens", "contradicts max_completion_tokens")
    return deprecated if current is None else current

# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/chat/completions``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from types import MappingProxyType
from typing import Final

from adyton_enclave.api.answer import Desk, Job, serve
from adyton_enclave.api.chat_request import parse_chat_request
from adyton_enclave.api.chat_task import prepare_chat, problem_of
from adyton_enclave.api.errors import error_event
from adyton_enclave.api.events import Json, TextFrame, event
from adyton_enclave.api.generate import Served, usage_details_json
from adyton_enclave.api.pieces import Choice, Delta, Ended, Reader, ReasoningDelta, ToolCallDelta
from adyton_enclave.api.search_order import Occasion, find_searched, order_search
from adyton_enclave.api.search_report import SearchReport, members_of
from adyton_enclave.api.types import Options, RequestLimits
from adyton_enclave.engine import TextDelta, TokenLogprob, Usage
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.scaling.search import Progress
from adyton_protocol.errors import EngineError

_ID_BYTES: Final = 12


def fingerprint(served: Served) -> str:
    """``system_fingerprint``: the head of the model's identity digest."""
    return "fp_" + served.model.identity.removeprefix("sha256:")[:12]


def logprobs_json(logprobs: Iterable[TokenLogprob]) -> list[Json]:
    """Tokens with their log-probabilities, as OpenAI writes them."""
    return [
        {
            "token": entry.token,
            "bytes": list(entry.bytes),
            "logprob": entry.logprob,
            "top_logprobs": [
                {"token": top.token, "bytes": list(top.bytes), "logprob": top.logprob} for top in entry.top
            ],
        }
        for entry in logprobs
    ]


def _logprobs_json(logprobs: Iterable[TokenLogprob]) -> Json:
    return {"content": logprobs_json(logprobs), "refusal": None}


def _delta_json(piece: Delta) -> Json:
    match piece:
        case TextDelta():
            return {"content": piece.text}
        case ReasoningDelta():
            return {"reasoning_content": piece.text}
        case ToolCallDelta():
            call: Json = {"index": piece.call, "function": {"arguments": piece.arguments}}
            if piece.call_id is not None:
                call |= {"id": piece.call_id, "type": "function"}
                call["function"] = {"name": piece.name, "arguments": piece.arguments}
            return {"tool_calls": [call]}


def _message_json(choice: Choice) -> Json:
    text = "".join(choice.text)
    # OpenAI's content is null beside tool calls when the model said nothing else.
    content = None if choice.tool_calls and not text else text
    message: Json = {"role": "assistant", "content": content, "refusal": None}
    if choice.reasoning:
        message["reasoning_content"] = "".join(choice.reasoning)
    if choice.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": "".join(call.arguments)},
            }
            for call in choice.tool_calls
        ]
    return message


class ChatPresenter:
    """OpenAI's ``chat.completion`` and ``chat.completion.chunk`` objects."""

    def __init__(
        self, options: Options, served: Served, reader: Reader, *, answer_id: str, created: int
    ) -> None:
        self.answer_id = answer_id
        self._options = options
        self._reader = reader
        self._head: Json = {"id": answer_id, "object": "chat.completion.chunk", "created": created}
        self._tail: Json = {"model": served.model.name, "system_fingerprint": fingerprint(served)}
        if options.service_tier is not None:
            self._tail["service_tier"] = options.service_tier
        if options.stream and options.include_usage:
            self._tail["usage"] = None

        self._frames: dict[int, TextFrame] = {}

    def _text_chunk(self, index: int, text: str) -> bytes:
        return self._chunk(index, {"content": text}, logprobs=None, finish_reason=None)

    def _chunk(
        self,
        index: int,
        delta: Json,
        *,
        logprobs: Json | None,
        finish_reason: str | None,
        more: Mapping[str, object] = MappingProxyType({}),
    ) -> bytes:
        choice: Json = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return event({**self._head, **self._tail, "choices": [choice], **more})

    def opening(self, index: int) -> bytes:
        """A chunk that names the role."""
        delta: Json = {"role": "assistant", "content": ""}
        return self._chunk(index, delta, logprobs=None, finish_reason=None)

    def progress(self, progress: Progress) -> bytes:
        """A chunk without text."""
        more: Json = {"x_progress": asdict(progress)}
        return self._chunk(0, {}, logprobs=None, finish_reason=None, more=more)

    def delta(self, piece: Delta) -> bytes:
        """More text, reasoning or tool calls."""
        if self._options.logprobs is None and isinstance(piece, TextDelta):
            frame = self._frames.get(piece.index)
            if frame is None:
                frame = self._frames[piece.index] = TextFrame(partial(self._text_chunk, piece.index))
            return frame.fill(piece.text)
        logprobs = None if self._options.logprobs is None else _logprobs_json(piece.logprobs)
        return self._chunk(piece.index, _delta_json(piece), logprobs=logprobs, finish_reason=None)

    def finished(self, piece: Ended, report: SearchReport | None = None) -> bytes:
        """The end of a choice. A report that has no chunk of its own to come goes with it."""
        more = {} if self._options.include_usage else members_of(report)
        return self._chunk(piece.index, {}, logprobs=None, finish_reason=piece.finish_reason, more=more)

    def closing(self, usage: Usage, report: SearchReport | None = None) -> bytes:
        """A chunk without choices that holds the usage, if it was asked for, and the report."""
        if not self._options.include_usage:
            return b""
        counts = self._usage_json(usage, report)
        return event({**self._head, **self._tail, "choices": [], "usage": counts, **members_of(report)})

    def failed(self, error: EngineError) -> bytes:
        """The error alone."""
        return error_event(error)

    def whole(self, choices: Sequence[Choice], usage: Usage, report: SearchReport | None = None) -> Json:
        """The answer in one piece."""
        wants_logprobs = self._options.logprobs is not None
        return {
            **self._head,
            **self._tail,
            "object": "chat.completion",
            "choices": [
                {
                    "index": index,
                    "message": _message_json(choice),
                    "logprobs": _logprobs_json(choice.logprobs) if wants_logprobs else None,
                    "finish_reason": choice.finish_reason,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": self._usage_json(usage, report),
            **members_of(report),
        }

    def _usage_json(self, usage: Usage, report: SearchReport | None) -> Json:
        more = {} if report is None else report.token_details
        return usage_details_json(usage, reasoning_tokens=self._reader.reasoning_tokens, more=more)


async def complete_chat(
    desk: Desk,
    served: dict[str, Served],
    limits: RequestLimits,
    request: InnerRequest,
    facts: ExchangeFacts,
) -> InnerResponse:
    """Answer a chat completion.

    Raises:
        EngineError: The request is wrong or cannot be served.
    """
    task = parse_chat_request(request.body, limits)
    model, alias = find_searched(served, task.options.model)
    occasion = Occasion.of_chat(task, model, limits)
    order, options = order_search(task.scaling, alias, occasion)
    prepared = await prepare_chat(task, model, desk.entropy)
    answer_id = "chatcmpl-" + desk.entropy(_ID_BYTES).hex()
    job = Job(
        request=request,
        facts=facts,
        options=options,
        served=model,
        prompts=(prepared.prompt,),
        presenter=ChatPresenter(options, model, prepared.reader, answer_id=answer_id, created=desk.wall_s()),
        reader=prepared.reader,
        guidance=prepared.guidance,
        warnings=prepared.ignored,
        order=order,
        problem=problem_of(task.messages),
        follow_up=prepared.follow_up,
    )
    return await serve(desk, job)

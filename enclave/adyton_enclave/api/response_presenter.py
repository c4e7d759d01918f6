# SPDX-License-Identifier: Apache-2.0
"""OpenAI's ``response`` objects and the typed events of their streams.

An answer is a list of items: reasoning, a message, function calls. A stream opens an item with its first piece and
closes it when a piece of another item comes, so that items stand in the order in which the model wrote them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

from adyton_enclave.api.chat import logprobs_json
from adyton_enclave.api.errors import error_event
from adyton_enclave.api.events import Json, typed_event
from adyton_enclave.api.generate import Served
from adyton_enclave.api.pieces import Choice, Delta, Ended, EndReason, Reader, ReasoningDelta, ToolCallDelta
from adyton_enclave.api.response_request import ResponseTask
from adyton_enclave.api.search_report import SearchReport, members_of
from adyton_enclave.engine import TextDelta, TokenLogprob, Usage
from adyton_enclave.scaling.search import Progress
from adyton_protocol.errors import EngineError

Kind = Literal["reasoning", "message", "function_call"]
Status = Literal["in_progress", "completed", "incomplete", "failed"]

_PREFIXES: Final[dict[Kind, str]] = {"reasoning": "rs_", "message": "msg_", "function_call": "fc_"}
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


@dataclass(slots=True, kw_only=True)
class _Item:
    """One item of the output as it grows."""

    kind: Kind
    item_id: str
    call: int = -1
    call_id: str = ""
    name: str = field(default="", repr=False)
    text: list[str] = field(default_factory=list, repr=False)
    logprobs: list[TokenLogprob] = field(default_factory=list, repr=False)
    status: Status = "in_progress"

    def part(self, *, with_logprobs: bool) -> Json:
        """The content part of a message or of reasoning."""
        text = "".join(self.text)
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        part: Json = {"type": "output_text", "text": text, "annotations": []}
        return {**part, "logprobs": logprobs_json(self.logprobs) if with_logprobs else []}

    def json(self, *, with_logprobs: bool) -> Json:
        """The item with what it holds."""
        if self.kind == "function_call":
            return {**self._head(), "arguments": "".join(self.text)}
        return {**self._head(), "content": [self.part(with_logprobs=with_logprobs)]}

    def opened(self) -> Json:
        """The item before anything was said in it."""
        empty: Json = {"arguments": ""} if self.kind == "function_call" else {"content": []}
        return {**self._head(), "status": "in_progress", **empty}

    def _head(self) -> Json:
        head: Json = {"id": self.item_id, "type": self.kind, "status": self.status}
        match self.kind:
            case "function_call":
                return {**head, "call_id": self.call_id, "name": self.name}
            case "reasoning":
                return {**head, "summary": []}
            case "message":
                return {**head, "role": "assistant"}


class ResponsePresenter:
    """Words the one choice of a response."""

    def __init__(
        self,
        task: ResponseTask,
        served: Served,
        reader: Reader,
        *,
        unique: str,
        wall_s: Callable[[], int],
    ) -> None:
        """Begin an answer.

        Args:
            task: The request.
            served: The model.
            reader: Knows how many tokens were reasoning.
            unique: Part of all names in this answer.
            wall_s: Unix seconds.
        """
        self.answer_id = "resp_" + unique
        self._unique = unique
        self._wall_s = wall_s
        self._reader = reader
        self._with_logprobs = task.chat.options.logprobs is not None
        self._items: list[_Item] = []
        self._sequence = 0
        self._reason: EndReason = "stop"
        options, defaults = task.chat.options, served.model.defaults
        self._head: Json = {
            "id": self.answer_id,
            "object": "response",
            "created_at": wall_s(),
            "model": served.model.name,
            "background": False,
            "error": None,
            "max_tool_calls": None,
            "metadata": {},
            "previous_response_id": None,
            "service_tier": options.service_tier or "default",
            "store": False,
            "temperature": defaults.temperature if options.temperature is None else options.temperature,
            "top_p": defaults.top_p if options.top_p is None else options.top_p,
            "truncation": "disabled",
            "user": None,
            **task.echo,
        }

    def opening(self, _index: int) -> bytes:
        """The response as it begins; there is one choice."""
        response = self._response("in_progress", None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def progress(self, progress: Progress) -> bytes:
        """The response as it was, which readers take again without harm."""
        response = self._response("in_progress", None)
        return self._event("response.in_progress", response=response, x_progress=asdict(progress))

    def delta(self, piece: Delta) -> bytes:
        """More of an item, after the end of the last one and the beginning of its own if need be."""
        last = self._last
        item = self._place(piece)
        opened = b"" if item is last else self._ending(last) + self._beginning(item)
        at: Json = {"item_id": item.item_id, "output_index": len(self._items) - 1}
        match piece:
            case ToolCallDelta():
                if not piece.arguments:
                    return opened
                return opened + self._event(
                    "response.function_call_arguments.delta", **at, delta=piece.arguments
                )
            case ReasoningDelta():
                return opened + self._event(
                    "response.reasoning_text.delta", **at, content_index=0, delta=piece.text
                )
            case TextDelta():
                logprobs = logprobs_json(piece.logprobs) if self._with_logprobs else []
                return opened + self._event(
                    "response.output_text.delta", **at, content_index=0, delta=piece.text, logprobs=logprobs
                )

    def finished(self, piece: Ended, _report: SearchReport | None = None) -> bytes:
        """The end of the last item; an answer without a word is an empty message."""
        opened = b"" if self._items else self._beginning(self._add("message"))
        self._end(piece)
        return opened + self._ending(self._last)

    def closing(self, usage: Usage, report: SearchReport | None = None) -> bytes:
        """The whole response."""
        status: Status = "incomplete" if self._reason == "length" else "completed"
        return self._event(f"response.{status}", response=self._response(status, usage, report))

    def failed(self, error: EngineError) -> bytes:
        """What there is of the response, and the error."""
        if error.status == _TOO_MANY:
            code = "rate_limit_exceeded"
        else:
            code = "server_error" if error.status >= _SERVER_ERROR else "invalid_prompt"
        if self._items and self._items[-1].status == "in_progress":
            self._items[-1].status = "incomplete"
        response = self._response("failed", None)
        response["error"] = {"code": code, "message": str(error)}
        return self._event("response.failed", response=response) + error_event(error)

    def whole(self, choices: Sequence[Choice], usage: Usage, report: SearchReport | None = None) -> Json:
        """The answer in one piece: what the stream would have said."""
        (choice,) = choices
        for piece in choice.pieces:
            if isinstance(piece, Ended):
                self._end(piece)
            else:
                self._place(piece)
        return self._response("incomplete" if self._reason == "length" else "completed", usage, report)

    def _response(self, status: Status, usage: Usage | None, report: SearchReport | None = None) -> Json:
        ended = {"completed_at": self._wall_s()} if status == "completed" else {}
        return {
            **self._head,
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": [item.json(with_logprobs=self._with_logprobs) for item in self._items],
            "usage": None if usage is None else self._usage_json(usage, report),
            **ended,
            **members_of(report),
        }

    def _usage_json(self, usage: Usage, report: SearchReport | None) -> Json:
        more = {} if report is None else report.token_details
        return {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_prompt_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": self._reader.reasoning_tokens, **more},
            "total_tokens": usage.total_tokens,
        }

    @property
    def _last(self) -> _Item | None:
        return self._items[-1] if self._items else None

    def _add(self, kind: Kind) -> _Item:
        item = _Item(kind=kind, item_id=f"{_PREFIXES[kind]}{self._unique}{len(self._items):02x}")
        self._items.append(item)
        return item

    def _place(self, piece: Delta) -> _Item:
        """Add a piece to its item, the last one or a new one, and return that."""
        item = self._last
        if isinstance(piece, ToolCallDelta):
            if item is None or item.call != piece.call:
                self._complete(item)
                item = self._add("function_call")
                item.call, item.call_id, item.name = piece.call, piece.call_id or "", piece.name or ""
            item.text.append(piece.arguments)
            return item
        kind: Kind = "reasoning" if isinstance(piece, ReasoningDelta) else "message"
        if item is None or item.kind != kind:
            self._complete(item)
            item = self._add(kind)
        item.text.append(piece.text)
        item.logprobs.extend(piece.logprobs)
        return item

    @staticmethod
    def _complete(item: _Item | None) -> None:
        if item is not None:
            item.status = "completed"

    def _end(self, piece: Ended) -> None:
        self._reason = piece.finish_reason
        last = self._last or self._add("message")
        last.status = "incomplete" if self._reason == "length" else "completed"

    def _beginning(self, item: _Item) -> bytes:
        """Events that open the last item, before anything was said in it."""
        at: Json = {"output_index": len(self._items) - 1}
        events = self._event("response.output_item.added", **at, item=item.opened())
        if item.kind == "function_call":
            return events
        part: Json = {"type": "reasoning_text", "text": ""}
        if item.kind == "message":
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return events + self._event(
            "response.content_part.added", item_id=item.item_id, **at, content_index=0, part=part
        )

    def _ending(self, item: _Item | None) -> bytes:
        """Events that close an item."""
        if item is None:
            return b""
        index = self._items.index(item)
        at: Json = {"item_id": item.item_id, "output_index": index}
        text = "".join(item.text)
        if item.kind == "function_call":
            events = self._event(
                "response.function_call_arguments.done", **at, name=item.name, arguments=text
            )
        else:
            part = item.part(with_logprobs=self._with_logprobs)
            at["content_index"] = 0
            if item.kind == "reasoning":
                events = self._event("response.reasoning_text.done", **at, text=text)
            else:
                events = self._event("response.output_text.done", **at, text=text, logprobs=part["logprobs"])
            events += self._event("response.content_part.done", **at, part=part)
        done = item.json(with_logprobs=self._with_logprobs)
        return events + self._event("response.output_item.done", output_index=index, item=done)

    def _event(self, kind: str, **members: object) -> bytes:
        event: Json = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return typed_event(kind, event)

# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/chat/completions``."""

from collections.abc import Iterable, Sequence
from typing import Final

from adyton_enclave.api.answer import Desk, Job, Json, serve
from adyton_enclave.api.generate import Choice, Served, find_model, off_loop, usage_json
from adyton_enclave.api.types import Options, RequestLimits, parse_chat_request
from adyton_enclave.engine import Finished, TextDelta, TokenLogprob, Usage
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse

_ID_BYTES: Final = 12


def fingerprint(served: Served) -> str:
    """``system_fingerprint``: the head of the model's identity digest."""
    return "fp_" + served.model.identity.removeprefix("sha256:")[:12]


def _logprobs_json(logprobs: Iterable[TokenLogprob]) -> Json:
    return {
        "content": [
            {
                "token": entry.token,
                "bytes": list(entry.bytes),
                "logprob": entry.logprob,
                "top_logprobs": [
                    {"token": top.token, "bytes": list(top.bytes), "logprob": top.logprob}
                    for top in entry.top
                ],
            }
            for entry in logprobs
        ],
        "refusal": None,
    }


class ChatPresenter:
    """OpenAI's ``chat.completion`` and ``chat.completion.chunk`` objects."""

    prompt_field: Final = "messages"

    def __init__(self, options: Options, served: Served, *, answer_id: str, created: int) -> None:
        self.answer_id = answer_id
        self._options = options
        self._head: Json = {"id": answer_id, "object": "chat.completion.chunk", "created": created}
        self._tail: Json = {"model": served.model.name, "system_fingerprint": fingerprint(served)}
        if options.stream and options.include_usage:
            self._tail["usage"] = None

    def _chunk(self, index: int, delta: Json, *, logprobs: Json | None, finish_reason: str | None) -> Json:
        choice: Json = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._head, **self._tail, "choices": [choice]}

    def opening(self) -> Sequence[Json]:
        """One chunk per choice that names the role."""
        delta: Json = {"role": "assistant", "content": ""}
        return [
            self._chunk(index, delta, logprobs=None, finish_reason=None) for index in range(self._options.n)
        ]

    def delta(self, event: TextDelta) -> Json:
        """More text."""
        logprobs = None if self._options.logprobs is None else _logprobs_json(event.logprobs)
        return self._chunk(event.index, {"content": event.text}, logprobs=logprobs, finish_reason=None)

    def finished(self, event: Finished) -> Json:
        """The end of a choice."""
        return self._chunk(event.index, {}, logprobs=None, finish_reason=event.finish_reason)

    def usage(self, usage: Usage) -> Json:
        """A chunk without choices."""
        return {**self._head, **self._tail, "choices": [], "usage": usage_json(usage)}

    def whole(self, choices: Sequence[Choice], usage: Usage) -> Json:
        """The answer in one piece."""
        wants_logprobs = self._options.logprobs is not None
        return {
            **self._head,
            **self._tail,
            "object": "chat.completion",
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": "".join(choice.text), "refusal": None},
                    "logprobs": _logprobs_json(choice.logprobs) if wants_logprobs else None,
                    "finish_reason": choice.finish_reason,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage_json(usage),
        }


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
    parsed = parse_chat_request(request.body, limits)
    options = parsed.options
    model = find_model(served, options.model)
    messages = [{"role": role, "content": text} for role, text in parsed.messages]
    prompt = await off_loop(lambda: model.model.apply_chat_template(messages), len(request.body))
    presenter = ChatPresenter(
        options, model, answer_id="chatcmpl-" + desk.entropy(_ID_BYTES).hex(), created=desk.wall_s()
    )
    job = Job(
        request=request, facts=facts, options=options, served=model, prompts=(prompt,), presenter=presenter
    )
    return await serve(desk, job)

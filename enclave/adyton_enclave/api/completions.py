# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/completions``."""

from collections.abc import Iterable, Sequence
from typing import Final

from adyton_enclave.api.answer import Desk, Job, Json, serve
from adyton_enclave.api.chat import fingerprint
from adyton_enclave.api.generate import Choice, Served, find_model, off_loop, usage_json
from adyton_enclave.api.types import Options, RequestLimits, parse_completion_request
from adyton_enclave.engine import Finished, TextDelta, TokenLogprob, Usage
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse

_ID_BYTES: Final = 12


class CompletionPresenter:
    """OpenAI's ``text_completion`` objects."""

    prompt_field: Final = "prompt"

    def __init__(self, options: Options, served: Served, *, answer_id: str, created: int) -> None:
        self.answer_id = answer_id
        self._options = options
        self._head: Json = {
            "id": answer_id,
            "object": "text_completion",
            "created": created,
            "model": served.model.name,
            "system_fingerprint": fingerprint(served),
        }
        if options.stream and options.include_usage:
            self._head["usage"] = None
        self._offsets: dict[int, int] = {}

    def _logprobs_json(self, index: int, logprobs: Iterable[TokenLogprob]) -> Json | None:
        if self._options.logprobs is None:
            return None
        offset = self._offsets.get(index, 0)
        tokens: list[str] = []
        offsets: list[int] = []
        values: list[float] = []
        tops: list[dict[str, float]] = []
        for entry in logprobs:
            tokens.append(entry.token)
            offsets.append(offset)
            values.append(entry.logprob)
            tops.append({top.token: top.logprob for top in entry.top})
            offset += len(entry.token)
        self._offsets[index] = offset
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _choice(self, index: int, text: str, *, logprobs: Json | None, finish_reason: str | None) -> Json:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def opening(self) -> Sequence[Json]:
        """Nothing: text completions have no roles."""
        return ()

    def delta(self, event: TextDelta) -> Json:
        """More text."""
        logprobs = self._logprobs_json(event.index, event.logprobs)
        choice = self._choice(event.index, event.text, logprobs=logprobs, finish_reason=None)
        return {**self._head, "choices": [choice]}

    def finished(self, event: Finished) -> Json:
        """The end of a choice."""
        choice = self._choice(event.index, "", logprobs=None, finish_reason=event.finish_reason)
        return {**self._head, "choices": [choice]}

    def usage(self, usage: Usage) -> Json:
        """An event without choices."""
        return {**self._head, "choices": [], "usage": usage_json(usage)}

    def whole(self, choices: Sequence[Choice], usage: Usage) -> Json:
        """The answer in one piece."""
        return {
            **self._head,
            "choices": [
                self._choice(
                    index,
                    "".join(choice.text),
                    logprobs=self._logprobs_json(index, choice.logprobs),
                    finish_reason=choice.finish_reason,
                )
                for index, choice in enumerate(choices)
            ],
            "usage": usage_json(usage),
        }


async def _token_ids(served: Served, prompt: str | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(prompt, tuple):
        return prompt
    return await off_loop(lambda: served.model.tokenize(prompt), len(prompt))


async def complete_text(
    desk: Desk,
    served: dict[str, Served],
    limits: RequestLimits,
    request: InnerRequest,
    facts: ExchangeFacts,
) -> InnerResponse:
    """Answer a plain completion.

    Raises:
        EngineError: The request is wrong or cannot be served.
    """
    parsed = parse_completion_request(request.body, limits)
    options = parsed.options
    model = find_model(served, options.model)
    prompts = tuple([await _token_ids(model, prompt) for prompt in parsed.prompts])
    presenter = CompletionPresenter(
        options, model, answer_id="cmpl-" + desk.entropy(_ID_BYTES).hex(), created=desk.wall_s()
    )
    job = Job(
        request=request, facts=facts, options=options, served=model, prompts=prompts, presenter=presenter
    )
    return await serve(desk, job)

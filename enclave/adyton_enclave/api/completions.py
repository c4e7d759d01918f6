# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/completions``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Final

from adyton_enclave.api.answer import Desk, Job, serve
from adyton_enclave.api.chat import fingerprint
from adyton_enclave.api.completion_request import CompletionRequest, parse_completion_request
from adyton_enclave.api.errors import error_event
from adyton_enclave.api.events import Json, event
from adyton_enclave.api.generate import Guidance, Served, off_loop, usage_details_json
from adyton_enclave.api.pieces import Choice, Delta, Ended
from adyton_enclave.api.scaling_request import Alias
from adyton_enclave.api.search_order import (
    Occasion,
    SearchOrder,
    find_searched,
    order_best_of,
    order_search,
)
from adyton_enclave.api.search_report import SearchReport, members_of
from adyton_enclave.api.types import Options, RequestLimits
from adyton_enclave.engine import TextDelta, TokenLogprob, Usage
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.scaling.search import Progress
from adyton_protocol.errors import EngineError, InvalidRequest

_ID_BYTES: Final = 12


class CompletionPresenter:
    """OpenAI's ``text_completion`` objects."""

    def __init__(
        self, options: Options, served: Served, echoes: Sequence[str], *, answer_id: str, created: int
    ) -> None:
        """Word answers that begin with their prompt's echo, which may be empty."""
        self.answer_id = answer_id
        self._echoes = echoes
        self._options = options
        self._head: Json = {
            "id": answer_id,
            "object": "text_completion",
            "created": created,
            "model": served.model.name,
            "system_fingerprint": fingerprint(served),
        }
        if options.service_tier is not None:
            self._head["service_tier"] = options.service_tier
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

    def opening(self, index: int) -> bytes:
        """The echo; text completions have no roles."""
        echo = self._echo(index)
        return self._chunk(self._choice(index, echo, logprobs=None, finish_reason=None)) if echo else b""

    def progress(self, progress: Progress) -> bytes:
        """An event without text."""
        choice = self._choice(0, "", logprobs=None, finish_reason=None)
        return self._chunk(choice, {"x_progress": asdict(progress)})

    def _chunk(self, choice: Json, more: Mapping[str, object] = MappingProxyType({})) -> bytes:
        return event({**self._head, "choices": [choice], **more})

    def _echo(self, index: int) -> str:
        # A search may have more choices than were asked for, of its one prompt.
        return self._echoes[min(index // self._options.n, len(self._echoes) - 1)]

    def delta(self, piece: Delta) -> bytes:
        """More text. Plain completions have no other pieces."""
        logprobs = self._logprobs_json(piece.index, piece.logprobs)
        text = piece.text if isinstance(piece, TextDelta) else ""
        return self._chunk(self._choice(piece.index, text, logprobs=logprobs, finish_reason=None))

    def finished(self, piece: Ended, report: SearchReport | None = None) -> bytes:
        """The end of a choice. A report that has no event of its own to come goes with it."""
        choice = self._choice(piece.index, "", logprobs=None, finish_reason=piece.finish_reason)
        return self._chunk(choice, {} if self._options.include_usage else members_of(report))

    def closing(self, usage: Usage, report: SearchReport | None = None) -> bytes:
        """An event without choices that holds the usage, if it was asked for, and the report."""
        if not self._options.include_usage:
            return b""
        counts = _usage_json(usage, report)
        return event({**self._head, "choices": [], "usage": counts, **members_of(report)})

    def failed(self, error: EngineError) -> bytes:
        """The error alone."""
        return error_event(error)

    def whole(self, choices: Sequence[Choice], usage: Usage, report: SearchReport | None = None) -> Json:
        """The answer in one piece."""
        return {
            **self._head,
            "choices": [
                self._choice(
                    index,
                    self._echo(index) + "".join(choice.text),
                    logprobs=self._logprobs_json(index, choice.logprobs),
                    finish_reason=choice.finish_reason,
                )
                for index, choice in enumerate(choices)
            ],
            "usage": _usage_json(usage, report),
            **members_of(report),
        }


def _usage_json(usage: Usage, report: SearchReport | None) -> Json:
    more = {} if report is None else report.token_details
    return usage_details_json(usage, reasoning_tokens=0, more=more)


async def _token_ids(served: Served, prompt: str | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(prompt, tuple):
        return prompt
    return await off_loop(lambda: served.model.tokenize(prompt), len(prompt))


def _order(
    parsed: CompletionRequest, alias: Alias | None, occasion: Occasion
) -> tuple[SearchOrder | None, Options]:
    """The search that is asked for, by name or by ``best_of``.

    Raises:
        InvalidRequest: It cannot be, or not with the rest.
    """
    order, options = order_search(parsed.scaling, alias, occasion)
    one_prompt = len(parsed.prompts) == 1
    if order is None:
        return order_best_of(options, occasion.served, occasion.limits) if one_prompt else None, options
    if not one_prompt:
        raise InvalidRequest("a search is about one prompt", param="prompt")
    if options.candidates > options.n:
        raise InvalidRequest("best_of contradicts the search that is asked for", param="best_of")
    return order, options


def _text(served: Served, prompt: str | tuple[int, ...]) -> str:
    """The prompt as text."""
    if isinstance(prompt, str):
        return prompt
    if any(token_id >= served.model.n_vocab for token_id in prompt):
        raise InvalidRequest("a token id lies outside the vocabulary", param="prompt")
    return served.model.detokenize(prompt).decode("utf-8", "replace")


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
    model, alias = find_searched(served, parsed.options.model)
    order, options = _order(parsed, alias, Occasion(options=parsed.options, served=model, limits=limits))
    prompts = tuple([await _token_ids(model, prompt) for prompt in parsed.prompts])
    echoes = [_text(model, prompt) if parsed.echo else "" for prompt in parsed.prompts]
    presenter = CompletionPresenter(
        options, model, echoes, answer_id="cmpl-" + desk.entropy(_ID_BYTES).hex(), created=desk.wall_s()
    )
    job = Job(
        request=request,
        facts=facts,
        options=options,
        served=model,
        prompts=prompts,
        presenter=presenter,
        guidance=Guidance(prompt_field="prompt"),
        order=order,
        problem="" if order is None else _text(model, parsed.prompts[0]),
    )
    return await serve(desk, job)

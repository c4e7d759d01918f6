# SPDX-License-Identifier: Apache-2.0
"""One generation as an answer, whole or streamed, with its receipt.

What the receipt commits to is exactly what the caller sees: the whole JSON body, or all ``data:`` events before the
receipt. A stream is: opening, deltas, one finish per choice, usage on request, receipt comment and ``[DONE]`` in
one group. A stream that fails ends with an error event instead; no receipt, no ``[DONE]``.
"""

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from adyton_enclave.api.errors import InternalError, error_event
from adyton_enclave.api.generate import Choice, Served, Terms, Work, gather, usage_json
from adyton_enclave.api.ports import Engine
from adyton_enclave.api.types import Options
from adyton_enclave.engine import Finished, TextDelta, Usage
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.log import Happening, note
from adyton_enclave.privacy import Profile
from adyton_enclave.receipts import OpenReceipt, ReceiptBook
from adyton_protocol.errors import EngineError
from adyton_protocol.receipt import RECEIPT_HEADER, RECEIPT_ID_HEADER
from adyton_protocol.sse import receipt_comment

_DONE: Final = b"data: [DONE]\n\n"

Json = dict[str, object]


class Presenter(Protocol):
    """How one endpoint words its answers."""

    @property
    def answer_id(self) -> str:
        """The ``id`` of the answer."""
        ...

    @property
    def prompt_field(self) -> str:
        """The request field that holds the prompt, for errors about its length."""
        ...

    def opening(self) -> Sequence[Json]:
        """What a stream begins with."""
        ...

    def delta(self, event: TextDelta) -> Json:
        """More text of a choice."""
        ...

    def finished(self, event: Finished) -> Json:
        """The end of a choice."""
        ...

    def usage(self, usage: Usage) -> Json:
        """The usage event of a stream."""
        ...

    def whole(self, choices: Sequence[Choice], usage: Usage) -> Json:
        """The whole answer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every generation needs.

    Attributes:
        timeout_s: Seconds after which a generation is dropped.
        profile: Chooses the effective privacy profile of a request's wish.
        entropy: Source of random bytes for ids and sampling keys.
        wall_s: Unix seconds, for ``created``.
    """

    engine: Engine
    book: ReceiptBook
    timeout_s: float
    profile: Callable[[Profile | None], Profile]
    entropy: Callable[[int], bytes]
    wall_s: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One parsed request on its way to an answer."""

    request: InnerRequest
    facts: ExchangeFacts
    options: Options
    served: Served
    prompts: tuple[tuple[int, ...], ...]
    presenter: Presenter


def _dump(value: Json) -> bytes:
    # ASCII, so that no reader takes a Unicode line separator for the end of a line.
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _event(value: Json) -> bytes:
    return b"data: " + _dump(value) + b"\n\n"


async def serve(desk: Desk, job: Job) -> InnerResponse:
    """Run the generation.

    Raises:
        EngineError: Nothing was answered yet.
    """
    options = job.options
    work = Work.submit(
        desk.engine,
        job.served,
        options,
        job.prompts,
        prompt_field=job.presenter.prompt_field,
        terms=Terms(tenant=job.facts.tenant, timeout_s=desk.timeout_s),
        entropy=desk.entropy,
    )
    model = job.served.model
    receipt = desk.book.open(job.request, job.facts, model=model.name, identity=model.identity)
    profile = desk.profile(options.privacy)
    if options.stream:
        return InnerResponse(
            status=200,
            headers=(("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-store")),
            body=_stream(work, options, job.presenter, receipt, merge=profile is Profile.CADENCE),
            profile=profile,
        )
    choices = await gather(work)
    body = _dump(job.presenter.whole(choices, work.usage))
    receipt.response_data(body)
    signed = receipt.finish(
        finish_reasons=[choice.finish_reason for choice in choices],
        usage=usage_json(work.usage),
        streamed=False,
        chat_id=job.presenter.answer_id,
    )
    headers = (
        ("content-type", "application/json"),
        (RECEIPT_HEADER, signed.header_value()),
        (RECEIPT_ID_HEADER, signed.receipt_id),
    )
    return InnerResponse(status=200, headers=headers, body=body, profile=profile)


async def _stream(
    work: Work, options: Options, presenter: Presenter, receipt: OpenReceipt, *, merge: bool
) -> AsyncGenerator[bytes, None]:
    finish_reasons = [""] * work.choices
    try:
        opening = b"".join(_event(value) for value in presenter.opening())
        if opening:
            receipt.response_data(opening)
            yield opening
        async with contextlib.aclosing(work.events(merge=merge)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    group = _event(presenter.delta(event))
                else:
                    finish_reasons[event.index] = event.finish_reason
                    group = _event(presenter.finished(event))
                receipt.response_data(group)
                yield group
        if options.include_usage:
            group = _event(presenter.usage(work.usage))
            receipt.response_data(group)
            yield group
        signed = receipt.finish(
            finish_reasons=finish_reasons,
            usage=usage_json(work.usage),
            streamed=True,
            chat_id=presenter.answer_id,
        )
        yield receipt_comment(signed.to_bytes()) + _DONE
    except EngineError as error:
        yield error_event(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the stream ends authenticated and says nothing
        note(Happening.INTERNAL_ERROR, error=error)
        yield error_event(InternalError("the answer could not be completed"))
    finally:
        work.cancel()

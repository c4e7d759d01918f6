# SPDX-License-Identifier: Apache-2.0
"""One generation as an answer, whole or streamed, with its receipt.

What the receipt commits to is exactly what the caller sees: the whole JSON body, or all ``data:`` events before the
receipt. A stream is: opening, deltas, the end of each choice, closing, receipt comment and ``[DONE]`` in
one group. A stream that fails ends with an error event instead; no receipt, no ``[DONE]``.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from adyton_enclave.api.errors import InternalError
from adyton_enclave.api.events import Json, dump
from adyton_enclave.api.generate import Guidance, Served, Terms, Work, usage_json
from adyton_enclave.api.parameters import NOT_REPRODUCIBLE, warning_headers
from adyton_enclave.api.pieces import Choice, Delta, Ended, PlainReader, Reader, best
from adyton_enclave.api.ports import Engine
from adyton_enclave.api.types import Options
from adyton_enclave.engine import Usage
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.log import Happening, note
from adyton_enclave.privacy import Profile
from adyton_enclave.receipts import OpenReceipt, ReceiptBook
from adyton_protocol.errors import EngineError
from adyton_protocol.receipt import RECEIPT_HEADER, RECEIPT_ID_HEADER
from adyton_protocol.sse import receipt_comment

_DONE: Final = b"data: [DONE]\n\n"


class Presenter(Protocol):
    """How one endpoint words its answers."""

    @property
    def answer_id(self) -> str:
        """The ``id`` of the answer."""
        ...

    def opening(self) -> bytes:
        """Events that a stream begins with; may be none, like all of these."""
        ...

    def delta(self, piece: Delta) -> bytes:
        """Events that tell more of a choice."""
        ...

    def finished(self, piece: Ended) -> bytes:
        """Events that tell the end of a choice."""
        ...

    def closing(self, usage: Usage) -> bytes:
        """Events after the end of all choices."""
        ...

    def failed(self, error: EngineError) -> bytes:
        """Events that end a stream that failed; the last is ``errors.error_event``, by which clients know."""
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
    """One parsed request on its way to an answer.

    Attributes:
        warnings: Names of ignored parameters, beside those in the options.
    """

    request: InnerRequest
    facts: ExchangeFacts
    options: Options
    served: Served
    prompts: tuple[tuple[int, ...], ...]
    presenter: Presenter
    guidance: Guidance
    reader: Reader = field(default_factory=PlainReader)
    warnings: tuple[str, ...] = ()


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
        job.guidance,
        terms=Terms.of(options, job.facts, timeout_s=desk.timeout_s),
        entropy=desk.entropy,
    )
    model = job.served.model
    receipt = desk.book.open(job.request, job.facts, model=model.name, identity=model.identity)
    profile = desk.profile(options.privacy)
    doubtful = options.seed is not None and model.why_inexact is not None
    warnings = warning_headers((*options.ignored, *job.warnings), NOT_REPRODUCIBLE if doubtful else "")
    if options.stream:
        return InnerResponse(
            status=200,
            headers=(
                ("content-type", "text/event-stream; charset=utf-8"),
                ("cache-control", "no-store"),
                *warnings,
            ),
            body=_stream(work, job, receipt),
            profile=profile,
        )
    choices = best(await _gather(work, job.reader), prompts=len(job.prompts), n=options.n)
    body = dump(job.presenter.whole(choices, work.usage))
    receipt.response_data(body)
    signed = receipt.finish(
        finish_reasons=[choice.finish_reason or "" for choice in choices],
        usage=usage_json(work.usage),
        streamed=False,
        chat_id=job.presenter.answer_id,
    )
    headers = (
        ("content-type", "application/json"),
        (RECEIPT_HEADER, signed.header_value()),
        (RECEIPT_ID_HEADER, signed.receipt_id),
        *warnings,
    )
    return InnerResponse(status=200, headers=headers, body=body, profile=profile)


async def _gather(work: Work, reader: Reader) -> list[Choice]:
    """Wait for all choices."""
    choices = [Choice() for _ in range(work.choices)]
    async with contextlib.aclosing(work.events()) as events:
        async for event in events:
            for piece in reader.read(event):
                choices[piece.index].add(piece)
    return choices


async def _stream(work: Work, job: Job, receipt: OpenReceipt) -> AsyncGenerator[bytes, None]:
    presenter = job.presenter
    finish_reasons = [""] * work.choices
    try:
        if group := presenter.opening():
            receipt.response_data(group)
            yield group
        async with contextlib.aclosing(work.events()) as events:
            async for event in events:
                for piece in job.reader.read(event):
                    if isinstance(piece, Ended):
                        finish_reasons[piece.index] = piece.finish_reason
                        group = presenter.finished(piece)
                    else:
                        group = presenter.delta(piece)
                    if group:
                        receipt.response_data(group)
                        yield group
        if group := presenter.closing(work.usage):
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
        yield presenter.failed(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the stream ends authenticated and says nothing
        note(Happening.INTERNAL_ERROR, error=error)
        yield presenter.failed(InternalError("the answer could not be completed"))
    finally:
        work.cancel()

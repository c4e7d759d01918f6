# SPDX-License-Identifier: Apache-2.0
"""One generation as an answer, whole or streamed, with its receipt.

What the receipt commits to is exactly what the caller sees: the whole JSON body, or all ``data:`` events before the
receipt. A stream is: opening, progress of a search, deltas, the end of each choice, closing, receipt comment and
``[DONE]`` in one group. A stream that fails ends with an error event instead; no receipt, no ``[DONE]``.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from adyton_enclave.api.effort import pad_document, pad_events, room_bytes
from adyton_enclave.api.errors import InternalError
from adyton_enclave.api.events import Json, dump
from adyton_enclave.api.generate import Guidance, Served, Terms, Work, generation_request, usage_json
from adyton_enclave.api.parameters import NOT_REPRODUCIBLE, warning_headers
from adyton_enclave.api.pieces import Choice, Delta, Ended, PlainReader, Reader, best
from adyton_enclave.api.ports import Engine
from adyton_enclave.api.search_gate import SearchGate
from adyton_enclave.api.search_order import SearchOrder
from adyton_enclave.api.search_report import SearchReport, report_search
from adyton_enclave.api.search_work import SearchWork
from adyton_enclave.api.types import Options
from adyton_enclave.engine import Usage, sampling_key
from adyton_enclave.exchange import ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.log import Happening, note
from adyton_enclave.privacy import Profile
from adyton_enclave.receipts import OpenReceipt, ReceiptBook
from adyton_enclave.scaling.search import Progress
from adyton_enclave.scaling.strategies import FollowUp
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

    def opening(self, index: int) -> bytes:
        """Events with which choice ``index`` begins, the first of them with the stream; may be none, like all."""
        ...

    def progress(self, progress: Progress) -> bytes:
        """Events that tell how far a search is, before there is any text."""
        ...

    def delta(self, piece: Delta) -> bytes:
        """Events that tell more of a choice."""
        ...

    def finished(self, piece: Ended, report: SearchReport | None = None) -> bytes:
        """Events that tell the end of a choice; of the last one, with the report of its search."""
        ...

    def closing(self, usage: Usage, report: SearchReport | None = None) -> bytes:
        """Events after the end of all choices."""
        ...

    def failed(self, error: EngineError) -> bytes:
        """Events that end a stream that failed; the last is ``errors.error_event``, by which clients know."""
        ...

    def whole(self, choices: Sequence[Choice], usage: Usage, report: SearchReport | None = None) -> Json:
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
        gate: Counts the searches of each tenant.
    """

    engine: Engine
    book: ReceiptBook
    timeout_s: float
    profile: Callable[[Profile | None], Profile]
    entropy: Callable[[int], bytes]
    wall_s: Callable[[], int]
    gate: SearchGate


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One parsed request on its way to an answer.

    Attributes:
        warnings: Names of ignored parameters, beside those in the options.
        order: A search for the answer to the one prompt; None for ordinary generation.
        problem: What the scorer of a search is told is asked.
        follow_up: Of a conversation, makes a prompt that tells of earlier answers, for a search that refines them.
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
    order: SearchOrder | None = None
    problem: str = field(default="", repr=False)
    follow_up: FollowUp | None = None

    @property
    def pads(self) -> bool:
        """Whether size and time of the answer follow from what was asked alone."""
        return self.order is not None and self.order.plan.pad_to_budget


async def serve(desk: Desk, job: Job) -> InnerResponse:
    """Run the generation.

    Raises:
        EngineError: Nothing was answered yet.
    """
    options = job.options
    work = _submit(desk, job)
    model = job.served.model
    receipt = desk.book.open(job.request, job.facts, model=model.name, identity=model.identity)
    profile = desk.profile(options.privacy)
    if job.pads:
        # SECURITY: what is padded inside must not be told apart by its head.
        profile = desk.profile(max(profile, Profile.SIZE, key=lambda each: each.rank))
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
    choices = await _gather(work, job.reader)
    if isinstance(work, Work):
        choices = best(choices, prompts=len(job.prompts), n=options.n)
    report = _report(work, job, receipt)
    body = dump(job.presenter.whole(choices, work.usage, report))
    if isinstance(work, SearchWork) and job.pads:
        body = pad_document(body, room_bytes(work.order, max_tokens=work.max_tokens))
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


def _submit(desk: Desk, job: Job) -> Work | SearchWork:
    """Begin the work.

    Raises:
        EngineError: Nothing was begun.
    """
    terms = Terms.of(job.options, job.facts, timeout_s=desk.timeout_s)
    if job.order is None:
        return Work.submit(
            desk.engine,
            job.served,
            job.options,
            job.prompts,
            job.guidance,
            terms=terms,
            entropy=desk.entropy,
        )
    (prompt,) = job.prompts
    key = sampling_key(job.options.seed, desk.entropy)
    request = generation_request(job.served, job.options, prompt, job.guidance, terms=terms, key=key)
    try:
        return SearchWork.submit(
            desk.engine, job.served.scorer, request, job.problem, job.order, desk.gate, job.follow_up
        )
    except EngineError as error:
        if error.param == "problem":
            error.param = job.guidance.prompt_field
        raise


def _report(work: Work | SearchWork, job: Job, receipt: OpenReceipt) -> SearchReport | None:
    """What a search that is over tells of itself, here and in the receipt."""
    return None if isinstance(work, Work) else report_search(work, job.served, receipt)


async def _gather(work: Work | SearchWork, reader: Reader) -> list[Choice]:
    """Wait for all choices."""
    choices = [Choice() for _ in range(work.sure)]
    async with contextlib.aclosing(work.events()) as events:
        async for event in events:
            if isinstance(event, Progress):
                continue
            for piece in reader.read(event):
                if piece.index == len(choices):
                    choices.append(Choice())
                choices[piece.index].add(piece)
    return choices


async def _worded(
    work: Work | SearchWork, job: Job, receipt: OpenReceipt, finish_reasons: list[str]
) -> AsyncGenerator[bytes, None]:
    """The event groups of a stream before its receipt; some may be empty. Notes how choices ended."""
    presenter = job.presenter
    finish_reasons += [""] * work.sure
    yield b"".join(presenter.opening(index) for index in range(work.sure))
    report: SearchReport | None = None
    left = work.sure
    async with contextlib.aclosing(work.events()) as events:
        async for event in events:
            if isinstance(event, Progress):
                yield presenter.progress(event)
                continue
            if report is None and isinstance(work, SearchWork):
                report, left = _report(work, job, receipt), len(work.chosen)
            for piece in job.reader.read(event):
                if piece.index == len(finish_reasons):
                    finish_reasons.append("")
                    yield presenter.opening(piece.index)
                if isinstance(piece, Ended):
                    left -= 1
                    finish_reasons[piece.index] = piece.finish_reason
                    yield presenter.finished(piece, None if left else report)
                else:
                    yield presenter.delta(piece)
    yield presenter.closing(work.usage, report)


async def _stream(work: Work | SearchWork, job: Job, receipt: OpenReceipt) -> AsyncGenerator[bytes, None]:
    presenter = job.presenter
    finish_reasons: list[str] = []
    held: list[bytes] = []
    try:
        async with contextlib.aclosing(_worded(work, job, receipt, finish_reasons)) as groups:
            async for group in groups:
                receipt.response_data(group)
                if job.pads:
                    held.append(group)
                elif group:
                    yield group
        signed = receipt.finish(
            finish_reasons=finish_reasons,
            usage=usage_json(work.usage),
            streamed=True,
            chat_id=presenter.answer_id,
        )
        last = b"".join(held) + receipt_comment(signed.to_bytes()) + _DONE
        if isinstance(work, SearchWork) and job.pads:
            last = pad_events(last, room_bytes(work.order, max_tokens=work.max_tokens))
        yield last
    except EngineError as error:
        yield presenter.failed(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the stream ends authenticated and says nothing
        note(Happening.INTERNAL_ERROR, error=error)
        yield presenter.failed(InternalError("the answer could not be completed"))
    finally:
        work.cancel()

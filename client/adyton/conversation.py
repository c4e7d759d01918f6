# SPDX-License-Identifier: Apache-2.0
"""One turn of a chat over a sealed HTTP client, for the command line; no SDK needed.

Everything parsed here has come out of an attested enclave through an authenticated channel. It is still
parsed defensively, because a model's words are not the operator's and go to a terminal.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from adyton.refusals import engine_error
from adyton_protocol.errors import RemoteProtocolError
from adyton_protocol.sse import SseSplitter
from adyton_protocol.strict_json import JsonObject

COMPLETIONS_PATH: Final = "/v1/chat/completions"

Message = dict[str, str]
"""``{"role": ..., "content": ...}``"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What to ask.

    Attributes:
        model: Name of the model.
        messages: The conversation so far, ending with the question.
        stream: Whether the answer should come piece by piece.
        sampling: Further members of the request, such as ``temperature``.
        scaling: What search to spend compute on, as the member ``scaling`` says it; None for none.
    """

    model: str
    messages: Sequence[Message]
    stream: bool = True
    sampling: Mapping[str, float | int] = field(default_factory=dict)
    scaling: JsonObject | None = None

    def to_json(self) -> dict[str, object]:
        """Make the body of the request."""
        body: dict[str, object] = {"model": self.model, "messages": list(self.messages), **self.sampling}
        if self.scaling is not None:
            body["scaling"] = self.scaling
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A complete answer.

    Attributes:
        text: The answer: the first choice, where there are several.
        finish_reason: ``stop``, or ``length`` when a limit cut it.
        usage: Token counts, if reported.
        report: The member ``x_report``, if a search was made; see :mod:`adyton.search_report`.
        request: The body that was sent, to which the receipt commits.
        response: The body that came back, without the marker of a stream's end; the receipt commits to it, too.
    """

    text: str
    finish_reason: str | None
    usage: dict[str, object] | None
    report: dict[str, object] | None = field(default=None, repr=False)
    request: bytes = field(default=b"", repr=False)
    response: bytes = field(default=b"", repr=False)


def _ignore(_progress: Mapping[str, object]) -> None:
    """Who does not watch a search."""


def take_turn(
    http: httpx.Client,
    turn: Turn,
    on_text: Callable[[str], None],
    *,
    on_progress: Callable[[Mapping[str, object]], None] = _ignore,
) -> Reply:
    """Ask and wait for the whole answer.

    Args:
        http: Sealed.
        turn: What to ask.
        on_text: Gets each piece of the answer as it comes.
        on_progress: Gets the member ``x_progress`` of each event that has one, while a search runs.

    Raises:
        EngineError: The enclave refuses the request.
        AdytonError: Whatever else goes wrong on the way; see :mod:`adyton.transport`.
    """
    with http.stream("POST", COMPLETIONS_PATH, json=turn.to_json()) as response:
        if response.status_code != httpx.codes.OK:
            raise engine_error(response.status_code, response.read(), response.headers.get("retry-after"))
        body: list[bytes] = []
        documents = _events(response, body) if turn.stream else _whole(response, body)
        pieces: list[str] = []
        report: dict[str, object] | None = None
        finish_reason: str | None = None
        usage: dict[str, object] | None = None
        for document in documents:
            for index, text, reason in _choices(document):
                if index == 0 and text:
                    pieces.append(text)
                    on_text(text)
                if index == 0:
                    finish_reason = reason or finish_reason
            counts = document.get("usage")
            usage = counts if isinstance(counts, dict) else usage
            found, progress = document.get("x_report"), document.get("x_progress")
            report = found if isinstance(found, dict) else report
            if isinstance(progress, dict):
                on_progress(progress)
        return Reply(
            text="".join(pieces),
            finish_reason=finish_reason,
            usage=usage,
            report=report,
            request=response.request.content,
            response=b"".join(body),
        )


def choices_of(body: bytes) -> dict[int, str]:
    """The text of each choice of an answer at rest, a whole one or the events of a stream.

    Args:
        body: Attacker-controlled; a stream without its last marker.

    Returns:
        Texts by the index of their choice; the first choice is 0.

    Raises:
        RemoteProtocolError: It is neither.
    """
    if body.lstrip()[:1] == b"{":
        documents = [_parse(body)]
    else:
        splitter = SseSplitter()
        documents = [_parse(_payload(event)) for event in splitter.push(body)]
        if splitter.finish():
            raise RemoteProtocolError("the stream ends inside an event")
    texts: dict[int, list[str]] = {}
    for document in documents:
        for index, text, _ in _choices(document):
            texts.setdefault(index, []).append(text)
    return {index: "".join(pieces) for index, pieces in texts.items()}


def _payload(event: bytes) -> bytes:
    return event.strip().removeprefix(b"data:").strip()


def _whole(response: httpx.Response, body: list[bytes]) -> Iterator[dict[str, object]]:
    body.append(response.read())
    yield _parse(body[0])


def _events(response: httpx.Response, body: list[bytes]) -> Iterator[dict[str, object]]:
    """Each document of a stream; ``body`` gets the bytes of all events but the last marker."""
    splitter = SseSplitter()
    for data in response.iter_bytes():
        for event in splitter.push(data):
            payload = _payload(event)
            if payload == b"[DONE]":
                continue
            body.append(event)
            document = _parse(payload)
            if "error" in document:
                raise engine_error(httpx.codes.INTERNAL_SERVER_ERROR, payload)
            yield document


def _parse(data: bytes) -> dict[str, object]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("the answer is not JSON") from error
    if not isinstance(document, dict):
        raise RemoteProtocolError("the answer is not a JSON object")
    return document


def _choices(document: dict[str, object]) -> Iterator[tuple[int, str, str | None]]:
    """Index, text and finish reason of each choice, of a completion or of a stream chunk."""
    choices = document.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if not isinstance(choice, dict):
            continue
        index, reason = choice.get("index", 0), choice.get("finish_reason")
        words = choice.get("delta") or choice.get("message")
        text = words.get("content") if isinstance(words, dict) else None
        yield (
            index if type(index) is int else 0,
            text if isinstance(text, str) else "",
            reason if isinstance(reason, str) else None,
        )

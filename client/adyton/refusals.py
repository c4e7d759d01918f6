# SPDX-License-Identifier: Apache-2.0
"""From an error that the enclave answers inside the seal to an error of our tree.

The openai SDK turns such answers into its own exceptions. Whoever uses :meth:`adyton.Client.http` directly,
as the command line does, gets the typed error of the engine from here.
"""

import json
from typing import Final

from adyton_protocol.errors import (
    ContextOverflow,
    EngineError,
    EngineStopped,
    InvalidRequest,
    OutOfMemory,
    QueueFull,
    UnknownModel,
    UnsuitableModel,
)

_DEFAULT_RETRY_AFTER_S: Final = 1.0
_CLASSES: Final[tuple[type[EngineError], ...]] = (
    InvalidRequest,
    UnknownModel,
    UnsuitableModel,
    ContextOverflow,
    OutOfMemory,
    EngineStopped,
)


def engine_error(status: int, body: bytes, retry_after: str | None = None) -> EngineError:
    """Name the error that a sealed answer of status 400 or above reports.

    Args:
        status: Inner HTTP status.
        body: Inner body: an OpenAI error object, ``{"error": {"message", "code", "param", ...}}``.
        retry_after: Inner Retry-After, if any.

    Returns:
        The error to raise. An unknown code becomes the class that fits the status.
    """
    error = error_object(body)
    message = error.get("message")
    text = message if isinstance(message, str) and message else f"the enclave refused with status {status}"
    param = error.get("param")
    field = param if isinstance(param, str) else None
    code = str(error.get("code") or "").replace("_", "-")
    if code == QueueFull.code or (status == QueueFull.status and not code):
        return QueueFull(text, retry_after_s=_seconds(retry_after), param=field)
    for known in _CLASSES:
        if known.code == code:
            return known(text, param=field)
    if status < 500:  # noqa: PLR2004 - RFC 9110 section 15.5
        return InvalidRequest(text, param=field)
    return EngineError(text, param=field)


def error_object(body: bytes) -> dict[str, object]:
    """Return the error object of an answer or of a stream event; empty if there is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.0, float(retry_after)) if retry_after is not None else _DEFAULT_RETRY_AFTER_S
    except ValueError:
        return _DEFAULT_RETRY_AFTER_S

# SPDX-License-Identifier: Apache-2.0
"""Errors as OpenAI's SDKs understand them: ``{"error": {message, type, param, code}}`` beside an HTTP status.

``code`` is the stable code of our own error tree with underscores, so that programs can tell errors apart without
reading messages. Everything here travels sealed; messages still hold field names, sizes and limits only.
"""

import json
import math
from typing import ClassVar, Final

from adyton_protocol.errors import EngineError, InvalidRequest, QueueFull

_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429


class UnknownParameter(InvalidRequest):
    """A field that this API does not know: misspelt, or meant for another service."""

    code = "unknown-parameter"


class UnsupportedParameter(InvalidRequest):
    """A field or value that OpenAI's API has and this enclave does not serve."""

    code = "unsupported-parameter"


class NoSuchRoute(EngineError):
    """The path, or the thing that it names, does not exist."""

    code = "not-found"
    fault = "caller"
    status: ClassVar[int] = 404


class WrongMethod(EngineError):
    """The path exists for another method only.

    Attributes:
        allow: That method, which RFC 9110 section 15.5.6 wants to see in the answer.
    """

    code = "method-not-allowed"
    fault = "caller"
    status: ClassVar[int] = 405

    def __init__(self, allow: str) -> None:
        super().__init__(f"this path takes {allow} only")
        self.allow = allow


class WrongMediaType(EngineError):
    """The body is announced as something else than JSON."""

    code = "unsupported-media-type"
    fault = "caller"
    status: ClassVar[int] = 415


class InternalError(EngineError):
    """Something failed that should not have; says nothing about what."""

    code = "internal-error"
    retry_safe = False


def error_body(error: EngineError) -> dict[str, object]:
    """The JSON object that reports ``error``."""
    if error.status == _TOO_MANY:
        kind = "rate_limit_error"
    elif error.status >= _SERVER_ERROR:
        kind = "server_error"
    else:
        kind = "invalid_request_error"
    code = error.code.replace("-", "_")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": code}}


def error_headers(error: EngineError) -> tuple[tuple[str, str], ...]:
    """Inner headers of the answer that reports ``error``."""
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    if isinstance(error, QueueFull):
        headers += (("retry-after", str(max(1, math.ceil(error.retry_after_s)))),)
    if isinstance(error, WrongMethod):
        headers += (("allow", error.allow),)
    return headers


def error_event(error: EngineError) -> bytes:
    """The last event of a stream that failed; SDKs raise it. No receipt and no ``[DONE]`` follow."""
    return b"data: " + json.dumps(error_body(error)).encode("ascii") + b"\n\n"

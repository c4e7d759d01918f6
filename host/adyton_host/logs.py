# SPDX-License-Identifier: Apache-2.0
"""Log lines of the host: one JSON object each, with closed field names and no text from clients.

SECURITY: an exception is logged as its class and where it was raised, without its message and without the
values of variables, because a message may quote what somebody sent. Access logs of the server, which would
hold query strings, stay off.
"""

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Final

from typing_extensions import override

from adyton_host.exchange import Exchange

LOGGER: Final = logging.getLogger("adyton_host")
_FIELDS: Final = "adyton_fields"
_QUIET: Final = ("httpx", "httpcore", "asyncio", "uvicorn", "uvicorn.error", "uvicorn.access")


class JsonFormatter(logging.Formatter):
    """Renders a record as one line of JSON with UTC time."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            # The constant text alone: arguments of foreign loggers could hold addresses or paths.
            "event": record.msg if isinstance(record.msg, str) else type(record.msg).__name__,
        }
        line.update(getattr(record, _FIELDS, {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["at"] = [f"{frame.filename}:{frame.lineno}" for frame in frames[-3:]]
        return json.dumps(line)


def log(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Write one structured line; ``fields`` are ours and never hold content."""
    LOGGER.log(level, event, extra={_FIELDS: fields})


def log_exchange(exchange: Exchange) -> None:
    """Write the one line of an exchange: what it was and how large, not what was in it."""
    first_byte_s = exchange.first_byte_s
    log(
        "exchange",
        request_id=exchange.request_id,
        method=exchange.method,
        route=exchange.route.value,
        outcome=exchange.outcome.value,
        status=exchange.status,
        received_bytes=exchange.received_bytes,
        sent_bytes=exchange.sent_bytes,
        complete=exchange.complete,
        first_byte_ms=None if first_byte_s is None else round(first_byte_s * 1000, 3),
        duration_ms=round(exchange.duration_s * 1000, 3),
    )


def configure(handler: logging.Handler) -> None:
    """Send our lines, and the warnings of the libraries below us, to ``handler``."""
    handler.setFormatter(JsonFormatter())
    LOGGER.setLevel(logging.INFO)
    LOGGER.handlers = [handler]
    LOGGER.propagate = False
    for name in _QUIET:
        logger = logging.getLogger(name)
        # httpx writes whole URLs, with their query strings, at level INFO.
        logger.setLevel(logging.WARNING)
        logger.handlers = [handler]
        logger.propagate = False

# SPDX-License-Identifier: Apache-2.0
"""From what the untrusted host answers in the clear to an error of our tree.

Everything here is attacker-controlled. The host can always deny service; it must not be able to turn a
refusal into anything but a typed error. An answer in the clear is never shown to the caller as an answer.
"""

import json
import math
from typing import Final

from adyton_protocol.errors import (
    AdytonError,
    KeyConfigMismatch,
    RelayRefused,
    RemoteProtocolError,
    ReplayedRequest,
    TransportError,
)
from adyton_protocol.media import (
    PROBLEM_JSON,
    PROBLEM_MALFORMED,
    PROBLEM_OHTTP_KEY,
    PROBLEM_REPLAY,
)

MAX_PROBLEM_BYTES: Final = 16 * 1024
"""How much of a refusal is read; the rest cannot matter."""

_MAX_QUOTED_CHARACTERS: Final = 200
_MAX_RETRY_AFTER_S: Final = 86_400.0

_HINTS: Final = {
    401: "pass the appliance's api_key",
    403: "this api_key may not use the appliance",
    404: "check base_url: there is no gateway at this address",
    413: "the request is larger than the appliance accepts",
    429: "the host is at its limit; wait and try again",
    503: "no enclave is ready; wait and try again",
}


class GatewayCouldNotOpen(RemoteProtocolError):
    """The gateway says that the request did not open.

    Key ids have one byte, so a restarted enclave may give the id of a key that is gone to a new one. Then it
    finds a key, and the key does not fit.
    """


def media_type(content_type: str) -> str:
    """Reduce a Content-Type value to its lower-case type and subtype."""
    return content_type.partition(";")[0].strip().lower()


def refusal(status: int, content_type: str, retry_after: str | None, body: bytes) -> AdytonError:
    """Name the error behind an outer answer that is not a sealed response.

    Args:
        status: Outer HTTP status.
        content_type: Outer Content-Type, as received.
        retry_after: Outer Retry-After, as received.
        body: The first bytes of the outer body.

    Returns:
        The error to raise; it quotes the host only in printable, shortened form.
    """
    kind, said = _problem(content_type, body)
    if kind == PROBLEM_OHTTP_KEY:
        return KeyConfigMismatch("the enclave does not hold the key this request was sealed to")
    if kind == PROBLEM_REPLAY:
        return ReplayedRequest("the enclave has accepted this sealed request before; it was not run again")
    if kind == PROBLEM_MALFORMED:
        return GatewayCouldNotOpen(f"the gateway could not open the sealed request{said}")
    if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110 section 15.3
        return RemoteProtocolError(
            f"the host answered {status} with {_printable(content_type) or 'no content type'} instead of a "
            "sealed response; an answer in the clear is not an answer of the enclave"
        )
    if status >= 500 and status != 503:  # noqa: PLR2004 - RFC 9110 section 15.6
        # The host may have passed the request on before it failed, so this is no safe refusal.
        return TransportError(f"the host failed with status {status}{said}")
    hint = _HINTS.get(status, "")
    return RelayRefused(
        f"the host refused to carry the request: status {status}{said}{'; ' if hint else ''}{hint}",
        status=status,
        retry_after_s=_seconds(retry_after),
    )


def _problem(content_type: str, body: bytes) -> tuple[str, str]:
    """Parse problem details (RFC 9457): the type, and what the host says, ready to be appended."""
    if media_type(content_type) != PROBLEM_JSON:
        return "", ""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    kind = document.get("type")
    said = document.get("detail") or document.get("title")
    text = _printable(said) if isinstance(said, str) else ""
    return (kind if isinstance(kind, str) else ""), (f" ({text})" if text else "")


def _printable(text: str) -> str:
    """Keep what can be shown in a terminal: the host must not send escape sequences through our errors."""
    kept = "".join(character for character in text if character.isprintable())
    return kept if len(kept) <= _MAX_QUOTED_CHARACTERS else kept[:_MAX_QUOTED_CHARACTERS] + "..."


def _seconds(retry_after: str | None) -> float | None:
    """Parse Retry-After as seconds; dates and nonsense count as no advice."""
    try:
        seconds = float(retry_after) if retry_after is not None else math.nan
    except ValueError:
        return None
    return seconds if 0 <= seconds <= _MAX_RETRY_AFTER_S else None

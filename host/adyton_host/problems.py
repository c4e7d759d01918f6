# SPDX-License-Identifier: Apache-2.0
"""Every answer that the host gives in its own name, as RFC 9457 problem documents.

An answer of the host proves nothing: it travels outside the sealed channel, and a client treats it as advice
about availability only. No text here quotes anything that a client sent.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from adyton_protocol import media
from adyton_protocol.errors import AdytonError

PROBLEM_NOT_FOUND: Final = "about:blank"
"""RFC 9457 section 4.2.1: nothing more to say than the status does."""
PROBLEM_TIMEOUT: Final = "about:blank"
"""As above."""


class Outcome(StrEnum):
    """How one exchange ended; the closed label set of logs and metrics."""

    OK = "ok"
    PLAINTEXT = "plaintext-refused"
    NOT_FOUND = "not-found"
    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    BUSY = "busy"
    UNKNOWN_KEY = "unknown-key"
    UNAVAILABLE = "enclave-unavailable"
    ENCLAVE_REFUSED = "enclave-refused"
    ENCLAVE_DIED = "enclave-died"
    TIMEOUT = "timeout"
    CLIENT_GONE = "client-gone"
    INTERNAL = "internal"


_INVALID_REQUEST: Final = "invalid_request_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem document.

    Attributes:
        status: HTTP status.
        type: Problem type URI, from :mod:`adyton_protocol.media`.
        title: Short and the same for every occurrence.
        detail: What happened and what to do, in plain language.
        outcome: The label under which the exchange is counted.
        retry_after_s: Value of ``Retry-After``, when waiting helps.
        error_type: Where ``aci/1`` section 10 names one, the type of the error as OpenAI's API writes it; it then
            stands beside the members of RFC 9457.
    """

    status: int
    type: str
    title: str
    detail: str
    outcome: Outcome
    retry_after_s: int | None = None
    error_type: str | None = None

    def body(self) -> bytes:
        """The JSON document."""
        document: dict[str, object] = {
            "type": self.type, "title": self.title, "status": self.status, "detail": self.detail,
        }  # fmt: skip
        if self.error_type is not None:
            document["error"] = {"message": self.detail, "type": self.error_type, "code": None, "param": None}
        return json.dumps(document).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Header fields for :meth:`body`, lower-case as ASGI wants them."""
        fields = [
            (b"content-type", media.PROBLEM_JSON.encode()),
            (b"content-length", b"%d" % len(self.body())),
            (b"cache-control", b"no-store"),
        ]
        if self.retry_after_s is not None:
            fields.append((b"retry-after", b"%d" % self.retry_after_s))
        return fields


class Refusal(AdytonError):
    """Ends an exchange before its first byte; carries the problem to answer with."""

    code = "refusal"
    fault = "host"

    def __init__(self, problem: Problem) -> None:
        """Keep the document; the message is its title."""
        super().__init__(problem.title)
        self.problem = problem


_PLAINTEXT_DETAIL: Final = (
    "This host only carries sealed requests: it must never see a prompt, so it has no plaintext API, and it "
    "has not read the body of this request. Use a client that attests the enclave first and seals what it "
    'sends: `pip install "adyton[openai]"`, then in Python `from adyton import Client; '
    'openai = Client("<this base URL>", policy=...).openai()` gives an ordinary openai.OpenAI object, and '
    "`adyton ask` and `adyton chat` work from a shell. For an appliance in simulation, say so explicitly: "
    "`Client(..., simulation=Simulation.from_dir(...))` or `--simulated`. If what you sent was confidential, "
    "treat it as disclosed to this host's operator."
)


def plaintext(status: int = 400) -> Problem:
    """An API call in the clear.

    SECURITY: 400 and not 421, because RFC 9110 section 15.5.20 invites clients to send a 421 again, and
    what they would send again is a prompt in the clear.

    Args:
        status: 400, or 415 for a wrong media type at the gateway.
    """
    return Problem(
        status=status,
        type=media.PROBLEM_PLAINTEXT,
        title="Plaintext requests are refused",
        detail=_PLAINTEXT_DETAIL,
        outcome=Outcome.PLAINTEXT,
    )


def not_found() -> Problem:
    """A path that does not exist here."""
    return Problem(
        status=404,
        type=PROBLEM_NOT_FOUND,
        title="Not found",
        detail=(
            f"This host serves {media.GATEWAY_PATH}, {media.ATTESTATION_PATH}, {media.ENDORSEMENTS_PATH}, "
            f"{media.RELEASES_PATH}, /healthz, /readyz and /metrics."
        ),
        outcome=Outcome.NOT_FOUND,
    )


def no_releases() -> Problem:
    """The operator has put no release file here."""
    return Problem(
        status=404,
        type=PROBLEM_NOT_FOUND,
        title="No release file",
        detail="This host carries no release file. Its operator puts one into the state directory as releases.json.",
        outcome=Outcome.NOT_FOUND,
    )


def malformed(detail: str) -> Problem:
    """A request that cannot be a sealed one, or a challenge that cannot be one."""
    return Problem(
        status=400,
        type=media.PROBLEM_MALFORMED,
        title="Malformed request",
        detail=detail,
        outcome=Outcome.MALFORMED,
        error_type=_INVALID_REQUEST,
    )


def not_acceptable() -> Problem:
    """A report in an encoding that nobody makes."""
    return Problem(
        status=406,
        type=media.PROBLEM_NOT_ACCEPTABLE,
        title="No such encoding",
        detail=f"Attestation reports come as {', '.join(media.EVIDENCE_TYPES)}.",
        outcome=Outcome.MALFORMED,
        error_type=_INVALID_REQUEST,
    )


def too_large(limit_bytes: int) -> Problem:
    """A sealed request over the size limit."""
    return Problem(
        status=413,
        type=media.PROBLEM_TOO_LARGE,
        title="Sealed request too large",
        detail=f"This host carries sealed requests of up to {limit_bytes} bytes. Shorten it.",
        outcome=Outcome.TOO_LARGE,
    )


def busy(limit: int, retry_after_s: int) -> Problem:
    """No room for one more exchange; the enclave never saw it."""
    return Problem(
        status=429,
        type=media.PROBLEM_BUSY,
        title="Host is busy",
        detail=(
            f"This host carries {limit} exchanges of this kind at a time and all places are taken. The "
            "enclave never saw this request, so sending it again is safe."
        ),
        outcome=Outcome.BUSY,
        retry_after_s=retry_after_s,
    )


def upload_timeout(idle_s: float) -> Problem:
    """The client stopped sending in mid-request."""
    return Problem(
        status=408,
        # Not "malformed": a client would take that for the gateway's word that the request did not open.
        type=PROBLEM_TIMEOUT,
        title="Request body stalled",
        detail=f"No byte of the request body arrived for {idle_s:g} seconds.",
        outcome=Outcome.TIMEOUT,
    )


def unknown_key() -> Problem:
    """No ready enclave holds the key to which the request was sealed (RFC 9458 section 7.3)."""
    return Problem(
        status=422,
        type=media.PROBLEM_OHTTP_KEY,
        title="Key configuration is not in use",
        detail=(
            "No enclave here holds the key to which this request was sealed; keys rotate. Attest again and "
            "seal to the key that the new report attests."
        ),
        outcome=Outcome.UNKNOWN_KEY,
    )


def unavailable(detail: str, *, retry_after_s: int) -> Problem:
    """No enclave can take the request; none has seen it."""
    return Problem(
        status=503,
        type=media.PROBLEM_UNAVAILABLE,
        title="No enclave available",
        detail=detail,
        outcome=Outcome.UNAVAILABLE,
        retry_after_s=retry_after_s,
    )


def enclave_died() -> Problem:
    """The enclave had the request and ended before the first byte of its answer.

    502 and not 503: a 503 says that no enclave saw the request, which makes sending it again safe.
    """
    return Problem(
        status=502,
        type=media.PROBLEM_UNAVAILABLE,
        title="Enclave ended before it answered",
        detail=(
            "The enclave ended after it had been given this request and before it answered. What it held is "
            "gone, and so are its keys: attest again."
        ),
        outcome=Outcome.ENCLAVE_DIED,
    )


def enclave_silent(idle_s: float) -> Problem:
    """The enclave took the request and then sent nothing for too long."""
    return Problem(
        status=504,
        type=media.PROBLEM_UNAVAILABLE,
        title="Enclave did not answer in time",
        detail=f"The enclave sent nothing for {idle_s:g} seconds.",
        outcome=Outcome.TIMEOUT,
    )

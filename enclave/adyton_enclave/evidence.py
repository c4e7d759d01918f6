# SPDX-License-Identifier: Apache-2.0
"""Evidence on demand: a quote over the current keyset and the caller's challenge (``aci/1`` section 3).

A quote costs the platform up to a second, so callers share a token bucket, and quotes are made one at a time on
a thread beside the event loop. SECURITY: what is quoted is always the digest of a statement that we build; the
caller contributes 32 bytes of challenge to it and nothing else.
"""

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl

from adyton_enclave.attester import Attester
from adyton_enclave.keys import KeyRing
from adyton_enclave.log import Happening, note
from adyton_enclave.outer import Problem, Scope, Send, answer
from adyton_protocol.errors import AttestationError, LocalProtocolError
from adyton_protocol.media import PROBLEM_BUSY, PROBLEM_MALFORMED, PROBLEM_UNAVAILABLE
from adyton_protocol.report import AttestationReport
from adyton_protocol.statement import as_nonce, report_data

_BAD_CHALLENGE: Final = Problem(
    status=400,
    kind=PROBLEM_MALFORMED,
    detail="the query must be nonce= and a fresh challenge of 64 lower-case hexadecimal digits, once",
)
_NO_QUOTE: Final = Problem(status=503, kind=PROBLEM_UNAVAILABLE, detail="the platform gave no quote")


class TokenBucket:
    """A rate limit: ``burst`` at once, then ``per_minute`` on average."""

    def __init__(self, *, per_minute: int, burst: int, monotonic: Callable[[], float]) -> None:
        self._per_s = per_minute / 60
        self._burst = float(burst)
        self._monotonic = monotonic
        self._tokens = self._burst
        self._at_s = monotonic()

    def wait_s(self) -> float:
        """Take one token and return 0, or take none and return the seconds until there is one."""
        now_s = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_s
        self._tokens -= 1
        return 0.0


def _challenge(scope: Scope) -> str:
    """The one parameter of the query, checked.

    Raises:
        ValueError: Missing, malformed, given twice, or not alone.
    """
    query = parse_qsl(scope["query_string"].decode("ascii"), strict_parsing=True, max_num_fields=1)
    ((name, value),) = query
    if name != "nonce":
        raise ValueError("unknown parameter")
    try:
        return as_nonce(value)
    except LocalProtocolError as error:
        raise ValueError("not a challenge") from error


class EvidenceDesk:
    """Attests the current keyset."""

    def __init__(self, attester: Attester, ring: KeyRing, bucket: TokenBucket) -> None:
        self._attester = attester
        self._ring = ring
        self._bucket = bucket
        self._turn = asyncio.Lock()

    async def attest(self, nonce: str | None) -> AttestationReport:
        """Quote the current keyset.

        Args:
            nonce: The challenge, 64 hexadecimal digits, or None to see whether the platform works at all.

        Raises:
            AttestationError: The platform gave no quote.
        """
        async with self._turn:
            keyset = self._ring.current().keyset
            quote = await asyncio.to_thread(self._attester.quote, report_data(keyset.digest(), nonce))
        return AttestationReport(tee_type=self._attester.tee_type, quote=quote, keyset=keyset, nonce=nonce)

    async def serve(self, scope: Scope, send: Send) -> None:
        """Answer ``GET /v1/aci/attestation?nonce=``."""
        try:
            nonce = _challenge(scope)
        except ValueError:
            await _BAD_CHALLENGE.send(send)
            return
        wait_s = self._bucket.wait_s()
        if wait_s:
            retry = str(int(wait_s) + 1).encode("ascii")
            detail = "too many challenges; quotes are made one at a time"
            await Problem(
                status=429, kind=PROBLEM_BUSY, detail=detail, headers=((b"retry-after", retry),)
            ).send(send)
            return
        try:
            report = await self.attest(nonce)
        except AttestationError as error:
            note(Happening.QUOTE_FAILED, error=error)
            await _NO_QUOTE.send(send)
            return
        await answer(send, 200, "application/json", report.to_bytes())

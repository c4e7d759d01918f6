# SPDX-License-Identifier: Apache-2.0
"""Evidence on demand: a quote over the current keyset and the caller's challenge (``aci/1`` section 3).

A quote costs the platform up to a second, so callers share a token bucket, and quotes are made one at a time on
a thread beside the event loop. SECURITY: what is quoted is always the digest of a statement that we build; the
caller contributes 32 bytes of challenge to it and nothing else. Without a challenge the one quote of the epoch is
served, which proves no freshness; appraisal refuses it.
"""

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl

from adyton_enclave.attester import Attester
from adyton_enclave.keys import KeyRing
from adyton_enclave.log import Happening, note
from adyton_enclave.outer import Problem, Scope, Send, answer, header
from adyton_protocol.cmw_evidence import WrappedEvidence, encode_evidence
from adyton_protocol.errors import AttestationError, LocalProtocolError
from adyton_protocol.media import (
    EVIDENCE_TYPES,
    PROBLEM_BUSY,
    PROBLEM_MALFORMED,
    PROBLEM_NOT_ACCEPTABLE,
    PROBLEM_UNAVAILABLE,
    REPORT_JSON,
    evidence_type,
)
from adyton_protocol.report import AttestationReport
from adyton_protocol.statement import as_nonce, report_data

_BAD_CHALLENGE: Final = Problem(
    status=400,
    kind=PROBLEM_MALFORMED,
    detail="the query must be nonce= and a fresh challenge of 64 lower-case hexadecimal digits, once",
    error_type="invalid_request_error",
)
_NOT_ACCEPTABLE: Final = Problem(
    status=406,
    kind=PROBLEM_NOT_ACCEPTABLE,
    detail=f"evidence is served as {', '.join(EVIDENCE_TYPES)}",
    error_type="invalid_request_error",
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


def _challenge(scope: Scope) -> str | None:
    """The one parameter of the query, checked; None without a query.

    Raises:
        ValueError: Malformed, given twice, or not alone.
    """
    if not scope["query_string"]:
        return None
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
        self._unchallenged: AttestationReport | None = None

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

    async def unchallenged(self) -> AttestationReport:
        """Quote the current keyset without a challenge, once in its life (``aci/1`` section 3.2).

        Raises:
            AttestationError: The platform gave no quote.
        """
        kept = self._unchallenged
        if kept is None or kept.keyset is not self._ring.current().keyset:
            kept = self._unchallenged = await self.attest(None)
        return kept

    def _has_unchallenged(self) -> bool:
        kept = self._unchallenged
        return kept is not None and kept.keyset is self._ring.current().keyset

    async def serve(self, scope: Scope, send: Send) -> None:
        """Answer ``GET /v1/aci/attestation``, with or without ``?nonce=``, in the encoding that is asked for."""
        try:
            nonce = _challenge(scope)
        except ValueError:
            await _BAD_CHALLENGE.send(send)
            return
        media_type = evidence_type(header(scope, b"accept"))
        if media_type is None:
            await _NOT_ACCEPTABLE.send(send)
            return
        # Only a new quote costs the platform anything.
        wait_s = 0.0 if nonce is None and self._has_unchallenged() else self._bucket.wait_s()
        if wait_s:
            retry = str(int(wait_s) + 1).encode("ascii")
            detail = "too many challenges; quotes are made one at a time"
            await Problem(
                status=429, kind=PROBLEM_BUSY, detail=detail, headers=((b"retry-after", retry),)
            ).send(send)
            return
        try:
            report = await (self.unchallenged() if nonce is None else self.attest(nonce))
        except AttestationError as error:
            note(Happening.QUOTE_FAILED, error=error)
            await _NO_QUOTE.send(send)
            return
        if media_type == REPORT_JSON:
            body = report.to_bytes()
        else:
            body = encode_evidence(WrappedEvidence(report=report), media_type)
        await answer(send, 200, media_type, body, headers=((b"vary", b"accept"),))

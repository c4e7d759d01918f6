# SPDX-License-Identifier: Apache-2.0
"""One bounded HTTP GET after another: limits on size, time and patience, and typed errors.

Nothing that a server says steers more than its own answer: redirects are refused and not followed, compressed answers
are refused and not unpacked, credentials, proxies and certificates are not taken from the environment. TLS is verified.
It protects no secret, but it keeps a stranger from choosing which endorsements we see for as long as these are valid.
"""

import contextlib
import math
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from adyton_protocol.errors import (
    ConfigError,
    EndorsementsNotPublished,
    EndorsementSourceError,
    EndorsementsUnavailable,
)

MAX_BODY_BYTES: Final = 256 * 1024
"""Largest answer that is read. TCB info has some 10 KiB, a revocation list up to some tens."""

_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_ABSENT: Final = frozenset({404, 410})
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long and how often to try; times in seconds.

    Attributes:
        attempts: How often one document is asked for.
        first_pause_s: Pause after the first failure; doubles with each.
        longest_pause_s: Longest pause, whatever the server advises.
        step_s: Limit on each step of I/O.
        total_s: Limit on everything that one :class:`Fetcher` does.
    """

    attempts: int = 3
    first_pause_s: float = 0.5
    longest_pause_s: float = 8.0
    step_s: float = 10.0
    total_s: float = 60.0


PATIENT: Final = Patience()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer with status 200; attacker-controlled.

    Attributes:
        body: At most :data:`MAX_BODY_BYTES`.
        headers: Its headers.
    """

    body: bytes
    headers: httpx.Headers


class _Again(Exception):
    """This attempt failed in a way that the next one need not."""

    def __init__(self, why: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


def check_url(url: str) -> httpx.URL:
    """Accept the address of a service that the caller chose.

    Raises:
        ConfigError: Not ``https``, except on this very machine, or with more than an address in it.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as cause:
        raise ConfigError("the address of the endorsement service is not a URL") from cause
    near = parsed.scheme == "http" and parsed.host in _LOOPBACK
    if (parsed.scheme != "https" and not near) or not parsed.host:
        raise ConfigError(
            "the address of an endorsement service begins with https:// (http:// on loopback only)"
        )
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigError("the address of an endorsement service has no user name, query or fragment")
    return parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """How to reach services.

    Attributes:
        ca_file: PEM file with the only authorities to accept for TLS, for a caching service with a CA of its own;
            None means the usual public ones.
        proxy: URL of a proxy; none is taken from the environment.
        patience: Limits.
        pause: Waits some seconds.
        clock: Monotonic seconds.
    """

    ca_file: Path | None = None
    proxy: str | None = None
    patience: Patience = PATIENT
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    @contextlib.contextmanager
    def fetcher(self, source: str) -> Iterator["Fetcher"]:
        """Make the fetcher of one set, with connections of its own, for the time of the block.

        Raises:
            ConfigError: The CA file or the proxy is unusable.
        """
        with _open_http(self) as http:
            yield Fetcher(http, self, source=source)


def _open_http(dial: Dial) -> httpx.Client:
    try:
        context = (
            httpx.create_ssl_context(trust_env=False)
            if dial.ca_file is None
            else ssl.create_default_context(cafile=str(dial.ca_file))
        )
    except (OSError, ssl.SSLError) as cause:
        raise ConfigError(f"{dial.ca_file} does not hold CA certificates in PEM") from cause
    try:
        return httpx.Client(
            verify=context,
            proxy=dial.proxy,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(dial.patience.step_s),
            headers={"user-agent": "adyton", "accept-encoding": "identity"},
        )
    except (ValueError, httpx.InvalidURL) as cause:
        raise ConfigError("the proxy is not the URL of one") from cause


class Fetcher:
    """Asks one source for documents, patiently and within bounds."""

    def __init__(self, http: httpx.Client, dial: Dial, *, source: str) -> None:
        """Take the connection and its limits; the time for everything runs from here.

        Args:
            http: Does not follow redirects.
            dial: Patience, pause and clock.
            source: Name of the source, for errors.
        """
        self._http = http
        self.source: Final = source
        self._patience = dial.patience
        self._pause = dial.pause
        self._clock = dial.clock
        self._deadline_s = dial.clock() + dial.patience.total_s

    def get(self, url: str | httpx.URL, *, what: str) -> Reply:
        """Get one document.

        Args:
            url: Where, query included.
            what: Which, for errors.

        Raises:
            EndorsementsUnavailable: The source cannot be reached, is busy or too slow.
            EndorsementsNotPublished: It says that there is none.
            EndorsementSourceError: It redirects, sends too much, or refuses the question.
        """
        pause_s, attempt = self._patience.first_pause_s, 1
        while True:
            try:
                return self._attempt(url, what)
            except _Again as failure:
                wait_s = min(max(pause_s, failure.retry_after_s or 0.0), self._patience.longest_pause_s)
                left_s = self._deadline_s - self._clock()
                if attempt == self._patience.attempts or wait_s >= left_s:
                    raise EndorsementsUnavailable(
                        f"{self.source}: {what} could not be had: {failure} (tried {attempt} times)",
                        source=self.source,
                        retry_after_s=failure.retry_after_s,
                    ) from failure
                self._pause(wait_s)
                pause_s, attempt = pause_s * 2, attempt + 1

    def _attempt(self, url: str | httpx.URL, what: str) -> Reply:
        try:
            with self._http.stream("GET", url) as response:
                self._check_status(response, what)
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise self._fault(f"{what} came compressed, which was not asked for")
                return Reply(body=self._read(response.iter_raw(), what), headers=response.headers)
        except httpx.TimeoutException as cause:
            raise _Again("no answer in time") from cause
        except (httpx.HTTPError, httpx.StreamError, OSError) as cause:
            if _certificate_refused(cause):
                raise EndorsementsUnavailable(
                    f"{self.source}: its TLS certificate is not accepted; "
                    "a caching service with a CA of its own needs the file of that CA",
                    source=self.source,
                ) from cause
            raise _Again(f"the connection failed ({type(cause).__name__})") from cause

    def _check_status(self, response: httpx.Response, what: str) -> None:
        status = response.status_code
        if status == _OK:
            return
        if status in _ABSENT:
            raise EndorsementsNotPublished(
                f"{self.source}: there is no {what} (status {status})", source=self.source
            )
        if status in _BUSY:
            raise _Again(f"status {status}", retry_after_s=_seconds(response.headers.get("retry-after")))
        if status in _REDIRECTS:
            # SECURITY: where to ask was the caller's choice; a server does not get to change it.
            raise self._fault(
                f"it redirects to another place for {what} (status {status}), which is not followed"
            )
        raise self._fault(f"it refuses the question for {what} (status {status})")

    def _read(self, pieces: Iterator[bytes], what: str) -> bytes:
        body = bytearray()
        for piece in pieces:
            body += piece
            # SECURITY: both bounds hold while reading, so that neither a giant nor a trickle keeps us.
            if len(body) > MAX_BODY_BYTES:
                raise self._fault(f"{what} is larger than {MAX_BODY_BYTES} bytes")
            if self._clock() > self._deadline_s:
                raise _Again("no end of the answer in time")
        return bytes(body)

    def _fault(self, why: str) -> EndorsementSourceError:
        return EndorsementSourceError(f"{self.source}: {why}", source=self.source)


def _certificate_refused(error: BaseException) -> bool:
    """Whether TLS verification is among the causes; asking again would not help."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _seconds(text: str | None) -> float | None:
    try:
        seconds = math.nan if text is None else float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None

# SPDX-License-Identifier: Apache-2.0
"""Keeps the endorsements fresh that clients fetch here, by running the verifier side's own program as a subprocess.

The host must not load that code, and need not understand what it gets: clients check every signature. The program
replaces the file that is served in one step, or leaves it alone; while the source is away, clients get what was there
before, for as long as that holds. Nothing here keeps an enclave from serving.
"""

import asyncio
import contextlib
import enum
import json
import logging
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from adyton_host.logs import log
from adyton_host.routing import RoutingTable
from adyton_protocol import media

NOT_REFRESHED: Final = "none"
"""As a source: the file is somebody else's business."""

_MODULE: Final = "adyton_attestation.sources.refresh"
_CLEAN_ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_HTTP_OK: Final = 200
_REPORT_TIMEOUT_S: Final = 20.0
_CHALLENGE_BYTES: Final = 32
_MAX_NOTICE_CHARS: Final = 500


class Refreshed(enum.StrEnum):
    """What came of one refresh; the program's own words, and two of ours."""

    FRESH = "fresh"
    KEPT = "kept"
    UNAVAILABLE = "unavailable"
    UNUSABLE = "unusable"
    FAILED = "failed"
    NO_ENCLAVE = "no-enclave"

    @property
    def served(self) -> bool:
        """Whether the file holds endorsements that hold now."""
        return self in {Refreshed.FRESH, Refreshed.KEPT}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSettings:
    """What to refresh, from where, how often; times in seconds.

    Attributes:
        out: The file that clients are served.
        cache: Directory of the program's own.
        source: ``pcs``, ``pccs=URL``, or the path of a collateral file or a bundle.
        source_ca: PEM file with the CA of a caching service that has one of its own.
        proxy: URL of a proxy on the way to the source.
        carrier: Whose bundle the source may be.
        root: A root certificate instead of Intel's.
        interval_s: Pause after a refresh that brought the newest.
        retry_s: Pause after one that did not.
        poll_s: Pause while no enclave attests.
        timeout_s: Longest time that the program may take.
    """

    out: Path
    cache: Path
    source: str = "pcs"
    source_ca: Path | None = None
    proxy: str | None = None
    carrier: str | None = None
    root: Path | None = None
    interval_s: float = 4 * 3600.0
    retry_s: float = 600.0
    poll_s: float = 2.0
    timeout_s: float = 180.0

    def command(self) -> list[str]:
        """Program and arguments; the report goes to its standard input."""
        command = [sys.executable, "-I", "-m", _MODULE, "--out", str(self.out), "--cache", str(self.cache)]
        command += ["--source", self.source]
        for name, value in (
            ("--source-ca", self.source_ca),
            ("--proxy", self.proxy),
            ("--carrier", self.carrier),
            ("--root", self.root),
        ):
            command += [] if value is None else [name, str(value)]
        return command


Reports = Callable[[], Awaitable[bytes | None]]
"""Returns an attestation report of an enclave that serves here, or None while there is none."""


class EndorsementRefresher:
    """Refreshes one file again and again."""

    def __init__(
        self,
        settings: RefreshSettings,
        reports: Reports,
        *,
        on_refreshed: Callable[[Refreshed, int | None], None] = lambda _outcome, _expires_s: None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Start nothing yet.

        Args:
            settings: What, from where, how often.
            reports: Says which platform this is.
            on_refreshed: Told each outcome, and until when what is served holds (Unix time), when that is known.
            pause: Waits some seconds.
        """
        self._settings = settings
        self._reports = reports
        self._on_refreshed = on_refreshed
        self._pause = pause

    async def run(self) -> None:
        """Refresh until cancelled; no failure ends it."""
        settings = self._settings
        while True:
            match await self.refresh():
                case Refreshed.FRESH:
                    await self._pause(settings.interval_s)
                case Refreshed.NO_ENCLAVE:
                    await self._pause(settings.poll_s)
                case _:
                    await self._pause(settings.retry_s)

    async def refresh(self) -> Refreshed:
        """Refresh once."""
        report = await self._reports()
        if report is None:
            return Refreshed.NO_ENCLAVE
        try:
            state = _read_state(await self._run_program(report))
        except (OSError, TimeoutError) as error:
            state = {"status": Refreshed.FAILED.value, "notice": type(error).__name__}
        outcome = Refreshed(str(state["status"]))
        expires_s = state.get("expires_s")
        until_s = expires_s if type(expires_s) is int else None
        log(
            "endorsements-refreshed",
            level=logging.INFO if outcome is Refreshed.FRESH else logging.WARNING,
            outcome=outcome.value,
            error=_short(state.get("error")),
            notice=_short(state.get("notice")),
            expires_s=until_s,
        )
        self._on_refreshed(outcome, until_s)
        return outcome

    async def _run_program(self, report: bytes) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *self._settings.command(),
            env=dict(_CLEAN_ENVIRONMENT),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Ctrl-C in a terminal reaches the host alone, which then ends this process.
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                said, _ = await process.communicate(report)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return said


def reports_of(client: httpx.AsyncClient, table: RoutingTable) -> Reports:
    """Get reports from whichever enclave attests; the challenge is thrown away, because nobody appraises here."""

    async def fetch() -> bytes | None:
        for base_url, readiness in table.snapshot().items():
            if readiness.ready:
                url = f"{base_url}{media.ATTESTATION_PATH}?nonce={secrets.token_hex(_CHALLENGE_BYTES)}"
                try:
                    return await _fetch(client, url)
                except httpx.HTTPError:
                    continue
        return None

    return fetch


async def _fetch(client: httpx.AsyncClient, url: str) -> bytes | None:
    body = bytearray()
    async with client.stream("GET", url, timeout=_REPORT_TIMEOUT_S) as response:
        if response.status_code != _HTTP_OK:
            return None
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > media.MAX_REPORT_BYTES:
                return None
    return bytes(body)


def _read_state(said: bytes) -> dict[str, object]:
    """Read what the program said; anything else means that it broke off."""
    try:
        state = json.loads(said)
    except ValueError:
        state = None
    if isinstance(state, dict) and state.get("status") in set(Refreshed):
        return state
    return {"status": Refreshed.FAILED.value, "notice": "the program said nothing that can be read"}


def _short(text: object) -> str | None:
    """Words of our own program, which may name a source and a status; bounded all the same."""
    return "".join(c for c in text if c.isprintable())[:_MAX_NOTICE_CHARS] if isinstance(text, str) else None

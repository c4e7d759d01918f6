# SPDX-License-Identifier: Apache-2.0
"""Which enclave holds which key id.

The table is learnt from the enclaves' own ``/readyz``, refreshed in the background and whenever a request
names a key id that nobody is known to hold. It decides about availability alone: a wrong entry sends sealed
bytes to an enclave that cannot open them.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from adyton_host.logs import log

_READY_PATH: Final = "/readyz"
_HTTP_OK: Final = 200
_MAX_READY_BYTES: Final = 64 * 1024
_MAX_KEY_ID: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """What an enclave says about itself.

    Attributes:
        ready: It attests and takes requests.
        key_ids: Key ids that it can open, the current one first.
        not_after: Unix time at which its keyset expires, or None when it did not say.
        waiting: Names of sealed models whose keys have not been released to it. It takes sealed requests, above all
            those with the keys, but serves no model yet.
    """

    ready: bool
    key_ids: tuple[int, ...] = ()
    not_after: int | None = None
    waiting: tuple[str, ...] = ()

    @property
    def serving(self) -> bool:
        """True when it attests and nothing is missing."""
        return self.ready and not self.waiting


NOT_READY: Final = Readiness(ready=False)


def parse_readiness(body: bytes) -> Readiness:
    """Read an enclave's ``/readyz`` document; whatever is not one means "not ready"."""
    try:
        document = json.loads(body)
    except ValueError:
        return NOT_READY
    if not isinstance(document, dict) or document.get("ready") is not True:
        return NOT_READY
    key_ids = document.get("key_ids")
    if not isinstance(key_ids, list) or not key_ids:
        return NOT_READY
    if not all(type(key_id) is int and 0 <= key_id <= _MAX_KEY_ID for key_id in key_ids):
        return NOT_READY
    not_after = document.get("not_after")
    waiting = document.get("waiting_for_keys", [])
    if not isinstance(waiting, list) or not all(isinstance(name, str) for name in waiting):
        return NOT_READY
    return Readiness(
        ready=True,
        key_ids=tuple(key_ids),
        not_after=not_after if type(not_after) is int else None,
        waiting=tuple(waiting),
    )


async def probe(client: httpx.AsyncClient, base_url: str, timeout_s: float) -> Readiness:
    """Ask one enclave whether it is ready; an enclave that cannot be asked is not."""
    try:
        async with client.stream("GET", base_url + _READY_PATH, timeout=timeout_s) as response:
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > _MAX_READY_BYTES:
                    return NOT_READY
    except httpx.HTTPError:
        return NOT_READY
    return parse_readiness(bytes(body)) if response.status_code == _HTTP_OK else NOT_READY


class RoutingTable:
    """The enclaves behind one relay."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        refresh_s: float = 1.0,
        min_interval_s: float = 0.05,
        probe_timeout_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty.

        Args:
            client: Used for ``/readyz`` only.
            refresh_s: Pause between two refreshes in the background.
            min_interval_s: Shortest time between two refreshes, whoever asks: clients choose key ids, so a
                flood of unknown ones must not become a flood of probes.
            probe_timeout_s: How long one enclave may take to answer a probe.
            clock: Monotonic seconds.
        """
        self._client = client
        self._refresh_s = refresh_s
        self._min_interval_s = min_interval_s
        self._probe_timeout_s = probe_timeout_s
        self._clock = clock
        self._enclaves: dict[str, Readiness] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_s = float("-inf")
        self._turn = 0

    def add(self, base_url: str, readiness: Readiness = NOT_READY) -> None:
        """Take an enclave in."""
        self._enclaves[base_url] = readiness

    def remove(self, base_url: str) -> None:
        """Forget an enclave that has ended."""
        self._enclaves.pop(base_url, None)

    def mark_down(self, base_url: str) -> None:
        """Note that an enclave could not be reached; the next probe may find it again."""
        if base_url in self._enclaves:
            self._enclaves[base_url] = NOT_READY

    def snapshot(self) -> dict[str, Readiness]:
        """What is known now."""
        return dict(self._enclaves)

    def ready_count(self) -> int:
        """How many enclaves take requests."""
        return sum(readiness.ready for readiness in self._enclaves.values())

    def serving_count(self) -> int:
        """How many enclaves serve models."""
        return sum(readiness.serving for readiness in self._enclaves.values())

    def waiting(self) -> tuple[str, ...]:
        """Models for whose keys some enclave waits, each once."""
        return tuple(dict.fromkeys(name for each in self._enclaves.values() for name in each.waiting))

    def any_ready(self) -> str | None:
        """Base URL of a ready enclave, each in turn, or None."""
        ready = [base_url for base_url, readiness in self._enclaves.items() if readiness.ready]
        if not ready:
            return None
        self._turn += 1
        return ready[self._turn % len(ready)]

    def holder(self, key_id: int) -> str | None:
        """Base URL of the ready enclave that holds ``key_id``, or None."""
        for base_url, readiness in self._enclaves.items():
            if readiness.ready and key_id in readiness.key_ids:
                return base_url
        return None

    async def find(self, key_id: int) -> str | None:
        """As :meth:`holder`, but ask the enclaves again before saying None."""
        found = self.holder(key_id)
        if found is None:
            await self.refresh()
            found = self.holder(key_id)
        return found

    async def find_any(self) -> str | None:
        """As :meth:`any_ready`, but ask the enclaves again before saying None."""
        found = self.any_ready()
        if found is None:
            await self.refresh()
            found = self.any_ready()
        return found

    async def refresh(self) -> None:
        """Probe every enclave. Callers at the same time share one round."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        # A caller that goes away must not cancel the round of the others.
        await asyncio.shield(self._refreshing)

    async def run(self) -> None:
        """Refresh in the background until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._refresh_s)

    async def close(self) -> None:
        """Stop a round that is under way."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    async def _refresh(self) -> None:
        wait_s = self._refreshed_s + self._min_interval_s - self._clock()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        before = self.snapshot()
        found = await asyncio.gather(
            *(probe(self._client, base_url, self._probe_timeout_s) for base_url in before)
        )
        self._refreshed_s = self._clock()
        for base_url, readiness in zip(before, found, strict=True):
            # An enclave may have been removed or replaced while it was asked.
            if base_url in self._enclaves:
                self._enclaves[base_url] = readiness
            if readiness.ready != before[base_url].ready:
                log("enclave-ready" if readiness.ready else "enclave-not-ready", level=logging.WARNING)

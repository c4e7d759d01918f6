# SPDX-License-Identifier: Apache-2.0
"""The asynchronous twin of :mod:`adyton.client`."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx

from adyton.address import INNER_BASE_URL, Address
from adyton.edge import Clock, fresh_challenge, wall_clock_s
from adyton.ra_tls import AsyncRaTlsTransport, tls_address
from adyton.receipts import ReceiptRecord
from adyton.sdk import make_async_openai
from adyton.session import Attested, Verdict
from adyton.simulation import Simulation
from adyton.transport import DEFAULT_TIMEOUT, OUTER_LIMITS, AsyncDriver, AsyncSealedTransport, Link
from adyton.trust import PolicySource, ReleasesOrigin, new_session
from adyton.wire import Dialer
from adyton_attestation.sources.supply import EndorsementSupply

if TYPE_CHECKING:
    import openai


class AsyncClient:
    """As :class:`adyton.Client`, for one asyncio event loop."""

    def __init__(  # noqa: PLR0913 - one keyword for each choice that is the caller's
        self,
        base_url: str,
        *,
        policy: PolicySource | None = None,
        simulation: Simulation | None = None,
        endorsements: EndorsementSupply | None = None,
        releases: ReleasesOrigin | None = None,
        api_key: str | None = None,
        timeout: httpx.Timeout | float | None = DEFAULT_TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock = wall_clock_s,
    ) -> None:
        """Takes the arguments of :class:`adyton.Client`, with an asynchronous ``transport``.

        Raises:
            ConfigError: The arguments contradict each other or a file is unusable.
        """
        address = Address.parse(base_url)
        session = new_session(policy, simulation, releases=releases)
        link = Link(
            Dialer(address=address, api_key=api_key),
            session,
            clock=clock,
            challenges=fresh_challenge,
            endorsements=endorsements,
        )
        self._outer = (
            httpx.AsyncHTTPTransport(trust_env=False, limits=OUTER_LIMITS) if transport is None else transport
        )
        self._driver = AsyncDriver(link, self._outer)
        self._timeout = timeout
        self.base_url = address.base_url

    async def verify(self) -> Verdict:
        """Attest now; see :meth:`adyton.Client.verify`."""
        return (await self._driver.attest(anew=True)).verdict

    async def attest(self) -> Attested:
        """Return the current appraisal with its evidence; attests if there is none."""
        return await self._driver.attest()

    def http(self) -> httpx.AsyncClient:
        """Make an HTTP client whose requests go sealed; see :meth:`adyton.Client.http`."""
        return httpx.AsyncClient(
            transport=AsyncSealedTransport(self._driver),
            base_url=INNER_BASE_URL,
            timeout=self._timeout,
            trust_env=False,
            follow_redirects=False,
        )

    def ra_tls(self, base_url: str) -> httpx.AsyncClient:
        """Make an HTTP client that speaks TLS with the enclave itself; see :meth:`adyton.Client.ra_tls`."""
        return httpx.AsyncClient(
            transport=AsyncRaTlsTransport(self._driver, tls_address(base_url)),
            base_url=INNER_BASE_URL,
            timeout=self._timeout,
            trust_env=False,
            follow_redirects=False,
        )

    def async_openai(self, *, max_retries: int = 0) -> "openai.AsyncOpenAI":
        """Make an unmodified asynchronous openai SDK object; see :meth:`adyton.Client.openai`."""
        return make_async_openai(self.http(), max_retries=max_retries)

    @property
    def receipts(self) -> tuple[ReceiptRecord, ...]:
        """The last receipts; see :attr:`adyton.Client.receipts`."""
        return self._driver.link.ledger.all()

    @property
    def last_receipt(self) -> ReceiptRecord | None:
        """The newest receipt; see :attr:`adyton.Client.last_receipt`."""
        return self._driver.link.ledger.last()

    async def aclose(self) -> None:
        """Close the connections to the host."""
        await self._outer.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

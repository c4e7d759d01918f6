# SPDX-License-Identifier: Apache-2.0
"""The synchronous client: one object per appliance, from which ready-made HTTP and SDK clients come.

::

    from adyton import Client

    with Client("https://appliance.example", policy="policy.toml") as client:
        answer = client.openai().chat.completions.create(
            model="adyton-words-3m", messages=[{"role": "user", "content": "..."}]
        )
        client.last_receipt.to_json()
"""

from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx

from adyton.address import INNER_BASE_URL, Address
from adyton.edge import Clock, fresh_challenge, wall_clock_s
from adyton.ra_tls import RaTlsTransport, tls_address
from adyton.receipts import ReceiptRecord
from adyton.sdk import make_openai
from adyton.session import Attested, Verdict
from adyton.simulation import Simulation
from adyton.transport import DEFAULT_TIMEOUT, OUTER_LIMITS, Driver, Link, SealedTransport
from adyton.trust import PolicySource, ReleasesOrigin, new_session
from adyton.wire import Dialer
from adyton_attestation.sources.supply import EndorsementSupply

if TYPE_CHECKING:
    import openai


class Client:
    """A client of one appliance. Nothing is sent before the appliance's enclave has been appraised.

    Safe to use from several threads. Everything it hands out shares its attested session and its connections,
    and lives as long as it does.
    """

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
        transport: httpx.BaseTransport | None = None,
        clock: Clock = wall_clock_s,
    ) -> None:
        """Connects to nothing yet; the first request, or :meth:`verify`, attests.

        Args:
            base_url: Address of the appliance, without ``/v1``.
            policy: Appraisal policy for a real appliance, or the path of its JSON file.
            simulation: Trust anchors of a simulated appliance, instead of a policy.
            endorsements: Where to get endorsements instead of from the appliance; see :mod:`adyton.endorsements`.
            releases: A release file, or its path, instead of the one that the appliance carries.
            api_key: Credential for the host; the enclave does not see it.
            timeout: Limits in seconds for each step of a request's I/O.
            transport: How to reach the host: any httpx transport, for example one with a proxy or a private
                CA. Trust does not rest on it.
            clock: Unix time in seconds.

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
            httpx.HTTPTransport(trust_env=False, limits=OUTER_LIMITS) if transport is None else transport
        )
        self._driver = Driver(link, self._outer)
        self._timeout = timeout
        self.base_url = address.base_url

    def verify(self) -> Verdict:
        """Attest now, with a fresh challenge, whatever was known before.

        Returns:
            ``AttestationResult``, or ``SimulatedResult`` if this client was made for a simulation.

        Raises:
            AttestationError: The appliance is not accepted; ``.checks`` says why, check by check.
            EndorsementsUnavailable: Nothing is known about the appliance, because no endorsements could be had.
            TransportError: The host cannot be reached or will not serve the evidence.
        """
        return self._driver.attest(anew=True).verdict

    def attest(self) -> Attested:
        """Return the current appraisal with its evidence; attests if there is none."""
        return self._driver.attest()

    def http(self) -> httpx.Client:
        """Make an HTTP client; its requests, such as ``.get("/v1/models")``, go sealed.

        Closing it leaves this object usable.
        """
        # A transport of its own keeps httpx from consulting proxy variables, which would go around the seal.
        return httpx.Client(
            transport=SealedTransport(self._driver),
            base_url=INNER_BASE_URL,
            timeout=self._timeout,
            trust_env=False,
            follow_redirects=False,
        )

    def ra_tls(self, base_url: str) -> httpx.Client:
        """Make an HTTP client that speaks TLS with the enclave itself, through the host; the second channel.

        Requests go in ordinary HTTP, to nobody but the enclave that was attested; see :mod:`adyton.ra_tls` for what is
        checked, and what this channel hides less well than :meth:`http`. Close it when done.

        Args:
            base_url: Where the host passes TLS through, ``https://...``.

        Raises:
            ConfigError: The address is not an https address.
        """
        return httpx.Client(
            transport=RaTlsTransport(self._driver, tls_address(base_url)),
            base_url=INNER_BASE_URL,
            timeout=self._timeout,
            trust_env=False,
            follow_redirects=False,
        )

    def openai(self, *, max_retries: int = 0) -> "openai.OpenAI":
        """Make an unmodified openai SDK object whose requests go sealed.

        Args:
            max_retries: How often the SDK itself may repeat a request that the enclave refused (for instance
                because its queue was full). Each repetition is a request of its own with its own receipt.

        Raises:
            ConfigError: The SDK is not installed (extra ``openai``).
        """
        return make_openai(self.http(), max_retries=max_retries)

    @property
    def receipts(self) -> tuple[ReceiptRecord, ...]:
        """The last receipts, oldest first, each checked and with the evidence behind its keys."""
        return self._driver.link.ledger.all()

    @property
    def last_receipt(self) -> ReceiptRecord | None:
        """The newest receipt; with concurrent requests, that of whichever answer ended last."""
        return self._driver.link.ledger.last()

    def close(self) -> None:
        """Close the connections to the host."""
        self._outer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

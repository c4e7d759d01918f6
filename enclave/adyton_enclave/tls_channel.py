# SPDX-License-Identifier: Apache-2.0
"""The life of the second channel: its listener, its certificates, its server.

A certificate is made for each epoch, as soon as the epoch has begun; connections that stand keep the key they began
with. Until its two quotes are there, the last epoch's certificate goes on serving, which is why keysets list both keys.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import uvicorn

from adyton_enclave.attester import Attester
from adyton_enclave.config import Configuration
from adyton_enclave.http_server import server_config
from adyton_enclave.keys import KeyEpoch, KeyRing
from adyton_enclave.log import Happening, note
from adyton_enclave.tls_front import TlsFront
from adyton_enclave.tls_identity import server_context
from adyton_protocol.errors import AttestationError

KEY_DIRECTORY: Final = Path("/tmp/adyton-tls")  # noqa: S108 - in an enclave its own memory; see TlsKey.install
_CHECK_S: Final = 1.0
_RETRY_S: Final = 5.0


class _Server(uvicorn.Server):
    """uvicorn, but the enclave's own server handles the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class TlsChannel:
    """Serves one front over TLS, with a certificate for each epoch."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        front: TlsFront,
        ring: KeyRing,
        attester: Attester,
        wall_s: Callable[[], int],
        key_directory: Path = KEY_DIRECTORY,
    ) -> None:
        """Prepare; nothing is served yet.

        Args:
            configuration: For limits and times.
            front: What answers.
            ring: Whose epochs have TLS keys.
            attester: Makes the evidence in the certificates.
            wall_s: Unix seconds, for what clients read in certificates.
            key_directory: Where a key passes on its way into the TLS library, encrypted.
        """
        self._ring = ring
        self._attester = attester
        self._wall_s = wall_s
        self._key_directory = key_directory
        self._context = server_context()
        self._epoch: KeyEpoch | None = None
        self._server = _Server(server_config(front, configuration, make_context=self._make_context))

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled.

        Raises:
            AttestationError: The platform gives no quote for the first certificate.
        """
        await self.renew()
        serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        renewing = asyncio.create_task(self._keep_renewing())
        try:
            await asyncio.wait((serving, renewing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._server.should_exit = True
            renewing.cancel()
            await asyncio.gather(serving, renewing, return_exceptions=True)

    async def renew(self) -> None:
        """Authenticate new connections with the key of the current epoch.

        Raises:
            AttestationError: The platform gives no quote.
        """
        epoch = self._ring.current()
        if epoch is self._epoch or epoch.tls_key is None:
            return
        key, made_at_s, not_after_s = epoch.tls_key, self._wall_s(), epoch.keyset.not_after
        certificate = await asyncio.to_thread(
            key.certificate, self._attester, made_at_s=made_at_s, not_after_s=not_after_s
        )
        key.install(self._context, certificate, self._key_directory)
        self._epoch = epoch

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(min(_CHECK_S, self._ring.seconds_to_change() + 0.001))
            try:
                await self.renew()
            except AttestationError as error:
                # The last certificate serves on until it ends; clients then find it expired.
                note(Happening.QUOTE_FAILED, error=error)
                await asyncio.sleep(_RETRY_S)

    def _make_context(
        self, _config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]
    ) -> ssl.SSLContext:
        return self._context

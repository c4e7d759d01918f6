# SPDX-License-Identifier: Apache-2.0
"""The address of an appliance, and what of a caller's URL is allowed to matter.

The outer address only finds the host. The inner request always names the authority ``adyton.invalid``, so
that it does not depend on how the host is reached.
"""

from dataclasses import dataclass
from typing import Final, Self

import httpx

from adyton_protocol.errors import ConfigError, LocalProtocolError

INNER_AUTHORITY: Final = "adyton.invalid"
"""Authority of every inner request (RFC 6761 section 6.4: ``.invalid`` never resolves)."""

INNER_BASE_URL: Final = f"https://{INNER_AUTHORITY}"
"""Base URL of the HTTP and SDK clients that we hand out.

SECURITY: fails closed. Whatever in a library should go around our transport (a WebSocket, a replaced HTTP
client) meets a name that never resolves, instead of the host, who would read it.
"""

_INNER_ORIGIN: Final = ("https", INNER_AUTHORITY, 443)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the host listens.

    Attributes:
        base_url: Origin and optional path prefix, without a trailing slash, for example
            ``http://127.0.0.1:8470``.
        origin: Scheme, host and port.
        prefix: Path prefix without a trailing slash; empty for most appliances.
    """

    base_url: str
    origin: tuple[str, str, int]
    prefix: str

    @classmethod
    def parse(cls, base_url: str) -> Self:
        """Check the address that the caller configured.

        Raises:
            ConfigError: It is not the bare http(s) address of an appliance.
        """
        try:
            url = httpx.URL(base_url)
        except (httpx.InvalidURL, TypeError) as error:
            raise ConfigError("base_url is not a URL") from error
        if url.scheme not in _DEFAULT_PORTS or not url.host:
            raise ConfigError("base_url must look like http://127.0.0.1:8470 or https://appliance.example")
        if url.userinfo or url.query or url.fragment:
            raise ConfigError("base_url must carry no user name, query or fragment")
        prefix = url.path.rstrip("/")
        if prefix.endswith("/v1"):
            raise ConfigError("base_url is the appliance's address without /v1; the client adds the paths")
        port = "" if url.port is None else f":{url.port}"
        host = f"[{url.host}]" if ":" in url.host else url.host
        return cls(base_url=f"{url.scheme}://{host}{port}{prefix}", origin=_origin(url), prefix=prefix)

    def inner_path(self, url: httpx.URL) -> str:
        """Turn the URL of a caller's request into the path and query of the inner request.

        Raises:
            LocalProtocolError: The URL belongs to another origin.

        SECURITY: a sealed client must neither send anything to another origin in the clear nor carry a
        request meant for another origin to the appliance; both are refused before any byte is sent.
        """
        path = url.raw_path.decode("ascii")
        if _origin(url) == _INNER_ORIGIN:
            return path
        inside = path == self.prefix or path.startswith(f"{self.prefix}/")
        if _origin(url) != self.origin or not inside:
            raise LocalProtocolError(f"this client only talks to the appliance at {self.base_url}")
        return path[len(self.prefix) :] or "/"


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host.lower(), url.port or _DEFAULT_PORTS.get(url.scheme, 0)

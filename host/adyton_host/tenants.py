# SPDX-License-Identifier: Apache-2.0
"""Tells requests of different tenants apart for the enclave's scheduler, and tells it nothing else.

A tag is a keyed hash of the outer credential, or of the client's address where there is none. The key is made at the
start of the process, so that a tag names nobody to whoever sees it and cannot be compared between two runs.
"""

import hashlib
import ipaddress
from typing import Final

from starlette.types import Scope

_TAG_BYTES: Final = 12
_IPV6_PREFIX_BITS: Final = 64
"""One IPv6 subscriber owns at least this prefix and could send every request from another address of it."""


class TenantTags:
    """Makes tags under one key."""

    def __init__(self, key: bytes) -> None:
        """Keep the key: up to 64 secret bytes."""
        self._key = key

    def tag(self, scope: Scope) -> str:
        """The tag of a request (attacker-controlled): 24 hexadecimal digits."""
        source = b"address " + _network(scope)
        for name, value in scope["headers"]:
            if name == b"authorization":
                source = b"credential " + bytes(value)
                break
        return hashlib.blake2b(source, digest_size=_TAG_BYTES, key=self._key).hexdigest()


def _network(scope: Scope) -> bytes:
    """Where a request comes from: an IPv4 address, an IPv6 network, or whatever the server calls its peer."""
    client = scope.get("client")
    if client is None:
        return b""
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return str(client[0]).encode("utf-8", "replace")
    if isinstance(address, ipaddress.IPv6Address):
        return address.packed[: _IPV6_PREFIX_BITS // 8]
    return address.packed

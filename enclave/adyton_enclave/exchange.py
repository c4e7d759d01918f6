# SPDX-License-Identifier: Apache-2.0
"""What crosses the line between the gateway, which seals and opens, and the API, which answers.

Neither side sees the other's business: the API knows no ciphertext, the gateway knows no model. All of it was inside
the sealed request, but for ``ExchangeFacts.tenant``, which the host chose and which only the queue looks at.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from adyton_enclave.cache_namespaces import CacheNamespaces
from adyton_enclave.keys import ReceiptSigner
from adyton_enclave.privacy import Profile
from adyton_protocol.digests import Digest

INNER_HEADERS: Final = frozenset({"accept", "content-type"})
"""The only inner request headers that anybody gets to see; all others are dropped unread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerRequest:
    """An opened request; every field is the caller's and so attacker-controlled.

    Attributes:
        method: Upper case.
        path: From ``/``; a query is part of it, and no route takes one.
        headers: Lower-case names, only those of :data:`INNER_HEADERS`.
        body: The whole body.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFacts:
    """What a receipt says about the sealed exchange around a request.

    Attributes:
        enc: The encapsulated key; its digest lets the host's log be matched with a receipt.
        receipt_secret: 32 bytes that only this client and this enclave can derive; keys all commitments.
        keyset_digest: Digest of the attested keyset that the request was sealed under.
        signer: The receipt key listed in that keyset.
        accepted_at: Unix time in seconds at which the request was accepted; the enclave's claim.
        tenant: The host's tag of who shares a turn in the queue, or an empty string. SECURITY: attacker-controlled
            and unauthenticated; it may decide when a request is computed, never what is answered, what is shared
            or what a receipt says.
        namespaces: Of the epoch that the request was sealed under, for callers who ask for caching.
    """

    enc: bytes
    receipt_secret: bytes = field(repr=False)
    keyset_digest: Digest
    signer: ReceiptSigner
    accepted_at: int
    tenant: str = field(default="", repr=False)
    namespaces: CacheNamespaces = field(default_factory=CacheNamespaces, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerResponse:
    """An answer before it is padded and sealed.

    Attributes:
        status: HTTP status, which only the caller sees.
        headers: Lower-case names.
        body: A whole body, or event groups as they come. Closing the generator stops the work behind it.
        profile: How size and timing of this answer are hidden.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | AsyncGenerator[bytes, None] = field(repr=False)
    profile: Profile


class Application(Protocol):
    """The API behind the gateway."""

    async def __call__(self, request: InnerRequest, facts: ExchangeFacts) -> InnerResponse:
        """Answer one request. Failures are answers too; nothing but cancellation is raised."""
        ...

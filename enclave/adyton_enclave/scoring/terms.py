# SPDX-License-Identifier: Apache-2.0
"""On what terms scoring is done."""

from dataclasses import dataclass

from adyton_enclave.engine.request import Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringTerms:
    """When scoring is done and how long it may take; nothing here changes a score.

    Attributes:
        tenant: Who shares a place in the queue.
        timeout_s: Seconds after which the work is dropped; None is never.
        priority: ``low`` gives way to everybody else.
        cache_namespace: As in ``GenerationRequest``.
    """

    tenant: str = ""
    timeout_s: float | None = None
    priority: Priority = "normal"
    cache_namespace: bytes | None = None

# SPDX-License-Identifier: Apache-2.0
"""Adyton's client: proves what runs in the enclave before it sends anything, and keeps signed receipts.

::

    from adyton import Client, Simulation

    client = Client("http://127.0.0.1:8470", simulation=Simulation.from_dir())
    client.verify()
    client.openai().chat.completions.create(...)

Each name is imported when it is asked for first, so that what needs no network (``adyton quote verify``) does not wait
for an HTTP client to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from adyton.async_client import AsyncClient
    from adyton.client import Client
    from adyton.receipts import ReceiptRecord
    from adyton.replay import SearchFile
    from adyton.search_report import SearchReport
    from adyton.simulation import Simulation

__all__ = ["AsyncClient", "Client", "ReceiptRecord", "SearchFile", "SearchReport", "Simulation"]

_HOMES: Final = {
    "AsyncClient": "adyton.async_client",
    "Client": "adyton.client",
    "ReceiptRecord": "adyton.receipts",
    "SearchFile": "adyton.replay",
    "SearchReport": "adyton.search_report",
    "Simulation": "adyton.simulation",
}


def __getattr__(name: str) -> object:
    """Import what is public when it is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names beside what is there already."""
    return sorted({*globals(), *__all__})

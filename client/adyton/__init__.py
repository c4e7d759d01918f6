# SPDX-License-Identifier: Apache-2.0
"""Adyton's client: proves what runs in the enclave before it sends anything, and keeps signed receipts.

::

    from adyton import Client, Simulation

    client = Client("http://127.0.0.1:8470", simulation=Simulation.from_dir())
    client.verify()
    client.openai().chat.completions.create(...)
"""

from adyton.async_client import AsyncClient
from adyton.client import Client
from adyton.receipts import ReceiptRecord
from adyton.replay import SearchFile
from adyton.search_report import SearchReport
from adyton.simulation import Simulation

__all__ = ["AsyncClient", "Client", "ReceiptRecord", "SearchFile", "SearchReport", "Simulation"]

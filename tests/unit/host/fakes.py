# SPDX-License-Identifier: Apache-2.0
"""A scripted enclave on a real loopback socket, and a real relay before it.

The enclave speaks raw HTTP/1.1, so that a test sees every byte that the relay sends and decides itself when
each byte of an answer leaves and how a connection ends.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from adyton_host.app import HostParts, create_app
from adyton_host.config import RelayLimits
from adyton_host.metrics import Metrics
from adyton_host.relay import Relay, enclave_client
from adyton_host.routing import RoutingTable
from adyton_host.service import bind, serving

KEY_ID = 7
SEALED = bytes([KEY_ID]) + b"\x64\x7a" + bytes(range(64))


@dataclass
class Call:
    """One request as the enclave sees it, and the means to answer it."""

    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: bytes = b""

    @property
    def request_line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode()

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }

    async def read_body_part(self) -> bytes:
        """One chunk of a chunked body; empty at its end."""
        size = int((await self.reader.readline()).strip(), 16)
        part = await self.reader.readexactly(size)
        await self.reader.readline()
        self.body += part
        return part

    async def read_body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            while await self.read_body_part():
                pass
        return self.body

    async def start(self, status: int = 200, *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", "Transfer-Encoding: chunked", *headers]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        await self.writer.drain()

    async def part(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self) -> None:
        await self.part(b"")

    def abort(self) -> None:
        """Drop the connection, as the death of the process does."""
        self.writer.transport.abort()

    async def until_hang_up(self) -> None:
        """Return when the relay has closed its side."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1024):
                pass


Script = Callable[[Call], Awaitable[None]]


async def echo(call: Call) -> None:
    """The default script: answer with the body."""
    body = await call.read_body()
    await call.start(200, "Content-Type: message/ohttp-chunked-res")
    await call.part(body or b"{}")
    await call.end()


@dataclass
class FakeEnclave:
    """Serves ``/readyz`` from its fields and everything else by ``script``."""

    script: Script = echo
    ready: bool = True
    key_ids: list[int] = field(default_factory=lambda: [KEY_ID])
    calls: list[Call] = field(default_factory=list)
    probes: int = 0
    base_url: str = ""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Die: no listener, and every connection dropped."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._answer_all(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
            call = Call(head, reader, writer)
            if call.request_line.startswith("GET /readyz"):
                self.probes += 1
                document = {"ready": self.ready, "key_ids": self.key_ids, "not_after": 2_000_000_000}
                await call.start(200 if self.ready else 503, "Content-Type: application/json")
                await call.part(json.dumps(document).encode())
                await call.end()
            else:
                self.calls.append(call)
                await self.script(call)


@dataclass
class Host:
    """A running relay, a client of it, and what it is made of."""

    base_url: str
    client: httpx.AsyncClient
    table: RoutingTable
    metrics: Metrics
    relay: Relay

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def seal(self, body: bytes | AsyncIterator[bytes] = SEALED, **headers: str) -> httpx.Response:
        fields = {"content-type": "message/ohttp-chunked-req", **headers}
        return await self.client.post("/.well-known/ohttp-gateway", content=body, headers=fields)


@contextlib.asynccontextmanager
async def running_host(
    *enclaves: FakeEnclave,
    limits: RelayLimits | None = None,
    endorsements: Path | None = None,
    releases: Path | None = None,
) -> AsyncIterator[Host]:
    """A real relay on a real socket before the given enclaves."""
    limits = limits or RelayLimits()
    async with contextlib.AsyncExitStack() as stack:
        for enclave in enclaves:
            if not enclave.base_url:
                await enclave.open()
            stack.push_async_callback(enclave.close)
        upstream = await stack.enter_async_context(enclave_client(limits))
        # The background refresh is made rare, so that what a test sees comes from what it did.
        table = RoutingTable(upstream, refresh_s=3600.0, min_interval_s=0.0)
        for enclave in enclaves:
            table.add(enclave.base_url)
        await table.refresh()
        metrics = Metrics()
        relay = Relay(upstream, table, limits)
        app = create_app(
            HostParts(
                relay=relay,
                table=table,
                metrics=metrics,
                endorsements=endorsements,
                releases=releases,
                simulated=True,
            )
        )
        listener = bind("127.0.0.1", 0)
        stack.callback(listener.close)
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await stack.enter_async_context(serving(app, listener, drain_s=1))
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=20.0)
        )
        yield Host(base_url, client, table, metrics, relay)


__all__ = ["KEY_ID", "SEALED", "Call", "FakeEnclave", "Host", "running_host"]

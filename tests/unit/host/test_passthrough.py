# SPDX-License-Identifier: Apache-2.0
"""Passing TCP through: every byte in order, nothing kept, and an end to everything."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton_host.config import PassthroughLimits
from adyton_host.passthrough import Passthrough

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say everything back, and end when the other side has."""
    try:
        with contextlib.suppress(OSError):
            while part := await reader.read(4096):
                writer.write(part)
                await writer.drain()
    finally:
        writer.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything and say nothing."""
    with contextlib.suppress(OSError):
        while await reader.read(4096):
            pass
    writer.close()


@contextlib.asynccontextmanager
async def passing(
    peer: Peer = echo, limits: PassthroughLimits | None = None, *, ready: bool = True
) -> AsyncIterator[tuple[Passthrough, tuple[str, int]]]:
    """A passthrough before a peer; yields it and its address."""
    writers: list[asyncio.StreamWriter] = []
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.add(asyncio.ensure_future(peer(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    inner: tuple[str, int] = server.sockets[0].getsockname()[:2]
    passthrough = Passthrough(lambda: inner if ready else None, limits or PassthroughLimits())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with passthrough.serving(listener):
            yield passthrough, listener.getsockname()[:2]
    server.close()
    await asyncio.gather(*tasks)
    for writer in writers:
        writer.close()


async def send(address: tuple[str, int], data: bytes) -> bytes:
    """Say something, end, and hear the rest."""
    reader, writer = await asyncio.open_connection(*address)
    heard = b""
    try:
        with contextlib.suppress(OSError):
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(10):
                heard = await reader.read()
    finally:
        writer.close()
    return heard


@settings(max_examples=10, deadline=None)
@given(st.lists(st.binary(max_size=300_000), min_size=1, max_size=3))
def test_every_byte_passes_in_order(messages: list[bytes]) -> None:
    """Whatever it is and however much, both ways, for connections side by side."""

    async def run() -> list[bytes]:
        async with passing() as (_, address):
            return list(await asyncio.gather(*(send(address, message) for message in messages)))

    assert asyncio.run(run()) == messages


async def test_a_slow_reader_gets_all_of_it() -> None:
    """An enclave that is done does not cut what its client has not taken yet."""
    size = 8 * 1024 * 1024

    async def generous(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(size))
        await writer.drain()
        writer.close()

    async with passing(generous) as (_, address):
        reader, writer = await asyncio.open_connection(*address, limit=1024)
        heard = 0
        async with asyncio.timeout(60):
            while part := await reader.read(16_384):
                heard += len(part)
                await asyncio.sleep(0)
        writer.close()
    assert heard == size


async def test_a_connection_too_many_is_closed_at_once() -> None:
    """Others are not disturbed, and a place that is free again is given away again."""
    async with passing(limits=PassthroughLimits(max_connections=1)) as (passthrough, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"first")
        assert await reader.readexactly(5) == b"first"
        assert await send(address, b"second") == b""
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"
        writer.close()
        async with asyncio.timeout(10):
            while passthrough.connections:  # noqa: ASYNC110 - it ends in another task
                await asyncio.sleep(0)
        assert await send(address, b"third") == b"third"


async def test_without_a_ready_enclave_the_connection_ends() -> None:
    """It is not kept waiting, and nothing of it is."""
    async with passing(ready=False) as (_, address):
        assert await send(address, b"hello") == b""


@pytest.mark.parametrize("limits", [PassthroughLimits(idle_s=0.05), PassthroughLimits(max_age_s=0.05)])
async def test_silence_and_age_have_an_end(limits: PassthroughLimits) -> None:
    """A connection that says nothing, or has been there for long, is cut."""
    async with passing(silent, limits) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello")
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


async def test_open_connections_are_cut_at_the_end() -> None:
    """Stopping the host waits for nobody."""
    async with passing() as (passthrough, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert passthrough.connections == 1
    assert passthrough.connections == 0
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()

# SPDX-License-Identifier: Apache-2.0
"""The relay hands parts on as they come, in both directions, and lets go when either side does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from unit.host.fakes import KEY_ID, SEALED, Call, FakeEnclave, Host, running_host

from adyton_host.config import RelayLimits

GATEWAY = "/.well-known/ohttp-gateway"
CHUNKED = {"content-type": "message/ohttp-chunked-req"}


async def test_the_first_part_of_an_answer_arrives_before_the_last_is_made() -> None:
    """The enclave does not go on before the client has seen the first part, so nothing waits for the end."""
    seen_first = asyncio.Event()

    async def script(call: Call) -> None:
        await call.read_body()
        await call.start(200, "Content-Type: message/ohttp-chunked-res")
        await call.part(b"first")
        await seen_first.wait()
        await call.part(b"second")
        await call.end()

    enclave = FakeEnclave(script)
    async with (
        running_host(enclave) as host,
        host.client.stream("POST", GATEWAY, content=SEALED, headers=CHUNKED) as response,
    ):
        parts = response.aiter_raw()
        assert await anext(parts) == b"first"
        seen_first.set()
        assert b"".join([part async for part in parts]) == b"second"
        assert response.status_code == 200


async def test_the_first_part_of_a_request_arrives_before_the_last_is_made() -> None:
    """The client does not go on before the enclave has the first part."""
    enclave_has_first = asyncio.Event()

    async def script(call: Call) -> None:
        await call.read_body_part()
        enclave_has_first.set()
        body = await call.read_body()
        await call.start()
        await call.part(body)
        await call.end()

    async def upload() -> AsyncIterator[bytes]:
        yield SEALED
        await enclave_has_first.wait()
        yield b"more"

    async with running_host(FakeEnclave(script)) as host:
        response = await host.seal(upload())
    assert response.content == SEALED + b"more"


async def test_a_client_that_hangs_up_in_mid_answer_closes_the_enclave_connection() -> None:
    """The enclave sees the end of its connection while it still streams."""
    hung_up = asyncio.Event()

    async def script(call: Call) -> None:
        await call.read_body()
        await call.start()
        await call.part(b"first")
        await call.until_hang_up()
        hung_up.set()

    async with running_host(FakeEnclave(script)) as host:
        async with host.client.stream("POST", GATEWAY, content=SEALED, headers=CHUNKED) as response:
            assert await anext(response.aiter_raw()) == b"first"
        async with asyncio.timeout(5):
            await hung_up.wait()
        assert await until_outcome(host, "client-gone") == 1
        assert host.relay.gate.inside == 0


async def test_a_client_that_takes_nothing_is_given_up() -> None:
    """An answer that nobody takes does not hold a place, nor the enclave's sequence, for ever."""
    hung_up = asyncio.Event()

    async def endless(call: Call) -> None:
        await call.read_body()
        await call.start()
        with contextlib.suppress(ConnectionError):
            while True:
                await call.part(bytes(65536))
        hung_up.set()

    async with running_host(FakeEnclave(endless), limits=RelayLimits(download_idle_s=0.1)) as host:
        url = urlsplit(host.base_url)
        _, writer = await asyncio.open_connection(url.hostname, url.port, limit=1024)
        head = f"POST {GATEWAY} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(SEALED)}\r\n"
        writer.write(f"{head}Content-Type: {CHUNKED['content-type']}\r\n\r\n".encode() + SEALED)
        async with asyncio.timeout(10):
            await hung_up.wait()
        assert await until_outcome(host, "client-gone") == 1
        writer.transport.abort()


async def test_a_client_that_hangs_up_before_the_answer_closes_the_enclave_connection() -> None:
    """An enclave that is still computing an unstreamed answer learns at once that nobody waits for it."""
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> None:
        await call.read_body()
        asked.set()
        await call.until_hang_up()
        hung_up.set()

    async with running_host(FakeEnclave(script)) as host:
        asking = asyncio.create_task(host.seal())
        await asked.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(5):
            await hung_up.wait()


async def test_a_client_that_hangs_up_in_mid_request_closes_the_enclave_connection() -> None:
    """Half a request never stays at the enclave, and never ends there as if it were whole."""
    started, hung_up = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> None:
        await call.read_body_part()
        started.set()
        with contextlib.suppress(ValueError):
            await call.read_body_part()
        hung_up.set()

    async def upload() -> AsyncIterator[bytes]:
        yield SEALED
        await asyncio.Event().wait()

    enclave = FakeEnclave(script)
    async with running_host(enclave) as host:
        asking = asyncio.create_task(host.seal(upload()))
        await started.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(5):
            await hung_up.wait()
        assert enclave.calls[0].body == SEALED


async def test_an_enclave_that_dies_in_mid_answer_leaves_a_cut_connection() -> None:
    """The client sees an incomplete body, never a proper end; the next exchange is served."""

    async def dying(call: Call) -> None:
        await call.read_body()
        await call.start()
        await call.part(b"first")
        call.abort()

    enclave = FakeEnclave(dying)
    async with running_host(enclave) as host:
        with pytest.raises(httpx.RemoteProtocolError):
            await host.seal()
        assert await until_outcome(host, "enclave-died") == 1
        enclave.script = FakeEnclave().script
        assert (await host.seal()).content == SEALED


async def test_an_enclave_that_dies_before_the_first_byte_gives_502() -> None:
    """Also when it had sent the head of an answer: a client is told while that is possible."""

    async def dying(call: Call) -> None:
        await call.read_body()
        call.abort()

    async def dying_after_head(call: Call) -> None:
        await call.read_body()
        await call.start()
        call.abort()

    enclave = FakeEnclave(dying)
    async with running_host(enclave) as host:
        for script in (dying, dying_after_head):
            enclave.script = script
            response = await host.seal()
            assert response.status_code == 502
            assert response.json()["type"] == "urn:adyton:problem:enclave-unavailable"


async def test_a_silent_enclave_is_given_up() -> None:
    """Silence before the first byte ends in 504; the limit is the operator's."""

    async def silent(call: Call) -> None:
        await call.until_hang_up()

    async with running_host(FakeEnclave(silent), limits=RelayLimits(enclave_idle_s=0.05)) as host:
        response = await host.seal()
    assert response.status_code == 504


async def test_many_exchanges_share_the_relay() -> None:
    """Concurrent exchanges do not mix: each client gets the bytes of its own request."""
    async with running_host(FakeEnclave()) as host:
        bodies = [bytes([KEY_ID]) + index.to_bytes(2, "big") * 5000 for index in range(24)]
        answers = await asyncio.gather(*(host.seal(body) for body in bodies))
    assert [answer.content for answer in answers] == bodies


async def until_outcome(host: Host, outcome: str) -> float:
    """Wait until an exchange has been counted: counting happens after the client has its answer."""
    async with asyncio.timeout(5):
        while True:
            total = sum(
                sample.value
                for metric in host.metrics.registry.collect()
                for sample in metric.samples
                if sample.name == "adyton_host_requests_total" and sample.labels["outcome"] == outcome
            )
            if total:
                return total
            await asyncio.sleep(0)

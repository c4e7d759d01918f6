# SPDX-License-Identifier: Apache-2.0
"""The load generator: one process, one event loop, any number of streaming clients, the same for every server.

It runs as a process of its own, so that its work is counted apart from the servers', and takes jobs as lines of
JSON on standard input. A client is a list of requests, sent one after the other. Background clients repeat theirs
until the others are done, and hang up then.

Three ways to reach a server: ``sealed`` is our SDK (attests, seals, opens, checks receipts), ``httpx`` is the HTTP
library underneath the SDK and underneath OpenAI's, in the clear, ``raw`` is a bare socket. All three share the
parser of events below, which looks at bytes and decodes JSON only for the usage.

Usage, by :class:`Generator` only: ``python bench/generator.py WAY URL [SIMULATION_DIR]``
"""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlsplit

import httpx

from adyton import AsyncClient, Simulation
from adyton_attestation.simulation.warning import SimulatedAttestationWarning

Way = Literal["sealed", "httpx", "raw"]
Json = dict[str, object]

_TEXT: Final = re.compile(rb'"content": ?"(?!")')
_USAGE: Final = re.compile(rb'"usage": ?\{')
_READ_BYTES: Final = 1 << 16
_TIMEOUT_S: Final = 600.0
_PATH: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One streamed chat completion, ``delay_s`` after the client's previous one."""

    body: Json
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPlan:
    """What one client does."""

    requests: list[Request]
    background: bool = False


@dataclass(slots=True, kw_only=True)
class Answer:
    """What one request brought; times in seconds since the job began."""

    start_s: float
    end_s: float = 0.0
    text_s: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    complete: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished job: the answers of each client, and the CPU time that the generator itself used."""

    answers: list[list[Answer]]
    wall_s: float
    cpu_s: float


class Generator:
    """The generator's process, seen from the one that measures."""

    def __init__(self, way: Way, url: str, simulation: Path | None = None) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), way, url]
        if simulation is not None:
            command.append(str(simulation))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, clients: list[ClientPlan]) -> Outcome:
        """Run a job to its end.

        Raises:
            SystemExit: The generator died, or a request failed; the server is at fault.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("the load generator has no pipes")
        self._process.stdin.write(json.dumps([asdict(client) for client in clients]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the load generator died; its message stands above")
        document = json.loads(line)
        answers = [[Answer(**answer) for answer in client] for client in document["answers"]]
        return Outcome(answers=answers, wall_s=document["wall_s"], cpu_s=document["cpu_s"])

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait(timeout=30)


# --- Inside the process -------------------------------------------------------------------------------


class Connection(Protocol):
    """How a client reaches the server."""

    def post(self, body: Json) -> AsyncIterator[bytes]:
        """Yield the answer's body as it arrives; raise when it is not complete."""


class HttpxConnection:
    """httpx, over our sealing transport or in the clear."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def post(self, body: Json) -> AsyncIterator[bytes]:
        """See :class:`Connection`."""
        async with self._client.stream("POST", _PATH, json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise RuntimeError(f"status {response.status_code}: {(await response.aread())[:200]!r}")
            async for data in response.aiter_raw():
                yield data


class RawConnection:
    """A socket for each request, and no more HTTP than a stream of chunks needs."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80

    async def post(self, body: Json) -> AsyncIterator[bytes]:
        """See :class:`Connection`."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            data = json.dumps(body).encode()
            head = (
                f"POST {_PATH} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(data)}\r\nconnection: close\r\n\r\n"
            )
            writer.write(head.encode() + data)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b" 200 " not in answer.split(b"\r\n", 1)[0] or b"chunked" not in answer:
                raise RuntimeError(f"unexpected answer: {answer[:200]!r}")
            buffer = b""
            while True:
                while (end := buffer.find(b"\r\n")) < 0:
                    buffer += await _more(reader)
                size = int(buffer[:end], 16)
                if size == 0:
                    return
                need = end + 2 + size + 2
                while len(buffer) < need:
                    buffer += await _more(reader)
                yield buffer[end + 2 : need - 2]
                buffer = buffer[need:]
        finally:
            writer.close()


async def _more(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(_READ_BYTES)
    if not data:
        raise RuntimeError("the connection ended early")
    return data


class _Job:
    """One job in progress."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._started_s = time.perf_counter()

    def _now_s(self) -> float:
        return time.perf_counter() - self._started_s

    async def _request(self, body: Json, answer: Answer) -> None:
        buffer = b""
        async with contextlib.aclosing(self._connection.post(body)) as pieces:  # type: ignore[type-var]
            async for data in pieces:
                now_s = self._now_s()
                *events, buffer = (buffer + data).split(b"\n\n")
                for event in events:
                    if _TEXT.search(event):
                        answer.text_s.append(round(now_s, 6))
                    if _USAGE.search(event):
                        usage = json.loads(event[event.index(b"{") :])["usage"]
                        answer.prompt_tokens = usage["prompt_tokens"]
                        answer.completion_tokens = usage["completion_tokens"]
                    answer.complete |= event.strip().endswith(b"[DONE]")
        if not answer.complete:
            raise RuntimeError("the stream ended without [DONE]")

    async def _client(self, client: dict[str, Any], answers: list[Answer]) -> None:
        while True:
            for request in client["requests"]:
                if request["delay_s"]:
                    await asyncio.sleep(request["delay_s"])
                answer = Answer(start_s=self._now_s())
                answers.append(answer)
                try:
                    await self._request(request["body"], answer)
                except asyncio.CancelledError:
                    raise
                except Exception as error:  # noqa: BLE001 - any failure is reported to the measuring process
                    answer.error = f"{type(error).__name__}: {error}"
                    return
                finally:
                    answer.end_s = self._now_s()
            if not client["background"]:
                return

    async def run(self, clients: list[dict[str, Any]]) -> Json:
        """Run all clients; return the outcome as JSON."""
        cpu_s = time.process_time()
        answers: list[list[Answer]] = [[] for _ in clients]
        tasks = [
            asyncio.create_task(self._client(client, into))
            for client, into in zip(clients, answers, strict=True)
        ]
        front = [task for task, client in zip(tasks, clients, strict=True) if not client["background"]]
        await asyncio.gather(*front)
        wall_s = self._now_s()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {
            "answers": [[asdict(answer) for answer in client] for client in answers],
            "wall_s": wall_s,
            "cpu_s": time.process_time() - cpu_s,
        }


@contextlib.asynccontextmanager
async def _connect(way: str, url: str, simulation: str | None) -> AsyncIterator[Connection]:
    timeout = httpx.Timeout(_TIMEOUT_S)
    match way:
        case "sealed":
            if simulation is None:
                raise SystemExit("the sealed way needs the directory of the simulated platform")
            async with AsyncClient(url, simulation=Simulation.from_dir(Path(simulation))) as client:
                await client.verify()
                async with client.http() as http:
                    yield HttpxConnection(http)
        case "httpx":
            # llama-server now and then closes a connection after a stream without having said so, hence a new
            # one for each request.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            async with httpx.AsyncClient(
                base_url=url, timeout=timeout, limits=limits, trust_env=False
            ) as http:
                yield HttpxConnection(http)
        case _:
            yield RawConnection(url)


async def _serve(way: str, url: str, simulation: str | None) -> None:
    async with _connect(way, url, simulation) as connection:
        while line := await asyncio.to_thread(sys.stdin.readline):
            outcome = await _Job(connection).run(json.loads(line))
            print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", SimulatedAttestationWarning)
    asyncio.run(_serve(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))

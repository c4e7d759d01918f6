# SPDX-License-Identifier: Apache-2.0
"""The callers of the soak: many at once, asking for everything, and leaving whenever they like.

Each caller draws what to ask and what to do with the answer from a seeded generator: wait for it, stop reading in the
middle, or cut the request off at any moment. Every request must end within a limit; one that does not is stuck.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httpx
import numpy as np

from adyton_protocol.errors import AdytonError

Json = dict[str, object]

_SENTENCE: Final = "Leo has 12 pens and Mia has 4 more pens than Leo has. "
_QUESTION: Final = "How many pens does Mia have?"
_SENTENCE_TOKENS: Final = 16
"""At least; the shipped tokenizer needs about this many, others fewer."""
_MAX_WAIT_S: Final = 2.0
_SCHEMA: Final[Json] = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {
            "type": "object",
            "properties": {"pens": {"type": "integer"}, "owner": {"type": "string", "maxLength": 12}},
            "required": ["pens", "owner"],
            "additionalProperties": False,
        },
    },
}
KINDS: Final = ("short", "whole", "long", "forks", "schema", "logprobs", "too long")
_KIND_WEIGHTS: Final = (0.36, 0.14, 0.16, 0.16, 0.06, 0.08, 0.04)
FATES: Final = ("finish", "stop reading", "cut off")
_FATE_WEIGHTS: Final = (0.66, 0.17, 0.17)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the requests."""

    asked: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    stuck: int = 0
    tokens: int = 0
    longest_s: float = 0.0

    def to_json(self) -> Json:
        """Everything as plain values."""
        return {
            "asked": dict(self.asked),
            "ended": dict(self.ended),
            "errors": dict(self.errors),
            "stuck": self.stuck,
            "tokens": self.tokens,
            "longest_s": self.longest_s,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Bounds of the load."""

    n_ctx: int
    candidates: int
    limit_s: float


class Caller:
    """One caller."""

    def __init__(self, http: httpx.AsyncClient, tally: Tally, rules: Rules, seed: int) -> None:
        self._http = http
        self._tally = tally
        self._rules = rules
        self._rng = np.random.default_rng(seed)

    async def call_until(self, over: Callable[[], bool]) -> None:
        """Send one request after the other until ``over``."""
        while not over():
            await self._call()

    async def _call(self) -> None:
        tally, rng = self._tally, self._rng
        kind = str(rng.choice(KINDS, p=_KIND_WEIGHTS))
        fate = str(rng.choice(FATES, p=_FATE_WEIGHTS))
        tally.asked[kind] += 1
        started_s = time.monotonic()
        asking = asyncio.create_task(self._ask(self._body(kind), fate))
        if fate == "cut off":
            # Short delays are likelier: they meet queueing, prefill and the first tokens.
            asyncio.get_running_loop().call_later(float(rng.exponential(0.4)), asking.cancel)
        done, _ = await asyncio.wait((asking,), timeout=self._rules.limit_s)
        tally.longest_s = max(tally.longest_s, time.monotonic() - started_s)
        if not done:
            tally.stuck += 1
            asking.cancel()
            await asyncio.wait((asking,), timeout=self._rules.limit_s)
            return
        self._count(kind, asking)

    def _count(self, kind: str, asking: "asyncio.Task[str]") -> None:
        tally = self._tally
        if asking.cancelled():
            tally.ended["cut off"] += 1
        elif isinstance(error := asking.exception(), AdytonError | httpx.HTTPError):
            tally.errors[type(error).__name__] += 1
        elif error is not None:
            raise error
        elif asking.result() == "status 400" and kind == "too long":
            tally.ended["refused as too long"] += 1
        elif asking.result().startswith("status"):
            tally.errors[asking.result()] += 1
        else:
            tally.ended[asking.result()] += 1

    def _body(self, kind: str) -> Json:
        rng, rules = self._rng, self._rules
        sentences = int(rng.integers(1, 4))
        tokens = int(rng.integers(8, 160))
        body: Json = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "stream": kind != "whole"}
        if kind == "long":
            room = max(1, (rules.n_ctx - tokens) // (2 * _SENTENCE_TOKENS))
            sentences = int(rng.integers(room // 2, room + 1))
        elif kind == "forks":
            body["n"] = int(rng.integers(2, rules.candidates + 1))
            tokens = min(tokens, 64)
        elif kind == "schema":
            body["response_format"] = _SCHEMA
        elif kind == "logprobs":
            body |= {"logprobs": True, "top_logprobs": 5}
        elif kind == "too long":
            tokens = 2 * rules.n_ctx
        content = f"{int(rng.integers(1_000_000))}. {_SENTENCE * sentences}{_QUESTION}"
        return {**body, "max_tokens": tokens, "messages": [{"role": "user", "content": content}]}

    async def _ask(self, body: Json, fate: str) -> str:
        """Send one request; return how it ended."""
        leave_after = int(self._rng.integers(1, 40)) if fate == "stop reading" else None
        async with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                wait_s = float(response.headers.get("retry-after", "1"))
                await response.aread()
                await asyncio.sleep(min(wait_s, _MAX_WAIT_S))
                return "queue full"
            if response.status_code != httpx.codes.OK:
                await response.aread()
                return f"status {response.status_code}"
            if not body["stream"]:
                document = json.loads(await response.aread())
                self._tally.tokens += document["usage"]["completion_tokens"]
                return "finished"
            return await self._read(response, leave_after)

    async def _read(self, response: httpx.Response, leave_after: int | None) -> str:
        events, last = 0, ""
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            events, last = events + 1, line
            if events == leave_after:
                return "stopped reading"
        self._tally.tokens += events
        return "finished" if last == "data: [DONE]" else f"status {_status_of(last)}"


def _status_of(event: str) -> str:
    """The type of an error inside a stream."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(event.removeprefix("data: "))["error"]["type"])
    return "no end"

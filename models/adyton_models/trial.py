# SPDX-License-Identifier: Apache-2.0
"""Loads a model as an enclave would, in a process of its own, and decodes a few tokens.

In a process of its own, because a file that makes llama.cpp abort must not take the command along, and because only so
can its memory be told apart. The child reads one JSON object from standard input (`paths`, `content` and `weights` of
the pin, `n_ctx`, `n_ctx_total`, `generates`, `embeddings`) and writes one to standard output.
"""

import asyncio
import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from adyton_models.catalog import Sampling
from adyton_protocol.digests import as_digest
from adyton_protocol.errors import AdytonError, ConfigError
from adyton_protocol.model_identity import ModelPin

PROMPT: Final = "How many pears are 12 pears and 9 pears?"
TOKENS: Final = 16
TIMEOUT_S: Final = 900
_ROUND_TRIP: Final = "A plain line, 12 + 9 = 21.\nÄ second one: naïve?"
_MADE_UP_TOKENS: Final = 520
"""Enough to fill a micro-batch, so that its memory is touched."""


def run_trial(request: Mapping[str, object]) -> dict[str, Any]:
    """Run a trial in a child process.

    Returns:
        `error` with a sentence; or `allocated_bytes` (for the model, after decoding), `peak_bytes` (most that the whole
        process had resident), `load_s`, and for a generator `why_inexact`, `round_trip`, `template` (None when the
        chat template takes a user message, otherwise why it does not), `sample`, `tokens_per_s`; or `width` of vectors.
    """
    command = [sys.executable, "-m", "adyton_models.trial"]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, input=json.dumps(request), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"loading and decoding took more than {TIMEOUT_S} s"}
    if done.returncode < 0:
        return {"error": f"llama.cpp ended the process with signal {-done.returncode} while trying the model"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"error": f"the process that tried the model ended with status {done.returncode}"}
    return answer


class _MallocInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def _allocated_bytes() -> int:
    """What the process has asked the C library for, touched or not: an enclave has to have room for all of it."""
    function = ctypes.CDLL(None).mallinfo2
    function.restype = _MallocInfo
    info = function()
    return int(info.hblkhd + info.uordblks)


def _peak_bytes() -> int:
    """Most that was resident (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["VmHWM"].split()[0]) * 1024


def try_model(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load and decode in this process; see :func:`run_trial`.

    Raises:
        AdytonError: The engine refuses the model; the message says why.
    """
    from adyton_enclave.engine import Engine, EngineConfig, ModelSpec  # noqa: PLC0415 - what is measured starts here

    config = EngineConfig(threads=0, n_ctx_total=request["n_ctx_total"])
    spec = ModelSpec(
        name="trial",
        path=request["paths"][0],
        more_paths=tuple(request["paths"][1:]),
        pin=ModelPin(content=as_digest(request["content"]), weights=as_digest(request["weights"])),
        n_ctx=request["n_ctx"],
        generates=request["generates"],
        embeddings=request["embeddings"],
    )
    before_bytes = _allocated_bytes()
    started = time.monotonic()
    engine = Engine(config, [spec]).start()
    try:
        facts: dict[str, Any] = {"load_s": time.monotonic() - started}
        facts |= asyncio.run(_use(engine, spec.generates))
        facts["allocated_bytes"] = _allocated_bytes() - before_bytes
    finally:
        engine.stop()
    return facts | {"peak_bytes": _peak_bytes()}


async def _use(engine: Any, generates: bool) -> dict[str, Any]:  # noqa: FBT001 - one of two ways
    model = engine.models["trial"]
    ids = model.tokenize(_ROUND_TRIP, add_special=False)
    facts: dict[str, Any] = {
        "round_trip": model.detokenize(ids).decode("utf-8", "replace").lstrip() == _ROUND_TRIP,
        "ends": len(model.llama.eog),
        "why_inexact": model.why_inexact,
    }
    if not generates:
        from adyton_enclave.engine import EmbeddingRequest  # noqa: PLC0415 - as above

        vectors = await engine.embed(EmbeddingRequest(model="trial", inputs=(tuple(model.tokenize(PROMPT)),)))
        return facts | {"width": len(vectors.vectors[0])}
    prompt, facts["template"] = _prompt(model)
    text, _ = await _decode(engine, prompt, TOKENS)
    # A long prompt of no meaning, so that a whole micro-batch is computed.
    long = [(7 * n) % model.n_vocab for n in range(min(_MADE_UP_TOKENS, model.n_ctx - TOKENS - 1))]
    _, tokens_per_s = await _decode(engine, long, TOKENS)
    return facts | {"sample": text, "tokens_per_s": tokens_per_s}


def _prompt(model: Any) -> tuple[list[int], str | None]:
    """A prompt, and what is wrong with the chat template, if anything."""
    if model.llama.chat_template is None:
        return model.tokenize(PROMPT), "the file has none"
    try:
        return model.apply_chat_template([{"role": "user", "content": PROMPT}]), None
    except AdytonError as error:
        return model.tokenize(PROMPT), str(error)


async def _decode(engine: Any, prompt: list[int], tokens: int) -> tuple[str, float]:
    from adyton_enclave.engine import (  # noqa: PLC0415 - as above
        GenerationRequest,
        SamplingParams,
        TextDelta,
        sampling_key,
    )

    defaults = Sampling()
    request = GenerationRequest(
        model="trial",
        prompt_token_ids=tuple(prompt),
        max_tokens=tokens,
        key=sampling_key(1),
        sampling=SamplingParams(
            temperature=defaults.temperature,
            top_p=defaults.top_p,
            top_k=defaults.top_k,
            min_p=defaults.min_p,
        ),
    )
    generation = engine.submit(request)
    text, started = "", time.monotonic()
    first_s = started
    async for event in generation:
        if isinstance(event, TextDelta):
            first_s = time.monotonic() if not text else first_s
            text += event.text
    took_s = max(time.monotonic() - first_s, 1e-9)
    return text, generation.usage.completion_tokens / took_s


def main() -> int:
    """Answer one request."""
    try:
        answer = try_model(json.load(sys.stdin))
    except ConfigError as error:
        answer = {"error": str(error)}
    except AdytonError as error:
        answer = {"error": f"the engine stopped while decoding: {error}"}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
